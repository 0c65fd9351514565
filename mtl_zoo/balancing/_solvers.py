"""Small convex problems over the tasks, in keras.ops: they run inside a compiled step.

All of them work on the cosines between the tasks' gradients and on the gradients' lengths relative to the longest, so
float32 is enough whatever the losses' scales. With few tasks, a problem over a simplex or a cone is solved on every
face of it at once, by one batched linear solve: exact, and far fewer operations than iterations would take. Products
are written as sums, since a GPU may round the factors of a matrix product.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops

from mtl_zoo._types import Tensor

# Squares of gradients' lengths below these are raised to them; the second is relative to the longest.
SMALLEST = 1e-36
SMALLEST_RELATIVE = 1e-20
# Added to the diagonal of cosines: linearly dependent gradients are told apart by rounding alone.
RIDGE = 2e-6
# With more tasks than this there are too many faces, and the problems are solved by iterations.
MAX_ENUMERATED = 10
# A fixed point counts as found where both sides agree to this part.
TOLERANCE = 0.05


def scaled(gram: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, lengths relative to the longest, and the square of the longest.

    An inactive task has the length 1, and is orthogonal to all others.
    """
    gram = ops.convert_to_tensor(gram)
    eye = np.eye(gram.shape[0], dtype="float32")
    squares = ops.sum(gram * eye, axis=1)
    largest = ops.maximum(ops.max(squares), SMALLEST)
    lengths = ops.sqrt(ops.where(active > 0, ops.maximum(squares / largest, SMALLEST_RELATIVE), 1.0))
    cosines = ops.clip(gram / largest / (lengths[:, None] * lengths[None, :]), -1.0, 1.0)
    return cosines * (1 - eye) + eye, lengths, largest


def mean_of(active: Tensor) -> Tensor:
    """1 / count for the active tasks."""
    return active / ops.maximum(ops.sum(active), 1.0)


def clip_length(coefficients: Tensor, gram: Tensor, max_norm: float | None) -> Tensor:
    """Coefficients of a direction that is at most so long; `||d||^2 = c' A c`."""
    if max_norm is None:
        return coefficients
    square = ops.sum(gram * (coefficients[:, None] * coefficients[None, :]))
    return coefficients * ops.minimum(max_norm / ops.sqrt(ops.maximum(square, SMALLEST)), 1.0)


def shuffled_order(count: int, seed_generator: keras.random.SeedGenerator) -> tuple[Tensor, Tensor]:
    """A random order of the tasks and its inverse."""
    order = ops.argsort(keras.random.uniform((count,), seed=seed_generator))
    return order, ops.argsort(order)


def reorder(matrix: Tensor, order: Tensor) -> Tensor:
    return ops.take(ops.take(matrix, order, axis=0), order, axis=1)


# Over the simplex.


def min_norm(gram: Tensor, active: Tensor) -> Tensor:
    """`argmin || sum_k lambda_k g_k ||` over the simplex of the active tasks."""
    weights = furthest(gram, ops.zeros_like(active), 1.0, active)
    return weights / ops.maximum(ops.sum(weights), SMALLEST)


