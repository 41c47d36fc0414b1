"""Chat templates in a page, by @huggingface/jinja through web/bridge/template.js."""

from __future__ import annotations

import json
from typing import Any

from pyodide.ffi import JsException

from bascule.bridge_browser import bridge_modules, js_message
from bascule.text.template_limits import (
    MOST_TEMPLATE_CHARACTERS,
    TemplateFault,
    TemplateRefusal,
    limits_json,
)


class PageRenderer:
    """See `Renderer`."""

    def __init__(self, template: Any) -> None:
        self._template = template

    @classmethod
    async def from_source(cls, source: str) -> PageRenderer:
        """Parse a template. TemplateFault if it is none."""
        if len(source) > MOST_TEMPLATE_CHARACTERS:
            raise TemplateFault(f"it is longer than {MOST_TEMPLATE_CHARACTERS:,} characters")
        bridge, library = await bridge_modules(("bridge/template.js", "vendor/jinja.js"))
        try:
            return cls(bridge.createTemplate(library, source, limits_json()))
        except JsException as error:
            raise TemplateFault(js_message(error)[:200]) from None

    def render(self, variables: dict[str, object]) -> str:
        """See `Renderer.render`."""
        try:
            return str(self._template.render(json.dumps(variables)))
        except JsException as error:
            told = js_message(error)
            if getattr(error, "name", "") == "TemplateRefusal":
                raise TemplateRefusal(told) from None
            raise TemplateFault(told[:200]) from None
