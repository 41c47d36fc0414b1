"""Run a lazy graph on a WebGPU device: few kernels, one tape, one submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from bascule.array.evaluate import evaluate, viewed
from bascule.array.generated import Expression, Generated
from bascule.array.graph import Node, ordered
from bascule.array.plan import Step, is_scalar, steps
from bascule.array.products import prepared_product
from bascule.array.store import MAX_FREE_NBYTES, Memory, MemoryPool
from bascule.array.transforms import transformed
from bascule.array.words import from_words, to_words
from bascule.backend.webgpu.computation import grant_large
from bascule.backend.webgpu.gpu import pack_writes
from bascule.backend.webgpu.launch import flat
from bascule.backend.webgpu.link import Linked, link
from bascule.backend.webgpu.tape import Binding, TapeBuilder
from bascule.base.arrays import np
from bascule.errors import LimitError

if TYPE_CHECKING:
    from bascule.backend.webgpu.backend import WebGpuBackend

_LANES = 64
# Elements that a lane reduces one after the other, and the fewest lanes of a reduction.
_SERIAL = 256
_LANES_WANTED = 16384
# Elements that are combined in a kernel's text, without a loop, and the operations of that: a loop
# over three costs more. Each kernel has the text of four results.
_UNROLLED = 8
_UNROLLED_OPERATIONS = 32
# Numbers up to this many bytes are written with the tape, in the same call.
_PACKED_NBYTES = 64 << 10
_MAX_DISPATCHES = 512
_READ_WHOLE = 1 << 16  # elements


class GpuRunner:
    """Computes nodes on one backend. Pipelines stay compiled until the device is closed."""

    def __init__(self, backend: WebGpuBackend) -> None:
        self._backend = backend
        self._gpu = backend.gpu
        self.pool = MemoryPool(backend.gpu)
        self._pipelines: dict[str, int] = {}
        self._params: tuple[int, int] = (0, 0)  # buffer, bytes
        limits = backend.gpu.adapter.limits
        self._stride = max(256, limits["minUniformBufferOffsetAlignment"])
        self._max_inputs = min(limits["maxStorageBuffersPerShaderStage"] - 1, 15)
        self.n_kernels = 0

    async def compute(self, outputs: Sequence[Node]) -> None:
        """Give each of these memory, which holds its value once the queued work is done."""
        async with self._backend.turns.turn():
            await self._compute(outputs)

    async def read(self, outputs: Sequence[Node]) -> None:
        """Compute these and fetch their numbers into `host`.

        For a view of a small array all of the array is read: its other elements are likely next.
        """
        async with self._backend.turns.turn():
            bases = {id(node): _base(node) for node in outputs if node.host is None}
            await self._compute(list({id(base): base for base in bases.values()}.values()))
            reads: list[tuple[Node, Any, Any]] = []
            for base in {id(base): base for base in bases.values() if base.host is None}.values():
                assert base.memory is not None
                words = np.empty(base.size, np.uint32)
                reads.append((base, words, self._gpu.read(base.memory.buffer, 0, words.data)))
            for base, words, read in reads:
                await read
                base.host = from_words(words, base.dtype).reshape(base.shape)
            for node in outputs:
                if node.host is None:
                    node.host = viewed(bases[id(node)].host, node)

    async def _compute(self, outputs: Sequence[Node]) -> None:
        self.pool.sweep()
        for node in ordered(outputs):
            _settle_empty(node)
        outputs = [node for node in outputs if node.memory is None and node.size]
        order = ordered(outputs)
        todo = steps(order, outputs, self._max_inputs)
        run = _Run(self)
        try:
            run.upload_all(order)
            await self._run_steps(run, todo, {id(node) for node in outputs})
            for node in outputs:
                if node.memory is None:
                    run.upload(node)
            await run.submit()
        except BaseException:
            run.undo()
            raise
        for step in todo:
            if step.node.memory is not None:
                step.node.settle()
        self.pool.trim(MAX_FREE_NBYTES)

    async def _run_steps(self, run: _Run, todo: list[Step], wanted: set[int]) -> None:
        last = {id(each): at for at, step in enumerate(todo) for each in _all_reads(step)}
        computed: list[Node] = []
        for at, step in enumerate(todo):
            await run.add(step)
            computed.append(step.node)
            for node in computed:
                # What only this graph references is computed again if another one needs it.
                if last.get(id(node), at) <= at and id(node) not in wanted and not node.held:
                    node.memory = None
            computed = [node for node in computed if node.memory is not None]
            self.pool.sweep()

    async def pipeline(self, made: Generated) -> int:
        """The compiled kernel, compiled once for its text."""
        return await self._compiled(made.wgsl, made.bindings, made.label)

    async def linked(self, name: str) -> tuple[int, Linked]:
        """Return the pipeline of a kernel in a file, with the packing of its params."""
        linked = link(name, (), (), "")
        return await self._compiled(linked.wgsl, linked.bindings, f"{name}.wgsl"), linked

    async def _compiled(self, wgsl: str, bindings: str, label: str) -> int:
        result = self._pipelines.get(wgsl)
        if result is None:
            result = await self._gpu.pipeline(wgsl, {"WORKGROUP": _LANES}, bindings, label)
            self._pipelines[wgsl] = result
        return result

    def take(self, n_words: int, *, fresh: bool = False) -> Memory:
        """Allocate memory on the device; LimitError for more than one binding may have."""
        max_nbytes = int(self._backend.limits.binding_nbytes) & ~15
        if 4 * n_words > max_nbytes:
            raise LimitError(
                f"An array of {n_words:,} elements",
                f"{4 * n_words:,} bytes",
                f"one array may have {max_nbytes:,} here (4 bytes an element)",
            )
        return self.pool.fresh(n_words) if fresh else self.pool.take(n_words)

    def params_buffer(self, nbytes: int) -> int:
        """Return a uniform buffer of at least that many bytes; one serves all runs, in order."""
        buffer, has = self._params
        if has < nbytes:
            if has:
                self._gpu.free(buffer)
            nbytes = max(64 << 10, nbytes)
            self._params = self._gpu.alloc(nbytes, uniform=True), nbytes
        return self._params[0]


class _Run:
    """The dispatches of one submission."""

    def __init__(self, runner: GpuRunner) -> None:
        self._runner = runner
        self._backend = runner._backend  # pyright: ignore[reportPrivateUsage]
        self._gpu = self._backend.gpu
        self._dispatches: list[tuple[int, list[tuple[int, int]], bytes, Any, list[int]]] = []
        self._writes: list[tuple[int, int, Any]] = []
        self._given: list[Node] = []

    def upload_all(self, order: Sequence[Node]) -> None:
        """Queue the copies of all known numbers before any kernel allocates memory.

        Copies precede the kernels of a submission, so they must not go to memory that one of its
        kernels has used and freed.
        """
        for node in order:
            if node.is_known and node.memory is None and not is_scalar(node) and node.size:
                self._upload(node, self._runner.take(node.size))

    def undo(self) -> None:
        """After an error, forget memory whose numbers were never computed."""
        for node in self._given:
            node.memory = None

    async def add(self, step: Step) -> None:
        """Compute a step's node, and assign its memory."""
        node = step.node
        if node.op == "reduce":
            node.memory = await self._reduce(step)
        elif node.op == "best":
            node.memory = await self._best(step)
        elif node.op == "scan":
            node.memory = await self._scan(step)
        elif node.op == "order":
            node.memory = await self._order(step)
        elif node.op == "matmul":
            node.memory = await self._product(step)
        elif node.op == "fft":
            node.memory = await transformed(self, node)
        else:
            node.memory = await self._elementwise(node, step.inline)
        self._given.append(node)
        if len(self._dispatches) >= _MAX_DISPATCHES:
            await self.submit()

    async def _elementwise(self, node: Node, inline: frozenset[int]) -> Memory:
        kernel = Expression(node, inline).kernel("array_elementwise", {"n": node.size}, node.dtype)
        return await self._launch(kernel, -(-node.size // 4), node.size)

    async def _launch(self, kernel: Generated, lanes: int, n_words: int) -> Memory:
        for node in kernel.reads:
            self.upload(node)
        out = self._runner.take(n_words)
        pipeline = await self._runner.pipeline(kernel)
        buffers = [(m.buffer, 4 * node.size) for node in kernel.reads if (m := node.memory)]
        # Kernels that store four words at once need a multiple of four, for which memory has room.
        padded = -(-n_words // 4) * 16
        self._note(pipeline, [*buffers, (out.buffer, padded)], kernel.params, lanes)
        return out

    async def record(
        self, kernel: str, reads: list[Memory], n_words: int, numbers: Mapping[str, int | float]
    ) -> Memory:
        """Record a dispatch over `numbers["lanes"]` lanes of a linked kernel; return its output."""
        self._runner.pool.sweep()  # what an earlier dispatch has read is free for this one
        out = self._runner.take(n_words)
        pipeline, linked = await self._runner.linked(kernel)
        buffers = [(each.buffer, each.nbytes) for each in reads]
        buffers.append((out.buffer, 4 * n_words))
        self._note(pipeline, buffers, linked.pack(numbers), int(numbers["lanes"]))
        return out

    def _note(
        self, pipeline: int, buffers: list[tuple[int, int]], params: bytes, lanes: int
    ) -> None:
        self._runner.n_kernels += 1
        places = list(range(1, len(buffers) + 1))
        self._dispatches.append((pipeline, buffers, params, flat(lanes, _LANES), places))

    def upload(self, node: Node) -> None:
        """Queue the copy of a known number that is not on the device yet."""
        if node.memory is None:
            self._upload(node, self._runner.take(node.size, fresh=True))

    def _upload(self, node: Node, memory: Memory) -> None:
        assert node.host is not None
        words = to_words(node.host)
        node.memory = memory
        self._given.append(node)
        if words.nbytes <= _PACKED_NBYTES:
            self._writes.append((memory.buffer, 0, words.reshape(-1).data))
        else:
            self._gpu.write(memory.buffer, 0, words.reshape(-1).data)

    async def _reduce(self, step: Step) -> Memory:
        node = step.node
        name, axes = node.attribute
        source = node.inputs[0]
        extent = prod(source.shape[axis] for axis in axes)
        made = Expression(source, step.inline, axes)
        if extent <= _UNROLLED and extent * len(step.inline) <= _UNROLLED_OPERATIONS:
            return await self._unrolled(node, made, extent)
        chunks = _chunks(node.size, extent)
        head = {"n": node.size * chunks, "chunks": chunks, "extent": extent}
        dtype = node.dtype if chunks == 1 else np.dtype(_WIDE[node.dtype.kind])
        lanes = node.size * chunks
        kernel = made.kernel("array_reduce", head, dtype, name)
        result = await self._launch(kernel, lanes, lanes)
        while chunks > 1:
            partial = Node(node.device, "data", (), (node.size, chunks), dtype)
            partial.memory = result
            extent, chunks = chunks, _chunks(node.size, chunks)
            lanes = node.size * chunks
            head = {"n": lanes, "chunks": chunks, "extent": extent}
            again = Expression(partial, frozenset(), (1,))
            kernel = again.kernel("array_reduce", head, node.dtype if chunks == 1 else dtype, name)
            result = await self._launch(kernel, lanes, lanes)
        return result

    async def _unrolled(self, node: Node, made: Expression, extent: int) -> Memory:
        """Reduce few elements each: a lane has four results, and writes them at once."""
        name, n = node.attribute[0], node.size
        kernel = made.kernel("array_elementwise", {"n": n}, node.dtype, name, unrolled=extent)
        return await self._launch(kernel, -(-n // 4), n)

    async def _best(self, step: Step) -> Memory:
        node = step.node
        name, axes = node.attribute
        source = node.inputs[0]
        extent = prod(source.shape[axis] for axis in axes)
        result: Node | None = None
        while True:
            chunks = _chunks(node.size, extent)
            lanes = node.size * chunks
            head = {"n": lanes, "chunks": chunks, "extent": extent}
            made = Expression(source, step.inline, axes)
            kernel = made.kernel("array_best", head, node.dtype, name, extra=result)
            memory = await self._launch(kernel, lanes, lanes)
            if chunks == 1:
                return memory
            result = Node(node.device, "data", (), (lanes,), np.dtype(np.uint32))
            result.memory = memory
            extent = chunks

    async def _scan(self, step: Step) -> Memory:
        node = step.node
        name, axis = node.attribute
        source = node.inputs[0]
        rows, extent = prod(source.shape[:axis]), source.shape[axis]  # the last axis
        return await self._scan_rows(
            Expression(source, step.inline, (axis,)), step, rows, extent, node.dtype, name
        )

    async def _scan_rows(
        self, made: Expression, step: Step, rows: int, extent: int, dtype: Any, name: str
    ) -> Memory:
        span = extent if extent <= _SERIAL or rows >= _LANES_WANTED else _SERIAL
        blocks = -(-extent // span)
        head = {"n": rows * blocks, "blocks": blocks, "span": span, "extent": extent, "totals": 0}
        starts: Node | None = None
        if blocks > 1:
            wide = np.dtype(_WIDE[made.root.dtype.kind])
            first = Expression(made.root, made.inline, made.reduced)
            totals = first.kernel("array_scan", {**head, "totals": 1}, wide, name)
            sums = Node(step.node.device, "data", (), (rows, blocks), wide)
            sums.memory = await self._launch(totals, rows * blocks, rows * blocks)
            again = Expression(sums, frozenset(), (1,))
            starts = Node(step.node.device, "data", (), (rows, blocks), wide)
            starts.memory = await self._scan_rows(again, step, rows, blocks, wide, name)
        kernel = made.kernel("array_scan", head, dtype, name, extra=starts)
        return await self._launch(kernel, rows * blocks, rows * extent)

    async def _order(self, step: Step) -> Memory:
        """Stable argsort of keys (rows, padded), a power of two; the keys' memory is sorted, too.

        `statistics.argsort` makes the keys for this alone.
        """
        keys = step.node.inputs[0]
        self.upload(keys)
        key, keys.memory = keys.memory, None
        assert key is not None
        rows, padded = keys.shape
        unsigned = np.dtype(np.uint32)
        iota = Node(step.node.device, "iota", (), (padded,), unsigned)
        spread = Node(step.node.device, "copy", (iota,), (rows, padded), unsigned)
        inline = frozenset((id(spread), id(iota)))
        order = await self._elementwise(spread, inline)
        one, one_params = await self._runner.linked("array_sort")
        three, three_params = await self._runner.linked("array_sort_three")
        pairs = rows * padded
        buffers = [(key.buffer, 4 * pairs), (order.buffer, 4 * pairs)]
        run = 2
        while run <= padded:
            # The last merge is ascending everywhere: no index within a row has the bit of its run.
            stride = run // 2
            while stride >= 4:
                numbers = {"eighth": padded // 8, "run": run, "stride": stride // 4}
                packed = three_params.pack({"n": pairs // 8, **numbers})
                self._note(three, buffers, packed, pairs // 8)
                stride //= 8
            while stride:
                numbers = {"n": pairs // 2, "half": padded // 2, "run": run, "stride": stride}
                self._note(one, buffers, one_params.pack(numbers), pairs // 2)
                stride //= 2
            run *= 2
        return order

    async def _product(self, step: Step) -> Memory:
        node = step.node
        for each in node.inputs:
            self.upload(each)
        kernel, places, handle = await prepared_product(self._backend, node)
        out = self._runner.take(node.size)
        memories = [each.memory for each in node.inputs]
        buffers = [(m.buffer, 4 * e.size) for m, e in zip(memories, node.inputs, strict=True) if m]
        buffers.append((out.buffer, 4 * node.size))
        self._runner.n_kernels += 1
        launch = kernel.launch()
        self._dispatches.append((handle, buffers, kernel.params({}), launch, places))
        return out

    async def submit(self) -> None:
        """Queue everything so far: one tape, and one call of the driver."""
        if not self._dispatches:
            for buffer, offset, data in self._writes:
                self._gpu.write(buffer, offset, data)
            self._writes.clear()
            return
        stride = self._runner._stride  # pyright: ignore[reportPrivateUsage]
        offsets: list[int] = []
        at = 0
        for _, _, params, _, _ in self._dispatches:
            offsets.append(at)
            at += -(-len(params) // stride) * stride
        block = bytearray(at)
        uniform = self._runner.params_buffer(at)
        tape = TapeBuilder()
        for offset, (pipeline, buffers, params, groups, places) in zip(
            offsets, self._dispatches, strict=True
        ):
            block[offset : offset + len(params)] = params
            bindings: list[Binding] = [(0, uniform, offset, len(params))]
            bindings += [
                (place, buffer, 0, nbytes)
                for place, (buffer, nbytes) in zip(places, buffers, strict=True)
            ]
            tape.dispatch(pipeline, bindings, groups)
        await grant_large(self._gpu, (each for result in self._dispatches for each in result[1]))
        self._writes.append((uniform, 0, block))
        self._gpu.run(tape.words(), pack_writes(self._writes))
        self._dispatches.clear()
        self._writes.clear()
        self._given.clear()


_WIDE = {"f": "float32", "i": "int32", "u": "uint32", "b": "bool"}


def _chunks(n_outputs: int, extent: int) -> int:
    """Return into how many chunks a reduction is divided, so that all lanes have work."""
    if extent <= _SERIAL or 4 * n_outputs >= _LANES_WANTED:
        return 1  # a second pass costs more than few lanes more gain
    return max(1, min(-(-extent // 32), -(-_LANES_WANTED // n_outputs)))


def _all_reads(step: Step) -> list[Node]:
    """Return the nodes with memory that a step reads."""
    results: list[Node] = []
    seen: set[int] = set()
    stack = list(step.node.inputs)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if (node.op == "view" and not node.is_known) or id(node) in step.inline:
            stack += node.inputs
        else:
            results.append(node)
    return results


def _base(node: Node) -> Node:
    """Return what is read for a node: for a view of a small array all of the array."""
    if node.op == "view" and not node.is_known and node.inputs[0].size <= _READ_WHOLE:
        return node.inputs[0]
    return node


def _settle_empty(node: Node) -> None:
    """Compute at once what has no elements, or reduces none."""
    if not node.is_known and (not node.size or any(not each.size for each in node.inputs)):
        inputs = [np.empty(each.shape, each.dtype) for each in node.inputs]
        node.host = evaluate(node, inputs) if node.size else np.empty(node.shape, node.dtype)
        node.settle()