def furthest(gram: Tensor, linear: Tensor, radius: Tensor, active: Tensor) -> Tensor:
    """The `v >= 0` with `|| sum_k v_k g_k || = radius` for which `min_k (A v + linear)_k` is largest.

    The weights `w = v / sum(v)` then solve `min w . linear + radius || sum_k w_k g_k ||` over the simplex, whose value
    is that minimum. On a face S of the simplex `A_SS v + linear_S` is a constant t: `v = t p - q` with `A_SS p = 1` and
    `A_SS q = linear_S`, and the radius gives t. Of the faces with `v >= 0` the one of smallest t is optimal.

    Args:
        gram: (tasks, tasks), positive semidefinite.
        linear: (tasks,), in the units of `gram`.
        radius: Number or scalar tensor, in the units of a gradient.
        active: (tasks,) of 0 and 1.
    """
    cosines, lengths, largest = scaled(gram, active)
    linear, radius = linear / largest, radius / ops.sqrt(largest)
    if gram.shape[0] > MAX_ENUMERATED:
        return _furthest_by_exchange(cosines * lengths[:, None] * lengths[None, :], linear, radius, active)
    faces = _faces(gram.shape[0])[1:]
    one, linear = active / lengths, active * linear / lengths
    p, q = ops.unstack(_solve_on(faces, cosines, ops.stack([one, linear], axis=1)), 2, axis=2)
    square = ops.maximum(ops.sum(p * one, axis=1, keepdims=True), SMALLEST)
    # q without its part along p, and what that part adds to t.
    part = ops.sum(q * one, axis=1, keepdims=True) / square
    q = q - part * p
    left = radius * radius - ops.sum(q * (linear - part * one), axis=1, keepdims=True)
    # A face of one task has no such rest: what is left of it is rounding.
    alone = faces.sum(1, keepdims=True) == 1
    reach = ops.sqrt(ops.maximum(left, 0.0)) / ops.sqrt(square)
    weights = reach * p - q
    possible = ops.logical_or(ops.logical_and(left >= 0, ops.min(weights, axis=1, keepdims=True) >= 0), alone)
    possible = ops.logical_and(possible, square > SMALLEST)
    value = ops.where(possible, reach + part, 3e38)
    return ops.maximum(_mean_where(weights, value, 0), 0.0) / lengths


def _furthest_by_exchange(a: Tensor, linear: Tensor, radius: Tensor, active: Tensor) -> Tensor:
    """The same by moving weight between two tasks at a time, as far as helps (sequential minimal optimisation)."""
    count = a.shape[0]
    eye = ops.eye(count)

    def length_and_products(weights: Tensor) -> tuple[Tensor, Tensor]:
        products = ops.sum(a * weights, axis=1)
        return ops.sqrt(ops.maximum(ops.sum(weights * products), SMALLEST)), products

    def exchange(_: Tensor, weights: Tensor) -> Tensor:
        length, products = length_and_products(weights)
        slope = linear + radius * products / length
        source = ops.argmax(ops.where(weights > 0, slope, -1e30))
        towards = eye[ops.argmin(ops.where(active > 0, slope, 1e30))] - eye[source]
        # The objective along the exchange: rise * x + radius * sqrt(bend) * sqrt((x + centre)^2 + height).
        rise = ops.sum(towards * linear)
        bend = ops.maximum(ops.sum(towards * ops.sum(a * towards, axis=1)), 1e-12)
        centre = ops.sum(towards * products) / bend
        height = ops.maximum(length * length / bend - centre * centre, 0.0)
        steep = radius * radius * bend - rise * rise
        amount = -centre - rise * ops.sqrt(height) / ops.sqrt(ops.maximum(steep, 1e-24))
        most = weights[source]
        amount = ops.where(steep > 0, amount, ops.where(rise < 0, most, 0.0))
        helps = ops.cast(ops.sum(towards * slope) < 0, "float32")
        return weights + ops.clip(amount, 0.0, most) * helps * towards

    weights = ops.fori_loop(0, 25 * count, exchange, mean_of(active))
    return weights * radius / length_and_products(weights)[0]


# Over the dual cone.


def project_on_dual_cone(cosines: Tensor) -> Tensor:
    """For each task i the `s_i >= 0` for which `u_i + sum_m s_im u_m` conflicts with no task and is nearest to `u_i`.

    `s_i = argmin 1/2 s' C s + s . C_i` over `s >= 0`. Of the faces S with `s_S = -C_SS^-1 C_Si >= 0` the one of
    smallest value, `1/2 s . C_i`, is optimal.

    Args:
        cosines: (tasks, tasks), as `scaled` gives them.

    Returns:
        (tasks, tasks), a row for each i.
    """
    count = cosines.shape[0]
    if count > MAX_ENUMERATED:
        return _project_by_coordinates(cosines)
    steps = _solve_on(_faces(count), cosines, -cosines)
    value = ops.where(ops.min(steps, axis=1) >= 0, ops.sum(steps * cosines, axis=1), 3e38)
    return ops.transpose(_mean_where(steps, value[:, None, :], 0))


