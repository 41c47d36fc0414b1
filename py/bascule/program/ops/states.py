"""States that ops of several kinds share: the tokens of a text, and its position."""

from __future__ import annotations

from bascule.program.ops import samples
from bascule.program.ops.table import Operand

TOKENS = Operand("tokens", "state", sample=samples.tokens)
POSITION = Operand("position", "state", sample=samples.position)
