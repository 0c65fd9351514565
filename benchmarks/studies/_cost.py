"""What a step must do, read off its traced graph: floating-point operations, and bytes moved between operations.

Matrix products are exact. Approximated: any other operation counts one a element (of its output; of its input where it
reduces); it reads its inputs and writes its outputs in full, as TensorFlow runs it without XLA; reshapes and reads of a
variable as it lies are free. Of a table that is read or written by row, the rows count, not the table. Where a size is
only known when the graph runs (distinct ids of a batch), its upper bound counts: ids with their duplicates.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

Shape = tuple[int, ...]

_FREE = frozenset(
    "Const Placeholder PlaceholderWithDefault Identity IdentityN ReadVariableOp VarHandleOp VarIsInitializedOp Reshape "
    "ExpandDims Squeeze Shape ShapeN Size Rank StopGradient PreventGradient NoOp BroadcastGradientArgs Assert "
    "EnsureShape".split()
)
_MOVES = frozenset(
    "ConcatV2 Pack Unpack Split SplitV Transpose Pad PadV2 Tile Fill ZerosLike OnesLike BroadcastTo Range".split()
)
_READS_A_PART = frozenset("StridedSlice Slice Gather GatherV2 GatherNd ResourceGather".split())
_REDUCES = frozenset(
    "Sum Mean Max Min Prod Any All L2Loss ArgMax BiasAddGrad UnsortedSegmentSum SegmentSum SegmentMean Unique".split()
)
# Reads of the variable and writes to it, for each element that is given.
_WRITES = {
    "AssignVariableOp": (0, 1),
    "AssignAddVariableOp": (1, 1),
    "AssignSubVariableOp": (1, 1),
    "ResourceScatterUpdate": (0, 1),
    "ResourceScatterAdd": (1, 1),
    "ResourceScatterSub": (1, 1),
}
_CALLS = frozenset("PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile Case".split())


@dataclasses.dataclass(frozen=True)
class Cost:
    """What `graph_cost` counted.

    Args:
        flops: Floating-point operations.
        bytes: Bytes read and written.
        matmul_flops: Those of matrix products alone.
        by_operation: `{type of operation: (how many, flops, bytes)}`, those that cost most first.
        uncounted: Types of operations that call other functions, whose insides are not counted.
    """

    flops: int
    bytes: int
    matmul_flops: int
    by_operation: dict[str, tuple[int, int, int]]
    uncounted: tuple[str, ...] = ()


def graph_cost(function: Any) -> Cost:
    """FLOPs and bytes of a `tf.function`'s concrete function, which should be traced for a fixed batch."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    products, shapes = 0, _Shapes()
    needed = _needed(function.graph)
    for operation in function.graph.get_operations():
        shapes.add(operation)
        if operation not in needed or operation.type in _FREE:
            continue
        multiplied = _product_flops(operation, shapes)
        products += multiplied or 0
        flops = _other_flops(operation, shapes) if multiplied is None else multiplied
        entry = counts[operation.type]
        for position, amount in enumerate((1, flops, _bytes(operation, shapes))):
            entry[position] += amount
    ordered = sorted(counts.items(), key=lambda item: -item[1][2])
    return Cost(
        flops=sum(flops for _, flops, _ in counts.values()),
        bytes=sum(moved for _, _, moved in counts.values()),
        matmul_flops=products,
        by_operation={name: (found[0], found[1], found[2]) for name, found in ordered},
        uncounted=tuple(sorted(_CALLS & set(counts))),
    )