def _project_by_coordinates(cosines: Tensor) -> Tensor:
    """The same, one coordinate of each `s_i` at a time: the one that moves furthest."""
    count = cosines.shape[0]

    def move(_: Tensor, steps: Tensor) -> Tensor:
        slope = cosines + ops.sum(steps[:, :, None] * cosines[None], axis=1)
        change = ops.maximum(steps - slope, 0.0) - steps
        which = ops.one_hot(ops.argmax(ops.abs(change), axis=1), count)
        return steps + which * change

    return ops.fori_loop(0, 25 * count, move, ops.zeros_like(cosines))


# Fixed points.


def bargain(cosines: Tensor, lengths: Tensor, power: float = 1.0, max_steps: int = 40) -> tuple[Tensor, Tensor]:
    """The `a > 0` with `A a = a^-power`, and whether it was found.

    The minimum of `1/2 a' A a - sum_k phi(a_k)` with `phi'(x) = x^-power`, which is convex, by Newton's method in
    `x_k = a_k ||g_k||`. A step is shortened by how far it moves relative to `x`: since the curvature of `phi` changes
    by a factor that this bounds, the objective falls at every step, and no line search is needed.

    Args:
        cosines: (tasks, tasks), as `scaled` gives them; so `lengths`.
        lengths: (tasks,).
        power: Above 0.
        max_steps: Of Newton's method, which stops at convergence.
    """
    count = cosines.shape[0]
    if count == 2 and power == 1.0:
        rest = 1.0 + cosines[0, 1]
        return 1.0 / (lengths * ops.sqrt(ops.maximum(rest, SMALLEST))), rest > 1e-5
    factor = lengths ** (power - 1.0) if power != 1.0 else ops.ones_like(lengths)
    start = factor ** (1.0 / (1.0 + power))
    square = ops.maximum(ops.sum(cosines * (start[:, None] * start[None, :])), 1e-6)
    start = start * (ops.sum(factor * start ** (1.0 - power)) / square) ** (1.0 / (1.0 + power))
    eye = np.eye(count, dtype="float32")
    shorten = max(1.0, (1.0 + power) / 2)

    def far(x: Tensor, moved: Tensor) -> Tensor:
        return moved > 1e-4

    def step(x: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        wanted = factor * x**-power
        hessian = cosines + eye * ops.maximum(power * wanted / x, 1e-6)
        change = ops.solve(hessian, wanted - ops.sum(cosines * x, axis=1))
        moved = ops.max(ops.abs(change) / x)
        return x + change / (1.0 + shorten * moved), moved

    x, _ = ops.while_loop(far, step, (start, ops.ones_like(start[0])), maximum_iterations=max_steps)
    wanted = factor * x**-power
    found = ops.all(ops.abs(ops.sum(cosines * x, axis=1) - wanted) <= TOLERANCE * wanted)
    return x / lengths, found


# Faces.


@functools.cache
def _faces(count: int) -> np.ndarray:
    """(2^count, count) of 0 and 1: every subset of the tasks, the empty one first."""
    return np.array([[(i >> k) & 1 for k in range(count)] for i in range(2**count)], "float32")


def _solve_on(faces: np.ndarray, cosines: Tensor, right: Tensor) -> Tensor:
    """`C_SS x_S = right_S`, 0 outside S, for every face: (faces, tasks, columns) from right, (tasks, columns)."""
    eye = np.eye(faces.shape[1], dtype="float32")
    inside = faces[:, :, None] * faces[:, None, :]
    return ops.solve(cosines * inside + (1.0 + RIDGE - inside) * eye, right * faces[:, :, None])


def _mean_where(candidates: Tensor, value: Tensor, axis: int) -> Tensor:
    """The candidate of smallest value; the mean of those that share it."""
    best = ops.cast(ops.equal(value, ops.min(value, axis=axis, keepdims=True)), "float32")
    return ops.sum(candidates * best, axis=axis) / ops.sum(best, axis=axis)
