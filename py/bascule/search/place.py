"""Choose the store of an index: the page's or the native one."""

from __future__ import annotations

from bascule.base.page_settings import IN_PAGE
from bascule.cache import INDEX_PREFIX
from bascule.search.stores import IndexStore


async def open_store(name: str) -> IndexStore:
    """Return the store of an index of that name."""
    if IN_PAGE:
        from bascule.search.store_browser import PageStore

        return await PageStore.make(INDEX_PREFIX + name)
    from bascule.search.store_native import NativeStore  # what it needs is not in a page

    return NativeStore(INDEX_PREFIX + name)
