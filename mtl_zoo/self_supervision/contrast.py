from __future__ import annotations

from typing import Any

from keras import ops

from mtl_zoo import _backend
from mtl_zoo.layers import DenseStack
from mtl_zoo.self_supervision._base import Objective, Setting, dense, register_objective, rows
from mtl_zoo.self_supervision._dropping import FeatureDropping

_FAR, _LEAST = -1e30, 1e-4


@register_objective("contrastive")
class Contrast(Objective):
    """Two views of a row against those of all others of the global batch: see `ContrastiveTask`.

    Example:

    >>> from mtl_zoo.self_supervision import OBJECTIVES
    >>> OBJECTIVES["contrastive"].__name__
    'Contrast'
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(task, setting)
        self.dropping = FeatureDropping(task, setting)
        *hidden, last = task.projection_units
        self.hidden = DenseStack(tuple(hidden), name=f"{task.name}_hidden", dtype="float32") if hidden else None
        if self.hidden is not None:
            self.hidden.build((None, setting.width))
        self.linear = dense(f"{task.name}_vector", last, hidden[-1] if hidden else setting.width)

    def call(self, passes: Any) -> Any:
        views = [self._vector(passes.representation(self.dropping(passes.inputs)[0])) for _ in range(2)]
        everyone, first = _backend.gather_replicas_with_gradient(ops.concatenate(views, axis=1))
        ours = first + ops.arange(ops.shape(views[0])[0])
        is_own = ops.equal(ours[:, None], ops.arange(ops.shape(everyone)[0])[None])
        others = ops.split(everyone, 2, axis=1)
        losses, nearest = zip(*(self._loss(views[i], others[i], others[1 - i], is_own) for i in (0, 1)), strict=True)
        ones = ops.ones_like(losses[0])
        return rows((losses[0] + losses[1]) / 2, ones, ((nearest[0] + nearest[1]) / 2, ones))

    def _vector(self, z: Any) -> Any:
        x = self.linear(z if self.hidden is None else self.hidden(z))
        # Of a row whose representation is 0 the gradient must not be without bounds.
        return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + _LEAST)

    def _loss(self, view: Any, same: Any, other: Any, is_own: Any) -> tuple[Any, Any]:
        """Of each row's view, the loss against the views of the same kind and of the other, and whether it is met."""
        scores = ops.matmul(view, ops.transpose(ops.concatenate([same, other], axis=0))) / self.task.temperature
        nowhere = ops.zeros_like(is_own)
        scores = ops.where(ops.concatenate([is_own, nowhere], axis=1), _FAR, scores)
        target = ops.concatenate([nowhere, is_own], axis=1)
        met = ops.sum(ops.where(target, scores, 0.0), axis=1)
        above = ops.sum(ops.cast(scores > met[:, None], "float32"), axis=1)
        return ops.logsumexp(scores, axis=1) - met, ops.cast(ops.equal(above, 0.0), "float32")
