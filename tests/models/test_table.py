"""The table of families: who may know them, and what every row has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bascule
from bascule.models.family import (
    AnyFamily,
    DecoderFamily,
    EncoderFamily,
    ImageFamily,
    ImageTextFamily,
    SpeechFamily,
    TextToTextFamily,
)
from bascule.models.table import FAMILIES, VOICE_FAMILIES
from bascule.tasks.registry import KNOWN

PACKAGE = Path(bascule.__file__).parent
# Below the families: tokenizers and file formats have names of their own.
BELOW = ("models", "audio", "text", "weights", "backend", "program", "web", "shaders")
# A model's own name may have its family's in it.
KNOWN_NAMES = re.compile(
    "|".join(re.escape(n) for m in KNOWN.values() for n in (m.hub_repo, m.package, m.name) if n)
)
# numpy's function has the name of a family; in array/ nothing else has it.
FUNCTION = re.compile(r"\bnp\.clip\b")
FUNCTION_IN_ARRAYS = re.compile(r"\bclip\b")
ROWS = (*FAMILIES, *VOICE_FAMILIES)
NAMES = {name for family in ROWS for name in (family.name, *family.model_types)}


def unnamed(path: Path) -> re.Pattern[str]:
    in_arrays = path.relative_to(PACKAGE).parts[0] == "array"
    return FUNCTION_IN_ARRAYS if in_arrays else FUNCTION


def test_nothing_above_the_families_names_one() -> None:
    words = re.compile(rf"(?<![a-z_])({'|'.join(map(re.escape, sorted(NAMES)))})(?![a-z_])", re.I)
    above = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in BELOW]
    assert len(above) > 100
    named = {
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in above
        for line in path.read_text(encoding="utf-8").splitlines()
        if words.search(unnamed(path).sub("", KNOWN_NAMES.sub("", line)))
    }
    assert not named


def test_a_family_imports_no_other() -> None:
    homes = {path.name for path in (PACKAGE / "models").iterdir() if path.is_dir()}
    families = homes - {"encoder", "decoder", "image", "speech", "text_to_text", "__pycache__"}
    families -= {"image_text"}
    assert len(families) == len(FAMILIES) + len(VOICE_FAMILIES)
    for family in families:
        for path in (PACKAGE / "models" / family).glob("*.py"):
            result = re.findall(r"from bascule\.models\.(\w+)", path.read_text(encoding="utf-8"))
            assert not (families - {family} | {"table"}) & set(result), path


def test_no_two_rows_match_one_file() -> None:
    types = [name for family in FAMILIES for name in family.model_types]
    assert len(types) == len(set(types))
    decoders = [family for family in FAMILIES if isinstance(family, DecoderFamily)]
    architectures = [name for family in decoders for name in family.architectures]
    assert len(architectures) == len(set(architectures))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_row_has_the_phases_of_its_tasks(family: AnyFamily) -> None:
    if isinstance(family, TextToTextFamily):
        assert family.tasks == ("transform",)
        return
    if isinstance(family, ImageTextFamily):
        assert family.tasks == ("see", "embed")
        return
    phases, tasks = {
        EncoderFamily: ({"encode"}, ("embed", "classify")),
        DecoderFamily: ({"decode"}, ("generate",)),
        ImageFamily: ({"image"}, ("see",)),
        SpeechFamily: ({"encode", "decode"}, ("transcribe",)),
    }[type(family)]
    assert family.phases.keys() == phases
    assert family.tasks == tasks
    assert not isinstance(family, EncoderFamily) or family.head is not None
