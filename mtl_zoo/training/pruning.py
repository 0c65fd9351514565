"""Kernels without their smallest weights, which stay 0 while the others are trained further."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._files import whole_file
from mtl_zoo._types import Tensor


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What `prune` did.

    Args:
        sparsity: The share of zeros by the path of each kernel.
        weights: How many weights the kernels have, zeros included.
        zeros: How many of them are 0.
        histories: What `fit` returned, round by round.
    """

    sparsity: dict[str, float]
    weights: int
    zeros: int
    histories: tuple[keras.callbacks.History, ...] = ()


def prune(
    model: Any,
    sparsity: float,
    x: Any = None,
    y: Any = None,
    *,
    rounds: int = 1,
    scope: str = "layer",
    **arguments: Any,
) -> Pruned:
    """Sets the smallest weights of a trained model's kernels to 0, and trains the others further.

    In round `r` of `R` the weights of least magnitude become 0 until a share

        s_r = sparsity (1 - (1 - r / R)^3)

    of the kernels is (Zhu and Gupta), and `fit` trains the rest: zeros stay exactly 0 in every step, with any
    optimizer, training step and balancing method. Kernels are trainable weights of two axes or more, such as those of
    dense layers and experts; embedding tables, biases and normalisations are left alone. `save` keeps the zeros, and
    `save_compressed` writes a file that is smaller for them. Dense runtimes compute as long as before: pruning makes a
    model smaller, not quicker.

    Args:
        model: A model of the zoo, which is changed. It must be compiled if there are rows to train on.
        sparsity: The share of the kernels' weights that will be 0, in 0..1, 1 excluded.
        x: Rows to train on: what `fit` takes. Default: None, no training.
        y: Labels of arrays. Default: None.
        rounds: How often weights are set to 0 and the others trained. Default: 1.
        scope: `"layer"`: each kernel loses the same share; `"model"`: the smallest of all kernels together, after each
            is divided by its root mean square. Default: "layer".
        arguments: Those of `fit`, in each round.

    Returns:
        `Pruned`: the share of zeros by kernel, and what `fit` returned.

    Raises:
        ValueError: `sparsity` or `scope` is none; `rounds` > 1 or arguments of `fit` without rows; no kernels.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Numeric, create_model
    >>> from mtl_zoo.training import prune
    >>> model = create_model("shared_bottom", [Numeric("age")], [BinaryTask("click")], bottom_units=(8,))
    >>> model.compile("adam")
    >>> age = np.linspace(-1, 1, 64, dtype="float32")
    >>> found = prune(model, 0.75, {"age": age}, {"click": 1.0 * (age > 0)}, verbose=0)
    >>> found.zeros / found.weights
    0.75

    Reference: Zhu and Gupta, "To prune, or not to prune", ICLR 2018 workshop, arXiv:1710.01878.
    """
    check.check_number("sparsity", sparsity, minimum=0, below=1)
    check.check_int("rounds", rounds)
    check.check_choice("scope", scope, ("layer", "model"))
    if x is None and (y is not None or arguments or rounds > 1):
        raise ValueError(
            "`x` must be rows to train on where labels, rounds or arguments of `fit` are given. Received: x=None, "
            f"rounds={rounds}, {sorted(arguments)}"
        )
    kernels = prunable(model)
    if not kernels:
        raise ValueError(f"`model` must have trainable kernels. Received: {model.name!r}, without any")
    histories = []
    for number in range(1, rounds + 1):
        share = sparsity * (1 - (1 - number / rounds) ** 3)
        for kernel, values in zip(kernels, _pruned(kernels, share, scope), strict=True):
            kernel.assign(values)
        if x is not None:
            with hold_zeros(model):
                histories.append(model.fit(x, y, **arguments))
    shares = {kernel.path: _share_of_zeros(kernel) for kernel in kernels}
    sizes = {kernel.path: math.prod(kernel.shape) for kernel in kernels}
    zeros = sum(round(shares[path] * size) for path, size in sizes.items())
    return Pruned(shares, sum(sizes.values()), zeros, tuple(histories))


