"""GGUF headers that lie: known attacks on other readers, limits, and fuzzing."""

from __future__ import annotations

import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bascule.errors import ModelFileError
from bascule.program.blocks import BLOCKS
from bascule.weights.gguf import (
    GgufHeader,
    NeedMore,
    parse_gguf,
)
from bascule.weights.gguf_reader import INNER_ARRAY_ITEMS, MAX_HEADER_NBYTES, MAX_ITEMS
from tests.weights.gguf_files import (
    ARRAY,
    BOOL,
    F32,
    I32,
    STRING,
    U8,
    U32,
    U64,
    array,
    gguf_file,
    key,
    parse,
    sound_file,
    string,
    tensor,
)

SOUND = sound_file()
HUGE = 1 << 40  # a file of that size, of which only the first bytes are at hand


ONE = tensor("a", [8])  # 32 bytes of F32
DATA = bytes(32)


def f32(*dimensions: int, **changes: int) -> bytes:
    """A file of one F32 tensor and 32 bytes of data."""
    return gguf_file([], [tensor("a", list(dimensions), **changes)], DATA)


def aligned(code: int, value: bytes) -> bytes:
    return gguf_file([key("general.alignment", code, value)], [ONE], DATA)


def value(code: int, raw: bytes) -> bytes:
    return gguf_file([key("k", code, raw)], [], alignment=1)


def nested(depth: int) -> bytes:
    inner = array(U8, [])
    for _ in range(depth - 1):
        inner = array(ARRAY, [inner])
    return value(ARRAY, inner)


