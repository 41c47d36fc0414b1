"""The header parser against the format's own library, known attacks and fuzzing."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bascule.errors import ModelFileError
from bascule.weights.safetensors import TensorInfo, header_nbytes, parse_header

GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def parse(data: bytes) -> dict[str, TensorInfo]:
    length = header_nbytes(data[:8], len(data), "f")
    return parse_header(data[8 : 8 + length], len(data), "f")


def file_of(header: object, data_nbytes: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_nbytes)


names = st.text(min_size=1, max_size=12).filter(lambda n: n != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
dtypes = st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.float64])


@given(st.dictionaries(names, st.tuples(shapes, dtypes), max_size=6))
def test_files_of_the_reference_library_parse_to_the_same_table(
    wanted: dict[str, tuple[tuple[int, ...], type]],
) -> None:
    arrays = {n: np.arange(int(np.prod(s))).reshape(s).astype(d) for n, (s, d) in wanted.items()}
    data = save(arrays, metadata={"made": "here"})
    result = parse(data)
    assert result.keys() == arrays.keys()
    for name, array in arrays.items():
        info = result[name]
        assert info.shape == array.shape
        assert data[info.start : info.start + info.nbytes] == array.tobytes()


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ModelFileError):
        parse(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
fields = st.sampled_from(["dtype", "shape", "data_offsets", "extra"])
near = st.dictionaries(
    names,
    st.dictionaries(
        fields,
        json_values | st.just("F32") | st.lists(st.integers(-3, 2**64), max_size=3),
        max_size=4,
    ),
    max_size=3,
)


@settings(max_examples=500)
@given(json_values | near, st.integers(0, 40))
def test_any_json_header_parses_or_is_refused(header: object, data_nbytes: int) -> None:
    try:
        result = parse(file_of(header, data_nbytes))
    except ModelFileError:
        return
    # Accepted means: described fully and truly.
    assert sum(t.nbytes for t in result.values()) == data_nbytes


@given(st.integers(0, 2**64 - 1), st.integers(0, 64))
def test_any_header_length_is_bounded(length: int, rest: int) -> None:
    file_nbytes = 8 + rest
    try:
        result = header_nbytes(struct.pack("<Q", length), file_nbytes, "f")
    except ModelFileError:
        return
    assert 2 <= result <= rest


def entry(**changes: object) -> dict[str, object]:
    return {"a": {**GOOD["a"], **changes}}


@pytest.mark.parametrize(
    ("header", "data_nbytes", "told"),
    [
        (GOOD, 23, "describes"),
        (GOOD, 25, "describes"),
        (entry(data_offsets=[4, 28]), 28, "hole"),
        ({**GOOD, "b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, 24, "overlaps"),
        ({**GOOD, "b": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}, 24, "overlaps"),
        (entry(shape=[2**40, 2**40]), 24, "fill"),
        (entry(shape=[2**62, 4, 2]), 24, "shape"),
        (entry(shape=[-2, -3]), 24, "shape"),
        (entry(shape=[True, 6]), 24, "shape"),
        (entry(shape=[2.0, 3]), 24, "shape"),
        (entry(shape=[1] * 9), 24, "shape"),
        (entry(shape="23"), 24, "shape"),
        (entry(data_offsets=[24, 0]), 24, "fill"),
        (entry(data_offsets=[-24, 0]), 24, "offsets"),
        (entry(data_offsets=[0, 24, 48]), 24, "offsets"),
        (entry(dtype="F31"), 24, "F31"),
        (entry(dtype=["F32"]), 24, "dtype"),
        (entry(extra=1), 24, "just"),
        ({"a": {"dtype": "F32", "shape": [6]}}, 24, "just"),
        ({"a": 3}, 0, "just"),
        ({**GOOD, "__metadata__": {"x": 1}}, 24, "__metadata__"),
        ({**GOOD, "__metadata__": []}, 24, "__metadata__"),
        ([], 0, "object"),
        (b'{"a":1,"a":2}', 0, "twice"),
        (b'{"a":{"dtype":"F32","dtype":"F32"}}', 0, "twice"),
        (b'{"a":NaN}', 0, "NaN"),
        (b"\xff\xfe{}", 0, "JSON"),
        ('{"a":1}'.encode("utf-16"), 0, "JSON"),
        (b"[" * 100_000, 0, "nested"),
        (b"{" + b'"a":{' * 50_000, 0, "nested"),
        (b"{}  {", 0, "JSON"),
    ],
)  # fmt: skip
def test_known_attacks(header: object, data_nbytes: int, told: str) -> None:
    with pytest.raises(ModelFileError, match=told) as caught:
        parse(file_of(header, data_nbytes))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "data", [b"", b"1234567", struct.pack("<Q", 2**63), struct.pack("<Q", 100) + b"{}"]
)
def test_truncated_and_lying_lengths(data: bytes) -> None:
    with pytest.raises(ModelFileError):
        parse(data)
