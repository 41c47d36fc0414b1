"""The prompts of a sentence encoder: texts prepended to each input, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bascule.errors import InputError
from bascule.text import check_unicode


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts by name, and the name of the default one (None: none)."""

    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    default: str | None = None

    def choose(self, prompt: object, prompt_name: object) -> str:
        """Return the prompt for a call; InputError for an unknown name or for both at once."""
        if prompt is not None and prompt_name is not None:
            raise InputError("embed", "prompt or prompt_name", "both")
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputError("embed, prompt", "a string", type(prompt).__name__)
            check_unicode(prompt, "embed, prompt")
            return prompt
        name = self.default if prompt_name is None else prompt_name
        if name is None:
            return ""
        if not isinstance(name, str):
            raise InputError("embed, prompt_name", "a string", type(name).__name__)
        if name not in self.texts:
            known = ", ".join(map(repr, self.texts)) or "none"
            hint = "Give the prompt itself: embed(texts, prompt=...)."
            raise InputError(
                "embed, prompt_name", f"a prompt of the model ({known})", repr(name[:80]), hint=hint
            )
        return self.texts[name]
