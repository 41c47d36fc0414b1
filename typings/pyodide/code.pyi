# The part of pyodide.code that Bascule uses.
from typing import Any

def run_js(code: str) -> Any: ...
