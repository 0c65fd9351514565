"""Models of one size: an architecture resized until its parameters number as many as another's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.layers import BaseGate, FeatureEmbedding
from mtl_zoo.models._registry import create_model, model_info
from mtl_zoo.options import MLP, as_embedding

# Widths that keep their size: what reads a model's body, and what weighs its parts.
_NOT_THE_BODY = ("tower_units", "gate_units", "mask_units")
# From here on the middle of the bracket is tried, in case the counts follow no curve.
_PATIENCE = 12


def parameter_matched(
    model: str,
    /,
    features: Any,
    tasks: Any = None,
    *,
    like: keras.Model | int,
    count: str = "dense",
    scale: Iterable[str] | None = None,
    tolerance: float = 0.02,
    name: str | None = None,
    **hyperparameters: Any,
) -> Any:
    """A model of the catalogue whose body is resized so that it has as many parameters as another model.

    A larger network is often the better one whatever its architecture, so a comparison of architectures needs models of
    one size. All widths of the body are multiplied by one factor, `units -> round(factor units)`, and the factor is the
    one that brings the number of parameters nearest to that of `like`. Towers and gates keep the widths that they have.

    With `count="dense"` the parameters above the embedding count, `count_params()` less that of the `FeatureEmbedding`
    layers. Tables hold most parameters of a recommender, no width changes them, and models over the same features have
    them in common: counted in, they would make everything equal to within a few percent. What an architecture spends
    on more tables than others (`single_task`, `stem`) is left out by this; `count="all"` is `count_params()` itself.

    With `count="kernels"` the weight matrices of the body and of towers count, without biases, gates over experts, the
    linear layer to each logit, and embeddings. That is the rule of the MMoE paper: with an input of width D, n experts
    of width e match a shared bottom of width `(D e n + 2 e t) / (D + 2 t)` under two towers of width t.

    Args:
        model: One of `list_models()`.
        features: Feature specs, or a fitted `FeatureTransform`.
        tasks: The tasks. Default: those of the transform.
        like: The model to match, or a number of parameters.
        count: What counts: `"dense"`, `"all"` or `"kernels"`.
        scale: The arguments whose widths are multiplied. Default: every `*_units` of the model but `tower_units`,
            `gate_units` and `mask_units`; for a model that is a head on a backbone, those of the backbone.
        tolerance: The largest relative difference that is accepted.
        name: The Keras model's name.
        hyperparameters: Arguments of the model's class. Widths given here are the proportions that are kept.

    Raises:
        ValueError: An unknown model; no widths to multiply; no width comes within `tolerance`, and the nearest counts.
        TypeError: An unknown hyperparameter.

    Example:

    >>> import mtl_zoo
    >>> features = [mtl_zoo.Categorical("user_id", size=1000, dim=100)]
    >>> tasks = [mtl_zoo.RegressionTask("y1"), mtl_zoo.RegressionTask("y2")]
    >>> mmoe = mtl_zoo.create_model("mmoe", features, tasks, num_experts=8, expert_units=(16,), tower_units=(8,))
    >>> options = {"like": mmoe, "bottom_units": (16,), "tower_units": (8,)}
    >>> mtl_zoo.parameter_matched("shared_bottom", features, tasks, **options).bottom_units
    (126,)
    >>> mtl_zoo.parameter_matched("shared_bottom", features, tasks, count="kernels", **options).bottom_units
    (113,)

    Reference: Ma et al., KDD 2018, doi:10.1145/3219819.3220007, section 3.3, for `count="kernels"`.
    """
    check.check_choice("count", count, tuple(_COUNTS))
    check.check_number("tolerance", tolerance, above=0)
    target = parameter_count(like, count) if isinstance(like, keras.Model) else check.check_int("like", like)
    scale = None if scale is None else tuple(scale)
    body = _Body.of(model, features, tasks, scale, hyperparameters)
    below, above = _bracket(lambda width: body.count(width, count), target, body.width, body.step)
    tried = [pair for pair in (below, above) if pair is not None]
    width, found = min(tried, key=lambda pair: abs(pair[1] - target))
    if abs(found - target) > tolerance * target:
        nearest = " and ".join(f"{size:,} ({body.shown(width)})" for width, size in tried)
        raise ValueError(
            f"`like` must have a size that {model!r} can come within {tolerance:.1%} of. "
            f"Received: {target:,} parameters (count={count!r}). Nearest: {nearest}"
        )
    return create_model(model, features, tasks, name=name, **body.arguments(width))


def parameter_count(model: keras.Model, count: str = "dense") -> int:
    """The number of a model's parameters, as `parameter_matched` counts them.

    Args:
        model: A model of the zoo.
        count: `"dense"`, `"all"` or `"kernels"`.

    Raises:
        ValueError: An unknown `count`.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.models import parameter_count
    >>> features, tasks = [mtl_zoo.Categorical("user_id", size=98, dim=4)], [mtl_zoo.BinaryTask("click")]
    >>> model = mtl_zoo.SharedBottom(features, tasks, bottom_units=(3,), tower_units=(2,))
    >>> parameter_count(model, "all") - parameter_count(model)  # ids 0 and 1 have rows too
    400
    """
    check.check_choice("count", count, tuple(_COUNTS))
    return _COUNTS[count](model)


def _count_dense(model: Any) -> int:
    return model.count_params() - sum(
        layer.count_params() for layer in model.layers if isinstance(layer, FeatureEmbedding)
    )


def _count_kernels(model: Any) -> int:
    layers = [layer for layer in model.layers if not isinstance(layer, FeatureEmbedding | BaseGate)]
    weights = [w for layer in layers if not layer.name.endswith("_head") for w in layer.weights]
    return sum(int(np.prod(w.shape)) for w in weights if w.path.split("/")[-1].startswith("kernel"))


_COUNTS: dict[str, Callable[[Any], int]] = {
    "dense": _count_dense,
    "all": lambda model: model.count_params(),
    "kernels": _count_kernels,
}


@dataclasses.dataclass(frozen=True)
class _Body:
    """The widths of a model that are multiplied together, measured by the largest of them, `width`."""

    model: str
    features: Any
    tasks: Any
    options: Mapping[str, Any]
    backbone: bool  # whether the widths are those of `backbone_options`
    widths: Mapping[str, Any]
    step: int
    base: Any  # the model with these widths as they are

    @classmethod
    def of(cls, model: str, features: Any, tasks: Any, scale: Any, options: Any) -> Any:
        base = create_model(model, features, tasks, **_cheap(model, options))
        backbone = "backbone" in model_info(model).arguments
        given = base._plan.backbone_options if backbone else options
        owner = model_info(base.backbone if backbone else model)
        values = {**owner.arguments, **given}
        known = [n for n, value in values.items() if n.endswith("_units") and _largest(value)]
        for argument in scale or ():
            check.check_choice("scale", argument, known)
        chosen = scale or [n for n in known if n not in _NOT_THE_BODY]
        if not chosen:
            raise ValueError(
                f"`scale` must name widths of {model!r}, which has none but those of towers and gates. "
                f"Received: scale={scale!r}. Expected: some of {known}"
            )
        # Layers cut into subspaces have widths that these divide.
        step = values.get("num_subspaces", 1)
        return cls(model, features, tasks, options, backbone, {n: values[n] for n in chosen}, step, base)

    @property
    def width(self) -> int:
        return max(map(_largest, self.widths.values()))

    def scaled(self, width: int) -> dict[str, Any]:
        factor = width / self.width
        return {n: _scaled(value, factor, self.step) for n, value in self.widths.items()}

    def shown(self, width: int) -> str:
        return ", ".join(f"{n}={value!r}" for n, value in self.scaled(width).items())

    def arguments(self, width: int) -> dict[str, Any]:
        if self.backbone:
            given = self.options.get("backbone_options") or {}
            return {**self.options, "backbone_options": {**given, **self.scaled(width)}}
        return {**self.options, **self.scaled(width)}

    def count(self, width: int, count: str) -> int:
        if width == self.width:
            return parameter_count(self.base, count)
        arguments = _cheap(self.model, self.arguments(width))
        return parameter_count(create_model(self.model, self.features, self.tasks, **arguments), count)


def _cheap(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The same model with tables of zeros: counting its weights takes no random numbers."""
    known = model_info(model).arguments
    if "backbone" in known:
        given = dict(options.get("backbone_options") or {})
        return {**options, "backbone_options": {**given, "embedding": _zeros(given)}}
    return {**options, "embedding": _zeros(options)} if "embedding" in known else dict(options)


