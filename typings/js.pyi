# The page's globals; what each is, only JavaScript knows.
from typing import Any

def __getattr__(name: str) -> Any: ...