HOSTILE = {
    # magic and version
    "no bytes": (b"", r"magic: expected no more than the 0 bytes left in the file, found 4 bytes"),
    "half a magic": (b"GG", r"magic: expected no more than the 2 bytes left"),
    "another magic": (b"PK\3\4" + SOUND[4:], r"magic: expected b'GGUF', found b'PK"),
    "a web page": (b"<!DOCTYPE html>" * 9, r"Is this a GGUF file\?"),
    "a swapped magic": (b"FUGG" + SOUND[4:], r"found a big-endian one"),
    "a big-endian version": (gguf_file([], [], version=3 << 24), r"big-endian one of version 3"),
    "version 0": (gguf_file([], [], version=0), r"version: expected 2 or 3, found 0"),
    "version 1": (gguf_file([], [], version=1), r"version: expected 2 or 3, found 1\..*again"),
    "version 4": (gguf_file([], [], version=4), r"found 4\..*newer Bascule"),
    # counts
    "tensors that are not there": (gguf_file([], [], n_tensors=1000), r"of tensors: .* left"),
    "too many tensors": (gguf_file([], [], n_tensors=2**16 + 1), r"at most 65,536, found 65,537"),
    "a negative number of tensors": (gguf_file([], [], n_tensors=2**64 - 1), r"tensors: .* 65,536"),
    "tensors whose sizes wrap": (gguf_file([], [], n_tensors=2**61 + 1), r"tensors: .* 65,536"),
    "keys that are not there": (gguf_file([], [], n_keys=1000), r"metadata keys: .* bytes left"),
    "too many keys": (gguf_file([], [], n_keys=2**16 + 1), r"keys: .* 65,536, found 65,537"),
    "a negative number of keys": (gguf_file([], [], n_keys=2**63), r"keys: .* at most 65,536"),
    "one tensor fewer than told": (
        gguf_file([], [ONE], n_tensors=2, alignment=1), r"number of tensors: .* left"),
    "one key fewer than told": (
        gguf_file([key("k", U8, b"1")], [], n_keys=2, alignment=1), r"keys: .* left"),
    # strings
    "a string past the end": (value(STRING, string("ab", 40)), r"metadata 'k': .* found 40 bytes"),
    "a negative length": (value(STRING, string("ab", 2**64 - 8)), r"found 18,446,744,073,709,5"),
    "a string that is no UTF-8": (value(STRING, string(b"\xff")), r"metadata 'k': expected UTF-8"),
    "a lone surrogate": (value(STRING, string("ü".encode()[:1])), r"'k': expected UTF-8"),
    # arrays
    "an array past the end": (value(ARRAY, array(U64, [], 9)), r"'k' of uint64: .* found 72 bytes"),
    "an array whose size wraps": (value(ARRAY, array(U64, [], 2**61 + 1)), r"found 18,446,744,"),
    "a negative number of elements": (value(ARRAY, array(U8, [], 2**63)), r"found 9,223,372,"),
    "strings that are not there": (value(ARRAY, array(STRING, [], 2**60)), r"bytes left in the f"),
    "one string fewer than told": (
        value(ARRAY, array(STRING, [string("a" * 30)], 2)), r"metadata 'k'.* bytes left"),
    "a string in an array past the end": (
        value(ARRAY, array(STRING, [string("a"), string("b", 99)])),
        r"metadata 'k', string 1: .* found 99 bytes"),
    "a string in an array with a negative length": (
        value(ARRAY, array(STRING, [string("b", 2**64 - 9)])), r"string 0: .* found 18,446,"),
    "a string in an array that is no UTF-8": (
        value(ARRAY, array(STRING, [string("a"), string(b"\xc3\x28")])), r"UTF-8 in string 1"),
    "arrays that are not there": (value(ARRAY, array(ARRAY, [], 2**60)), r"bytes left in the file"),
    "arrays nested too deep": (nested(5), r"metadata 'k': expected arrays nested at most 4 deep"),
    "arrays nested far too deep": (nested(10_000), r"nested at most 4 deep"),
    "too many booleans": (
        value(ARRAY, array(BOOL, [bytes(MAX_ITEMS + 1)], MAX_ITEMS + 1)),
        r"1,048,576 strings, booleans and inner arrays \(as 16\) in all, found 1,048,577 after 0"),
    "too many strings": (
        value(ARRAY, array(ARRAY, [
            array(BOOL, [bytes(MAX_ITEMS - 32)], MAX_ITEMS - 32), array(STRING, [string("a")]),
        ])), r"found 1 after 1,048,576"),
    "too many inner arrays": (
        value(ARRAY, array(ARRAY, [array(U8, [])] * (2**16 + 1))), r"found 1,048,592 after 0"),
    "an array of an unknown type": (value(ARRAY, array(13, [], 1)), r"0 to 12, found 13"),
    # other values
    "an unknown value type": (value(13, b"1"), r"metadata 'k': expected a value type .* found 13"),
    "a large value type": (value(2**32 - 1, b"1"), r"found 4,294,967,295"),
    "a boolean of 2": (value(BOOL, b"\2"), r"metadata 'k': expected booleans of 0 or 1, found 2"),
    "booleans of 255": (value(ARRAY, array(BOOL, [b"\0\xff"], 2)), r"0 or 1, found 255"),
    # keys
    "an empty key": (gguf_file([key("", U8, b"1")], []), r"key 0: .* 1 to 65,535 bytes, found 0"),
    "a long key": (gguf_file([key("k" * 65_536, U8, b"1")], []), r"1 to 65,535 .* 65,536"),
    "a key that is no UTF-8": (gguf_file([key(b"\xed\xa0\x80", U8, b"1")], []), r"0: .* UTF-8"),
    "a key with NUL": (gguf_file([key("a\0b", U8, b"1")], []), r"without NUL, found 'a\\x00b'"),
    "a key twice": (gguf_file([key("k", U8, b"1")] * 2, []), r"'k': expected a key of its own"),
    # alignment
    "an alignment of another type": (aligned(U64, struct.pack("<Q", 32)), r"found type uint64"),
    "an alignment of a signed type": (aligned(I32, struct.pack("<i", 32)), r"found type int32"),
    "an alignment that is a string": (aligned(STRING, string("32")), r"found type string"),
    "an alignment that is a boolean": (aligned(BOOL, b"\1"), r"found type bool"),
    "an alignment that is an array": (aligned(ARRAY, array(U32, [])), r"found type array"),
    "an alignment of 0": (aligned(U32, struct.pack("<I", 0)), r"power of two from 8, found 0"),
    "an alignment of 4": (aligned(U32, struct.pack("<I", 4)), r"power of two from 8, found 4"),
    "an alignment of 24": (aligned(U32, struct.pack("<I", 24)), r"power of two from 8, found 24"),
    "a huge alignment": (aligned(U32, struct.pack("<I", 2**31)), r"'a': expected its end within"),
    # tensor names
    "a tensor without a name": (gguf_file([], [tensor("", [8])], DATA), r"tensor 0: .* found 0"),
    "a long tensor name": (gguf_file([], [tensor("a" * 65, [8])], DATA), r"to 64 bytes, found 65"),
    "a tensor name of 64 characters": (
        gguf_file([], [tensor("ü" * 33, [8])], DATA), r"name of tensor 0: .* found 66"),
    "a tensor name that is no UTF-8": (gguf_file([], [tensor(b"\xff", [8])], DATA), r"UTF-8"),
    "a tensor name with NUL": (gguf_file([], [tensor("a\0", [8])], DATA), r"without NUL"),
    "a tensor twice": (gguf_file([], [ONE, ONE], DATA * 2), r"'a': expected a name of its own"),
    # dimensions
    "no dimensions": (f32(n_dimensions=0), r"tensor 'a': expected 1 to 4 dimensions, found 0"),
    "five dimensions": (f32(2, 2, 2, 1, 1), r"1 to 4 dimensions, found 5"),
    "many dimensions": (f32(8, n_dimensions=2**32 - 1), r"dimensions, found 4,294,967,295"),
    "a dimension of 0": (f32(8, 0), r"dimensions from 1, found shape \(0, 8\)"),
    "a negative dimension": (f32(-8, 1), r"'a': expected at most 9,007,199,254,740,992 elements"),
    "two negative dimensions": (f32(-2, -4), r"at most 9,007,199,254,740,992 elements"),
    "elements that wrap to 0": (f32(2**32, 2**32), r"at most 9,007,199,254,740,992 elements"),
    "elements that wrap to 8": (f32(2**62 + 2, 4), r"at most 9,007,199,254,740,992 elements"),
    "bytes that wrap to 0": (f32(2**62), r"at most 9,007,199,254,740,992 elements"),
    "bytes that wrap when padded": (f32((2**64 - 1) // 4), r"at most 9,007,199,254,740,992 elem"),
    "the most elements": (f32(2**53), r"its end within the file's [0-9]+ bytes"),
    "sizes that wrap in sum": (  # GHSA-vgg9-87g3-85w8: each fits, all together are 32 bytes
        gguf_file([], [tensor(f"t{i}", [2**52], offset=i * 2**54) for i in range(1024)]
                  + [tensor("last", [8])], DATA), r"'t0': expected its end within"),
    "a row of half a block": (f32(16, 2, kind=2), r"multiple of 32 elements for Q4_0, .* 16"),
    "a row of a block too small": (f32(32, 8, kind=12), r"256 elements for Q4_K, found rows of 32"),
    # types
    "a type not read": (f32(32, kind=6), r"found type 6 \(Q5_0\)\. Use a file of another"),
    "an unknown type": (f32(32, kind=40), r"a type of F32, .*, found type 40 \(unknown\)"),
    "a removed type": (f32(32, kind=4), r"type 4 \(Q4_2\)"),
    "a negative type": (f32(32, kind=2**32 - 1), r"type 4,294,967,295 \(unknown\)"),
    # offsets
    "an offset off the grid": (f32(1, offset=4), r"offset that is a multiple of 32, found 4"),
    "an offset past the end": (f32(8, offset=32), r"its end within the file's [0-9]+ bytes"),
    "a tensor longer than the file": (f32(9), r"tensor 'a': expected its end within"),
    "an offset that wraps": (f32(8, offset=2**64 - 32), r"its end within .* 18,446,744,073,709,5"),
    "two tensors in one place": (
        gguf_file([], [ONE, tensor("b", [8])], DATA), r"'b': expected its start from .* 'a' ends"),
    "two tensors that overlap": (
        gguf_file([], [tensor("b", [1], offset=32), tensor("a", [9])], DATA * 2),
        r"tensor 'b': expected its start from byte [0-9]+ on, where 'a' ends, found byte"),
    # the header's end
    "a tensor table past the end": (
        gguf_file([], [tensor("a", [8], n_dimensions=4)], alignment=1), r"tensor 'a': .* left"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "told"), HOSTILE.values(), ids=list(HOSTILE))
def test_known_attacks(data: bytes, told: str) -> None:
    with pytest.raises(ModelFileError, match=told) as caught:
        parse_gguf(data, len(data), "f.gguf")
    assert str(caught.value).startswith("f.gguf: ")
    assert len(str(caught.value)) < 500


def test_names_of_control_characters_keep_the_message_short_and_plain() -> None:
    data = gguf_file([key("\x1b" * 65_535, 13, b"")], [])
    with pytest.raises(ModelFileError, match=r"metadata '\\x1b") as caught:
        parse_gguf(data, len(data), "f.gguf")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_names_and_dimensions_at_their_limits_are_sound() -> None:
    data = gguf_file([key("k" * 65_535, U8, b"1")], [tensor("ü" * 32, [2, 2, 2, 1])], DATA)
    header = parse(data)
    assert header.metadata == {"k" * 65_535: 49}
    assert header.tensors["ü" * 32].shape == (1, 2, 2, 2)
    assert list(parse(nested(4)).metadata) == ["k"]
    booleans = parse(value(ARRAY, array(BOOL, [bytes(MAX_ITEMS)], MAX_ITEMS))).metadata["k"]
    assert len(booleans) == MAX_ITEMS


def test_more_bytes_than_the_file_has_are_refused() -> None:
    with pytest.raises(ModelFileError, match="at most 10 bytes"):
        parse_gguf(SOUND, 10, "f.gguf")


def test_what_lies_past_the_limit_is_not_parsed_even_if_it_is_here() -> None:
    names = [key(f"k{i}", STRING, string(bytes(1 << 24))) for i in range(4)]
    data = gguf_file(names, [])
    with pytest.raises(ModelFileError, match=r"'k3': expected a header of at most 67,108,864"):
        parse_gguf(data, len(data), "f.gguf")


@pytest.mark.parametrize(
    "lie",
    [
        key("k", STRING, string("", 60 << 20)),
        key("k", ARRAY, array(STRING, [], MAX_ITEMS)),
        key("k", ARRAY, array(ARRAY, [], MAX_ITEMS // INNER_ARRAY_ITEMS)),
        key("k", ARRAY, array(BOOL, [], MAX_ITEMS)),
        key("k", ARRAY, array(F32, [], 15 << 20)),
    ],
    ids=["string", "strings", "arrays", "booleans", "numbers"],
)
def test_lengths_that_a_large_file_could_hold_allocate_nothing(lie: bytes) -> None:
    data = gguf_file([lie], [], n_tensors=1 << 16, alignment=1)
    tracemalloc.start()
    try:
        result = parse_gguf(data, HUGE, "f.gguf")
        peak_nbytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(result, NeedMore)
    assert len(data) < result.nbytes <= MAX_HEADER_NBYTES
    assert peak_nbytes < 100_000


@pytest.mark.parametrize(
    "data",
    [
        value(STRING, string("", 101)),
        value(ARRAY, array(STRING, [], 13)),
        value(ARRAY, array(ARRAY, [], 9)),
        value(ARRAY, array(BOOL, [], 101)),
        value(ARRAY, array(U64, [], 13)),
        gguf_file([], [], n_keys=8, alignment=1),
        gguf_file([], [], n_tensors=4, alignment=1),
    ],
    ids=["string", "strings", "arrays", "booleans", "numbers", "keys", "tensors"],
)
def test_what_100_more_bytes_cannot_hold_is_refused_before_they_are_read(data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"bytes left in the file, found 1[0-9][0-9] bytes"):
        parse_gguf(data, len(data) + 100, "f.gguf")


# Fuzzing

lies = st.sampled_from(
    [0, 1, 5, 8, 9, 31, 2**16, 2**31, 2**32 - 1, 2**53, 2**61 + 1, 2**63, 2**64 - 1]
)
places = st.integers(0, len(SOUND) - 1)
mutations = st.one_of(
    st.tuples(st.just("byte"), places, st.integers(0, 255)),
    st.tuples(st.just("u32"), places, lies),
    st.tuples(st.just("u64"), places, lies),
    st.tuples(st.just("cut"), places, st.integers(1, 40)),
    st.tuples(st.just("copy"), places, st.integers(1, 80)),
    st.tuples(st.just("end"), places, st.just(0)),
)


def mutated(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for kind, at, n in changes:
        if kind == "byte":
            data = data[:at] + bytes([n]) + data[at + 1 :]
        elif kind == "u32":
            data = data[:at] + struct.pack("<I", n % 2**32) + data[at + 4 :]
        elif kind == "u64":
            data = data[:at] + struct.pack("<Q", n) + data[at + 8 :]
        elif kind == "cut":
            data = data[:at] + data[at + n :]
        elif kind == "copy":
            data = data[: at + n] + data[at:]
        else:
            data = data[:at]
    return data


def outcome(data: bytes) -> GgufHeader | str:
    """What becomes of a file: a header that keeps its promises, or the error's text."""
    try:
        header = parse(data)
    except ModelFileError as error:
        return str(error)
    end = header.data_start
    for tensor_ in sorted(header.tensors.values(), key=lambda t: t.start):
        block = BLOCKS[tensor_.type]
        assert tensor_.start >= end
        assert tensor_.start % header.alignment == 0
        assert 1 <= len(tensor_.shape) <= 4
        assert tensor_.nbytes * block.n_elements == int(np.prod(tensor_.shape)) * block.nbytes
        end = tensor_.start + tensor_.nbytes
        assert end <= len(data)
    return header


def ranged_outcome(data: bytes) -> GgufHeader | str:
    """The same from a loader that begins with 64 bytes."""
    wanted = min(64, len(data))
    for _ in range(20):
        try:
            result = parse_gguf(data[:wanted], len(data), "f.gguf")
        except ModelFileError as error:
            return str(error)
        if isinstance(result, GgufHeader):
            return result
        assert result.nbytes > wanted
        wanted = result.nbytes
    raise AssertionError("20 reads of a small file")


@settings(max_examples=1500, deadline=None)
@given(st.lists(mutations, min_size=1, max_size=4))
@example([])
def test_mutated_files_parse_to_the_truth_or_are_refused(
    changes: list[tuple[str, int, int]],
) -> None:
    data = mutated(SOUND, changes)
    tracemalloc.start()
    began = time.process_time()
    try:
        result = outcome(data)
        peak_nbytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1
    assert peak_nbytes < 200_000
    # As text, for a NaN in the metadata is not equal to itself.
    assert repr(ranged_outcome(data)) == repr(result)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_after_a_sound_beginning_are_refused_or_true(tail: bytes) -> None:
    outcome(SOUND[:8] + tail)
    outcome(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + tail)


def test_every_truncation_of_the_header_is_refused() -> None:
    for n in range(parse(SOUND).data_start):
        with pytest.raises(ModelFileError, match=r"bytes left in the file|its end within"):
            parse(SOUND[:n])