@contextlib.contextmanager
def hold_zeros(model: Any) -> Iterator[None]:
    """Within the block, kernels' weights that are 0 now stay 0 in training: of a pruned model that is trained further.

    Args:
        model: A compiled model of the zoo, pruned in this process or loaded.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Numeric, create_model
    >>> from mtl_zoo.training import hold_zeros, prune
    >>> model = create_model("shared_bottom", [Numeric("age")], [BinaryTask("click")], bottom_units=(8,))
    >>> model.compile("adam")
    >>> zeros = prune(model, 0.5).zeros
    >>> with hold_zeros(model):
    ...     history = model.fit({"age": np.ones(8)}, {"click": np.ones(8)}, verbose=0)
    >>> zeros == prune(model, 0).zeros
    True
    """
    kernels = prunable(model)
    before = [kernel.constraint for kernel in kernels]
    for kernel, constraint in zip(kernels, before, strict=True):
        kernel.constraint = _ZerosStay(keras.ops.convert_to_numpy(kernel) != 0, constraint)
    model.forget_traces()
    try:
        yield
    finally:
        for kernel, constraint in zip(kernels, before, strict=True):
            kernel.constraint = constraint
        model.forget_traces()


class _ZerosStay(keras.constraints.Constraint):
    """What an optimizer applies to a kernel after each of its updates."""

    def __init__(self, mask: np.ndarray, other: Any):
        self._mask, self._other = mask, other

    def __call__(self, value: Tensor) -> Tensor:
        value = value if self._other is None else self._other(value)
        return keras.ops.where(self._mask, value, keras.ops.zeros_like(value))


def prunable(model: Any) -> list[Any]:
    """The weights that `prune` looks at."""
    return [v for v in model.trainable_variables if len(v.shape) > 1 and not _backend.is_table(v)]


def _pruned(kernels: list[Any], share: float, scope: str) -> list[np.ndarray]:
    """The kernels' values with a share of them 0: those of least magnitude, ties by position."""
    values = [keras.ops.convert_to_numpy(kernel).copy() for kernel in kernels]
    sizes = [np.abs(value).ravel() for value in values]
    if scope == "model":
        scaled = [size / max(float(np.sqrt(np.mean(size**2))), 1e-30) for size in sizes]
        gone = _smallest(np.concatenate(scaled), share)
        parts = np.split(gone, np.cumsum([len(size) for size in sizes])[:-1])
    else:
        parts = [_smallest(size, share) for size in sizes]
    for value, part in zip(values, parts, strict=True):
        value.ravel()[part] = 0
    return values


def _smallest(sizes: np.ndarray, share: float) -> np.ndarray:
    """bool: the `share` of the smallest."""
    found = np.zeros(len(sizes), bool)
    found[np.argsort(sizes, kind="stable")[: int(share * len(sizes) + 1e-9)]] = True
    return found


def _share_of_zeros(kernel: Any) -> float:
    return float(np.mean(keras.ops.convert_to_numpy(kernel) == 0))


def save_compressed(model: Any, path: str | Path) -> int:
    """`model.save` with the file's content deflated, which makes a pruned model small; it is loaded as any other.

    Args:
        model: A model of the zoo.
        path: Ends in `.keras`. A file that was there stays whole until the new one takes its place.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: Another suffix.

    Example:

    >>> import keras
    >>> from mtl_zoo import BinaryTask, Numeric, create_model
    >>> from mtl_zoo.training import prune, save_compressed
    >>> model = create_model("shared_bottom", [Numeric("age")], [BinaryTask("click")])
    >>> before = save_compressed(model, "whole.keras")
    >>> found = prune(model, 0.9)
    >>> save_compressed(model, "pruned.keras") < before / 2
    True
    >>> keras.models.load_model("pruned.keras").name == model.name
    True
    """
    place = Path(path)
    if place.suffix != ".keras":
        raise ValueError(f"`path` must end in '.keras'. Received: path={str(path)!r}")
    with whole_file(place) as part:
        model.save(part)
        with zipfile.ZipFile(part) as stored:
            contents = {info.filename: stored.read(info) for info in stored.infolist()}
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as deflated:
            for name, content in contents.items():
                deflated.writestr(name, content)
    return place.stat().st_size