def _zeros(options: Any) -> Any:
    return dataclasses.replace(as_embedding(options.get("embedding")), initializer="zeros")


def _units(value: Any) -> tuple[int, ...]:
    if isinstance(value, MLP):
        return value.units
    return (value,) if isinstance(value, int) else tuple(value or ())


def _largest(value: Any) -> int:
    return max(_units(value), default=0)


def _scaled(value: Any, factor: float, step: int) -> Any:
    """The widths times `factor`, as multiples of `step`, in the form they were given in."""
    units = tuple(max(step, step * round(factor * u / step)) for u in _units(value))
    if isinstance(value, MLP):
        return dataclasses.replace(value, units=units)
    return units[0] if isinstance(value, int) else units


def _bracket(count: Callable[[int], int], target: int, start: int, step: int) -> Any:
    """The neighbouring multiples of `step` whose counts enclose `target`, as (width, count); None where there is none.

    Counts grow with the width, and follow a parabola but for rounding: where it meets the target is tried next.
    """
    seen: dict[int, int] = {}
    below = above = None
    width = max(step, start - start % step)
    while True:
        seen[width] = count(width)
        if seen[width] <= target:
            below = (width, seen[width])
        if seen[width] >= target:
            above = (width, seen[width])
        low = below[0] if below else 0
        if above and above[0] - low <= step:
            return below, above
        guess = (low + above[0]) / 2 if above and len(seen) > _PATIENCE else _where(seen, target)
        width = step * round(guess / step)
        if above:
            width = min(width, above[0] - step)
        else:
            width = min(width, 16 * low) if width > low else 2 * low
        width = max(width, low + step)


def _where(seen: Mapping[int, int], target: int) -> float:
    """The width at which a parabola through the counts nearest to the target would reach it."""
    widths = sorted(seen, key=lambda width: abs(seen[width] - target))[:3]
    if len(widths) == 1:
        return widths[0] * (target / seen[widths[0]]) ** 0.5
    # In units of the first width, for the sake of the fit's condition.
    x = np.array(widths) / widths[0]
    curve = np.polyfit(x, [float(seen[width] - target) for width in widths], len(widths) - 1)
    roots = [root.real for root in np.roots(curve) if abs(root.imag) < 1e-9 and root.real > 0]
    # The parabola of counts on a line has a second root, far out.
    return widths[0] * float(min(roots, key=lambda root: abs(root - 1), default=x.mean()))
