"""Parts of attention: calls that compute some heads and some queries, and leave the rest alone.

They write into one result, one after the other: a part takes over the memory of its operand `onto`,
the result of the part before it. Nothing is sliced from an operand or joined at the end, and
queries past a run's actual size do not exist. Indices count heads and queries of the whole
attention; the operand, qkv or a KV cache, may have a part of the (KV) heads, those from
`first_kept` on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bascule.errors import InputError
from bascule.program.program import Attribute, Call, Dim, Shape

PART = {"first_head": int, "n_heads": int, "first_query": int, "n_queries": int}
KEPT = {"first_kept": int, "n_kept": int}
# Everything: from 0 on, and as many as there are.
WHOLE: Mapping[str, Attribute] = MappingProxyType(dict.fromkeys((*PART, *KEPT), 0))
PLACES = frozenset(name for name in WHOLE if name.startswith("first_"))


@dataclass(frozen=True, slots=True)
class Part:
    """Heads and queries that a call computes, out of `heads` over `kv_heads`, and what is kept."""

    heads: int
    kv_heads: int
    first_head: int
    n_heads: int
    first_query: int
    n_queries: int
    first_kept: int
    n_kept: int

    @property
    def sharing(self) -> int:
        """Heads of this part per KV head."""
        return max(1, min(self.n_heads, self.heads // self.kv_heads))

    @property
    def first_kv_head(self) -> int:
        """The KV head of the first head, among all."""
        return self.first_head // (self.heads // self.kv_heads)

    @property
    def n_kv_heads(self) -> int:
        """KV heads that this part uses."""
        return self.n_heads // self.sharing

    def queries(self, tokens: int) -> int:
        """Return how many of its queries exist among that many tokens."""
        return max(0, min(tokens - self.first_query, self.n_queries))

    def check(self, op: str) -> None:
        """InputError for an empty part, a split KV group, or KV heads that are not kept."""
        shared, first, end = self.heads // self.kv_heads, self.first_head, self._end
        aligned = first % shared == 0 and self.n_heads % shared == 0
        within = first // shared == (end - 1) // shared
        stored = self.first_kept, self.first_kept + self.n_kept
        met = self.first_kv_head, self.first_kv_head + self.n_kv_heads
        fits = 0 <= first < end <= self.heads and (aligned or within)
        fits = fits and self.first_query >= 0 and self.n_queries >= 1
        if not (fits and 0 <= stored[0] <= met[0] and met[1] <= stored[1] <= self.kv_heads):
            expected = "heads of whole KV heads or of one, which are kept, and some queries"
            raise InputError(f"op {op}", expected, str(self))

    @property
    def _end(self) -> int:
        return self.first_head + self.n_heads


def part_of(call: Call) -> Part:
    """Return the part that a call with heads computes: all, unless its attributes name one."""
    x = call.operands[0]
    assert x is not None
    return part_from(dict(call.attributes), x.limits[-2])


def part_from(attributes: Mapping[str, Attribute], tokens: int = 1) -> Part:
    """Read a part from attributes; by default the heads over what is kept, and `tokens` queries."""

    def number(name: str) -> int:
        value = attributes.get(name, 0)
        assert isinstance(value, int)
        return value

    heads = number("heads")
    kv_heads = number("kv_heads") or heads
    shared = heads // kv_heads
    stored = number("first_kept"), number("n_kept") or kv_heads
    done = number("first_head"), number("n_heads")
    if not done[1]:
        done = stored[0] * shared, stored[1] * shared
    queries = number("first_query"), number("n_queries") or tokens
    return Part(heads, kv_heads, *done, *queries, *stored)


def attention_work(call: Call) -> int:
    """Return the multiply-adds of attention at its largest sizes: of the scores and of the sums."""
    part, (x, cache, *_) = part_of(call), call.operands
    assert x is not None
    assert cache is not None
    if len(x.limits) == 3:  # texts of their own, no cache
        batch, tokens, packed = x.limits
        keys, size = tokens, packed // 3 // part.n_kept
    else:
        batch, tokens, slots = 1, x.limits[0], cache.limits[0]
        keys, size = min(slots, call.integer("window") or slots), call.integer("size")
    return 2 * batch * part.n_heads * part.queries(tokens) * keys * size


def checked(op: str, attributes: Mapping[str, Attribute]) -> Part:
    """Read a part from attributes; InputError for impossible heads or parts."""
    heads = attributes["heads"]
    kv_heads, size = attributes.get("kv_heads", heads), attributes.get("size", 4)
    assert isinstance(heads, int)
    assert isinstance(kv_heads, int)
    assert isinstance(size, int)
    if heads < 1 or kv_heads < 1 or heads % kv_heads or size < 4 or size % 4:
        expected = f"{heads} heads over {kv_heads} of size {size}"
        raise InputError(f"op {op}", "H a multiple of G, D a multiple of 4", expected)
    part = part_from(attributes)
    part.check(op)
    return part


def onto_shape(op: str, result: Shape, onto: Shape | None) -> Shape:
    """Return the result's shape; InputError if `onto` has another."""
    if onto is not None and onto != result:
        raise InputError(
            f"op {op}", f"a result {_shape_text(result)} to go on with", _shape_text(onto)
        )
    return result


def _shape_text(shape: Shape) -> str:
    return str(tuple(d.name if isinstance(d, Dim) else d for d in shape))
