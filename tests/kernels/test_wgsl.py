"""Reading WGSL declarations: layouts held to the compiler, odd and hostile sources."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bascule
from bascule.errors import BasculeError, InputError, ShaderError
from bascule.kernels.shader import Shader
from bascule.kernels.wgsl_types import Struct


@pytest.fixture
async def device() -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device("webgpu") as opened:
        yield opened


def reads(declarations: str, uses: str, entry: str = "main") -> Shader:
    text = f"{declarations}\n@compute @workgroup_size(1) fn {entry}() {{ {uses} }}"
    return Shader(text, entry)


ODD = """\
// a comment with @group(0) @binding(9) var<uniform> no: f32;
/* and /* one in another */ var<storage> no: f32; */ enable f16; requires pointer_composite_access;
diagnostic(off, derivative_uniformity);
const N = 4u * 2; const_assert N > 1;
override  WORKGROUP : u32 = 8u << 2;
@id(7) override SCALE: f32;
alias Floats = array<f32>; alias Pair=vec2<f32>;
struct Inner { a: vec3f, b: f32, m: mat3x2<f32>, @align(32) c: array<vec4<u32>, N>, }
struct Params { n: u32, alpha: f32, inner: Inner, @size(32) z: vec2<f16>, };
@group(0)@binding(0)var<uniform>params:Params;
@binding(2) @group(0) var<storage , read> x: Floats;
@group(0) @binding(3) var<storage,read_write> y: array<vec4<f32>>;
@group(0) @binding(4u) var<storage> grid: array<array<Pair, (N + 1) * 2>>;
@group(0) @binding(9) var<storage,read_write> unused: array<vec4<f32>>;
@group(0) @binding(N) var<storage,read_write> c: atomic<u32>;
var<private> mine: f32 = 1.0; var<workgroup> ours: array<f32, WORKGROUP>;
fn helper(a: f32) -> f32 {
  if (a > 1.0 && a < f32(N)) { return a * SCALE; } return f32(atomicLoad(&c));
}
@workgroup_size(WORKGROUP / 2, 2 + N) @compute
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  y[id.x] = vec4f(helper(x[id.x]) + grid[0][0].x + v.unused) * params.alpha;
}
"""


def test_an_odd_source_is_read() -> None:
    shader = Shader(ODD)
    assert [(b.name, b.index, b.access) for b in shader.bindings] == [
        ("params", 0, "uniform"), ("x", 2, "read"), ("y", 3, "write"), ("grid", 4, "read"),
        ("c", 8, "write"),
    ]  # fmt: skip
    assert shader.letters == "u-rwr---w"
    assert shader.workgroup_size({}) == (16, 10, 1)
    assert shader.workgroup_size({"WORKGROUP": 4}) == (2, 10, 1)
    assert shader.uses_num_workgroups
    params = shader.bindings[0].type
    assert isinstance(params, Struct)
    assert [m.offset for m in params.members] == [0, 4, 32, 224]
    assert params.nbytes == 256
    inner = params.members[2].type
    assert isinstance(inner, Struct)
    assert [m.offset for m in inner.members] == [0, 12, 16, 64]
    assert shader.bindings[3].type.nbytes == 18 * 8


LAYOUT = """\
struct Light { color: vec3f, power: f32, at: vec2i }
struct Params {
  a: f32, v: vec3f, w: u32, m: mat3x3f, lights: array<Light, 2>, four: vec4<u32>,
  big: mat2x4<f32>, last: i32, _pad: vec3u, n: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<uniform> alone: vec3f;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main() {
  y[0] = p.a; y[1] = p.v.x; y[2] = p.v.z; y[3] = f32(p.w); y[4] = p.m[0].y; y[5] = p.m[2].z;
  y[6] = p.lights[0].color.y; y[7] = p.lights[1].power; y[8] = f32(p.lights[1].at.y);
  y[9] = f32(p.four.w); y[10] = p.big[1].w; y[11] = f32(p.last); y[12] = alone.z; y[13] = f32(p.n);
}
"""


async def test_uniforms_lie_as_the_compiler_reads_them(device: bascule.Device) -> None:
    kernel = device.kernel(LAYOUT)
    lights = [
        {"color": (1, 20, 3), "power": 4, "at": [5, 6]},
        {"color": (7, 8, 9), "power": 21, "at": np.array([0, -22])},
    ]
    result = await kernel(
        out=14, groups=1, a=10, v=np.array([11, 0, 12], np.float32), w=np.uint32(13),
        m=[[0, 14, 0], [0, 0, 0], [0, 0, 15]], lights=lights, four=(0, 0, 0, 23),
        big=np.arange(17, 25).reshape(2, 4), last=-24, alone=[0, 0, 25], n=26,
    )  # fmt: skip
    expected = [10, 11, 12, 13, 14, 15, 20, 21, -22, 23, 24, -24, 25, 26]
    np.testing.assert_array_equal(await result.numpy(), expected)
    whole = {"a": 10, "v": [0] * 3, "w": 0, "m": [[0] * 3] * 3, "lights": lights}
    whole |= {"four": [0] * 4, "big": [[0] * 4] * 2, "last": 0, "n": 3}
    result = await kernel(p=whole, alone=[0, 0, 1], out=14, groups=1)
    assert (await result.numpy())[13] == 3
    for change, output in (
        ({"v": (1, 2)}, "3 numbers, found 2"),
        ({"lights": lights[:1]}, "2 elements"),
        ({"lights": [lights[0], {"color": (1, 2, 3)}]}, r"lights\[1\].*power"),
        ({"m": [1, 2, 3]}, "3 numbers"),
        ({"four": (0, 0, 0, -1)}, "not negative"),
        ({"extra": 1}, "'extra'"),
    ):
        with pytest.raises(InputError, match=output):
            await kernel(p={**whole, **change}, alone=[0, 0, 1], out=14, groups=1)


async def test_struct_dtypes_lie_as_the_compiler_reads_them(device: bascule.Device) -> None:
    source = """
    struct Cell { a: f32, v: vec3f, m: mat2x3f, c: array<vec3f, 2>, last: vec2<u32> }
    @group(0) @binding(0) var<storage, read> cells: array<Cell>;
    @group(0) @binding(1) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(1) fn main() {
      let c = cells[1];
      y[0] = c.a; y[1] = c.v.z; y[2] = c.m[1].z; y[3] = c.c[1].y; y[4] = f32(c.last.y);
      y[5] = f32(arrayLength(&cells));
    }"""
    kernel = device.kernel(source)
    cells = np.zeros(3, kernel.dtype("cells"))
    cells["a"][1], cells["v"][1, 2], cells["m"][1, 1, 2] = 1, 2, 3
    cells["c"]["value"][1, 1, 1], cells["last"][1, 1] = 4, 5
    result = await kernel(cells, out=6, groups=1)
    np.testing.assert_array_equal(await result.numpy(), [1, 2, 3, 4, 5, 3])


@pytest.mark.parametrize(
    ("declarations", "uses", "told"),
    [
        ("@group(1) @binding(0) var<storage> x: array<f32>;", "_ = x[0];", "1:.*group 1"),
        ("@group(0) @binding(0) var t: texture_2d<f32>;", "_ = t;", "texture or a sampler"),
        ("@group(0) var<storage> x: array<f32>;", "_ = x[0];", "needs @group"),
        ("@group(0) @binding(1000) var<storage> x: f32;", "_ = x;", "below 1,000"),
        ("@group(0) @binding(-1) var<storage> x: f32;", "_ = x;", "below"),
        ("@group(0) @binding(0) var<storage> x;", "_ = x;", "type is missing"),
        ("@group(0) @binding(0) var<storage> x: ptr<f32>;", "_ = x;", "no 'ptr'"),
        ("@group(0) @binding(0) var<storage> x: array<f32, 0>;", "_ = x[0];", "positive constant"),
        ("@group(0) @binding(0) var<storage> x: array<f32, Q>;", "_ = x[0];", "positive constant"),
        ("struct S {} @group(0) @binding(0) var<storage> x: S;", "_ = x;", "no members"),
        ("struct S { s: S } @group(0) @binding(0) var<storage> x: S;", "_ = x;", "too deeply"),
        ("alias A = B; alias B = A; @group(0) @binding(0) var<storage> x: A;", "_ = x;", "deeply"),
        (
            "struct S { a: array<f32>, b: f32 } @group(0) @binding(0) var<storage> x: S;",
            "_ = x.b;", "last member",
        ),
        (
            "@group(0) @binding(0) var<storage> x: f32; @group(0) @binding(0) var<storage> q: f32;",
            "_ = x + q;", "binding 0 is both",
        ),
        ("struct S { a f32 }", "", "expected ':'"),
        ("struct S { a: f32", "", "expected"),
        ("fn f( {", "", "never closed|closes nothing"),
        ("what is this", "", "expected a declaration"),
        ("fn f();", "", "expected '{'"),
        ("var<storage x: f32;", "", "expected '>'"),
        ("/* no end", "", "does not end"),
        ("@", "", "name of an attribute"),
    ],
)  # fmt: skip
def test_what_cannot_be_bound_is_told_with_its_place(
    declarations: str, uses: str, told: str
) -> None:
    with pytest.raises(ShaderError, match=told) as caught:
        reads(declarations, uses)
    assert caught.value.line >= 1
    assert caught.value.column >= 1


def test_sources_without_an_entry_point_and_of_great_size() -> None:
    with pytest.raises(ShaderError, match="no entry point"):
        Shader("")
    with pytest.raises(ShaderError, match="no entry point"):
        Shader("@vertex fn main() {}")
    with pytest.raises(ShaderError, match="1,048,576"):
        Shader("/" * (1 << 20) + "/")
    deep = "(" * 100_000
    with pytest.raises(ShaderError):
        Shader(f"const N = {deep}; @compute @workgroup_size(1) fn main() {{}}")
    nested = "array<" * 5000 + "f32" + ">" * 5000
    with pytest.raises(ShaderError, match="too deeply"):
        reads(f"@group(0) @binding(0) var<storage> x: {nested};", "_ = x;")


def test_workgroup_sizes_that_are_not_known() -> None:
    for size in ("N", "sqrt(4)", "1.5", "0", "-1", "1/0", "1 <<", "1, 2, 3, 4", "W"):
        text = f"override W: u32 = W; @compute @workgroup_size({size}) fn main() {{}}"
        assert Shader(text).workgroup_size({}) is None
    for size, result in (("(1 + 2) * 3 % 5", 4), ("0x10u", 16), ("max(2, 3)", 3), ("7 / 2", 3),
                        ("1 << 3 | 1", 9), ("6 ^ 2 & 3", 4), ("i32(-2) + 5", 3)):  # fmt: skip
        text = f"@compute @workgroup_size({size}) fn main() {{}}"
        assert Shader(text).workgroup_size({}) == (result, 1, 1)


PIECES = ["@group(0)", "@binding(0)", "var<storage, read>", "x", ":", "array<f32>", ";", "struct",
          "S", "{", "}", "(", ")", "<", ">", ",", "fn", "main", "@compute", "@workgroup_size(1)",
          "override", "const", "alias", "=", "1", "0x", "1e9", "//", "/*", "*/", "\n", "\r",
          "\u2028", "@id(1)", "@align(0)", "@size(-1)", "vec3<f32>", "mat2x2", "é", "\0",
          "->", "_"]  # fmt: skip


@settings(max_examples=300)
@given(
    st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join))
)
@example("@compute @workgroup_size() fn main() {}")
@example(
    "struct S { @align(0) a: f32 } @group(0) @binding(0) var<uniform> s: S; "
    "@compute @workgroup_size(1) fn main() { _ = s; }"
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        shader = Shader(text)
        shader.pipeline_constants({})
        _ = shader.letters, shader.workgroup_size({}), shader.uses_num_workgroups
    except BasculeError:
        return
