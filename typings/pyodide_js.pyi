from collections.abc import Awaitable, Callable
from typing import Any

def loadPackage(
    names: str,
    *,
    messageCallback: Callable[[str], None],
    errorCallback: Callable[[str], None],
) -> Awaitable[Any]: ...
async def loadPackagesFromImports(
    code: str, *, messageCallback: Callable[[str], None], errorCallback: Callable[[str], None]
) -> object: ...
