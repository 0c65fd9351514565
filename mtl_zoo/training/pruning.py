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

    Example:

    >>> from mtl_zoo.training import Pruned
    >>> found = Pruned({"bottom/kernel": 0.9}, weights=100, zeros=90)
    >>> found.zeros / found.weights
    0.9
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
    histories, kept = [], [np.ones(kernel.shape, bool) for kernel in kernels]
    for number in range(1, rounds + 1):
        kept = _kept(kernels, kept, sparsity * (1 - (1 - number / rounds) ** 3), scope)
        for kernel, mask in zip(kernels, kept, strict=True):
            kernel.assign(np.where(mask, keras.ops.convert_to_numpy(kernel), np.float32(0)))
        if x is not None:
            with _held(model, kernels, kept):
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
    with _held(model, kernels, [keras.ops.convert_to_numpy(kernel) != 0 for kernel in kernels]):
        yield


@contextlib.contextmanager
def _held(model: Any, kernels: list[Any], masks: list[np.ndarray]) -> Iterator[None]:
    """Within the block, updates leave 0 what is not in the masks."""
    before = [kernel.constraint for kernel in kernels]
    for kernel, mask, constraint in zip(kernels, masks, before, strict=True):
        kernel.constraint = _ZerosStay(mask, constraint)
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


def _kept(kernels: list[Any], kept: list[np.ndarray], share: float, scope: str) -> list[np.ndarray]:
    """bool by kernel: all but a share of the weights, those of least magnitude; what has gone stays away."""
    sizes = [np.abs(keras.ops.convert_to_numpy(kernel)).astype("float32") for kernel in kernels]
    if scope == "model":
        sizes = [size / max(float(np.sqrt(np.mean(size**2))), 1e-30) for size in sizes]
    # Zeros that were weights before come first, also among zeros that are none: gates start as zeros.
    flat = [np.where(mask, size, np.float32(-1)).ravel() for size, mask in zip(sizes, kept, strict=True)]
    if scope == "model":
        found = np.split(_largest(np.concatenate(flat), share), np.cumsum([len(size) for size in flat])[:-1])
    else:
        found = [_largest(size, share) for size in flat]
    return [mask.reshape(size.shape) for mask, size in zip(found, sizes, strict=True)]


def _largest(sizes: np.ndarray, share: float) -> np.ndarray:
    """bool: all but the `share` of the smallest, ties by position."""
    found = np.ones(len(sizes), bool)
    found[np.argsort(sizes, kind="stable")[: int(share * len(sizes) + 1e-9)]] = False
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