def _needed(graph: Any) -> set[Any]:
    """The operations that an output or a side effect depends on; TensorFlow runs no others."""
    found, waiting = set(), [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return found


class _Shapes:
    """Shapes of a graph's tensors; sizes that are not known before it runs are bounded from those of the inputs."""

    def __init__(self) -> None:
        self._found: dict[Any, Shape] = {}

    def add(self, operation: Any) -> None:
        for index, tensor in enumerate(operation.outputs):
            shape = tensor.shape
            known = shape.rank is not None and shape.is_fully_defined()
            self._found[tensor.ref()] = tuple(shape.as_list()) if known else self._bound(operation, index)

    def __call__(self, tensor: Any) -> Shape:
        if tensor.ref() not in self._found:
            # The gradient of a loop makes inputs for it that are listed after it.
            self.add(tensor.op)
        return self._found[tensor.ref()]

    def size(self, tensor: Any) -> int:
        return math.prod(self(tensor))

    def _bound(self, operation: Any, index: int) -> Shape:
        inputs = [self(tensor) for tensor in operation.inputs]
        shape = operation.outputs[index].shape
        largest = max(inputs, key=math.prod, default=())
        if operation.type in ("ResourceGather", "Gather", "GatherV2"):
            ids = inputs[1]
            return (*ids, *_known(shape[len(ids) :], largest))
        if operation.type in ("UnsortedSegmentSum", "SegmentSum"):
            return inputs[0]
        if shape.rank is None:
            return largest
        if operation.type == "Reshape":
            return _filled(shape, math.prod(largest))
        alike = [given for given in inputs if len(given) == shape.rank]
        if operation.type == "ConcatV2":
            return _filled(shape, sum(math.prod(given) for given in alike))
        bounds = [max(sizes) for sizes in zip(*alike, strict=True)] if alike else [max(largest, default=1)] * shape.rank
        return tuple(bound if size is None else size for size, bound in zip(shape.as_list(), bounds, strict=True))


def _known(shape: Any, fallback: Shape) -> Shape:
    return tuple(shape.as_list()) if shape.is_fully_defined() else tuple(fallback[1:])


def _filled(shape: Any, total: int) -> Shape:
    """`shape`, its first unknown size such that it holds `total` elements and the others 1."""
    sizes = shape.as_list()
    left = total // max(1, math.prod(size for size in sizes if size))
    for i, size in enumerate(sizes):
        if size is None:
            sizes[i], left = left, 1
    return tuple(sizes)


def _product_flops(operation: Any, shapes: _Shapes) -> int | None:
    """2 m k n of a matrix product; None for any other operation."""
    if operation.type == "MatMul":
        left = shapes(operation.inputs[0])
        inner = left[0] if operation.get_attr("transpose_a") else left[1]
    elif operation.type in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        left = shapes(operation.inputs[0])
        inner = left[-2] if operation.get_attr("adj_x") else left[-1]
    elif operation.type == "Einsum" and len(operation.inputs) == 2:
        inner = _summed_size(operation, shapes)
    else:
        return None
    return 2 * inner * shapes.size(operation.outputs[0])


def _summed_size(operation: Any, shapes: _Shapes) -> int:
    """Product of the sizes that an einsum sums over."""
    inputs, output = operation.get_attr("equation").decode().replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    for labels, tensor in zip(inputs.split(","), operation.inputs, strict=True):
        shape = shapes(tensor)
        before, _, after = labels.partition("...")
        sizes |= zip(before, shape, strict=False)
        sizes |= zip(reversed(after), reversed(shape), strict=False)
    return math.prod(size for label, size in sizes.items() if label not in output)


def _other_flops(operation: Any, shapes: _Shapes) -> int:
    if operation.type in _MOVES or operation.type in _READS_A_PART:
        return 0
    if operation.type in _WRITES:
        return _WRITES[operation.type][0] * shapes.size(operation.inputs[-1])
    tensors = operation.inputs if operation.type in _REDUCES else operation.outputs
    return max((shapes.size(tensor) for tensor in tensors), default=0)


def _bytes(operation: Any, shapes: _Shapes) -> int:
    def moved(tensors):
        return sum(shapes.size(tensor) * _item_size(tensor) for tensor in tensors)

    if operation.type in _WRITES:
        # The last input is what is written; of a scatter, ids come before it.
        return moved(operation.inputs[1:]) + sum(_WRITES[operation.type]) * moved(operation.inputs[-1:])
    if operation.type in _READS_A_PART:
        ids = operation.inputs[1:2] if "Gather" in operation.type else []
        return 2 * moved(operation.outputs) + moved(ids)
    return moved(operation.inputs) + moved(operation.outputs)


def _item_size(tensor: Any) -> int:
    # A handle to a resource has no size of its own.
    return 0 if tensor.dtype.name in ("resource", "variant") else max(tensor.dtype.size, 1)


def ceilings(seconds: float = 0.5) -> dict[str, float]:
    """What this machine can do: float32 matrix products, copies, and gathers of random 64-byte rows, with TensorFlow.

    Args:
        seconds: How long to try each; the best call counts.

    Returns:
        `matmul_gflops` (1024 x 512 x 1024), `copy_gbytes` and `gather_gbytes` (bytes read, a second).
    """
    import tensorflow as tf

    left, right = tf.random.normal((1024, 512)), tf.random.normal((512, 1024))
    block, table = tf.random.normal((64, 1024, 1024)), tf.random.normal((4_000_000, 16))
    ids = tf.random.uniform((200_000,), 0, 4_000_000, "int32")
    work = {
        "matmul_gflops": (tf.function(lambda: tf.matmul(left, right)), 2 * 1024 * 512 * 1024),
        "copy_gbytes": (tf.function(lambda: block + 0.0), block.shape.num_elements() * 4),
        "gather_gbytes": (tf.function(lambda: tf.gather(table, ids)), 200_000 * 64),
    }
    return {name: round(best_rate(call, amount, seconds), 2) for name, (call, amount) in work.items()}


def best_rate(call: Callable[[], Any], amount: float, seconds: float = 0.5) -> float:
    """Billions of `amount` a second in the best of the calls, of a function that gives a tensor, for some seconds."""
    call()
    best, ends = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        call().numpy()
        best = min(best, time.perf_counter() - started)
    return amount / best / 1e9
