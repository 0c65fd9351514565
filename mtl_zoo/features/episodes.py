"""Batches of episodes: each the rows of one user, first those to adapt to, then those to be good at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._plain_errors import noted, with_plain_errors


def make_episodes(
    inputs: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    groups: Any,
    *,
    support: int = 5,
    query: int = 10,
    episodes: int = 16,
    order: Any = None,
    seed: int | None = None,
) -> Any:
    """A `tf.data.Dataset` of `(inputs, labels)` for steps that learn to adapt, such as `MAML`.

    In every epoch each group with two rows or more gives one episode of `support + query` rows, in another order of the
    groups. Its rows are drawn without replacement; with `order` they are a run of neighbouring ones that begins at
    random, so that it adapts to what came before. A group with too few rows keeps one for the query at least, and its
    episode is filled up with rows whose labels are NaN, which count for nothing.

    Args:
        inputs, labels: Arrays with the same number of rows, by name, as `FeatureTransform.encode` and `encode_labels`
            give them.
        groups: (rows,) what an episode is about, such as the ids of users.
        support: Rows to adapt to. Default: 5.
        query: Rows by which the adaptation is judged. Default: 10.
        episodes: How many a batch holds; the last one may hold fewer. Default: 16.
        order: (rows,) numbers or times to sort a group's rows by. Default: None, no order.
        seed: The same seed gives the same epochs. Default: None, drawn from NumPy's global generator.

    Raises:
        ValueError: A size below 1; arrays that differ in length; no group with two rows; labels that are no numbers.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.features import make_episodes
    >>> x, y = {"age": np.arange(6.0)}, {"click": np.array([0, 1, 0, 1, 1, 0])}
    >>> data = make_episodes(x, y, ["ann"] * 4 + ["bob"] * 2, support=1, query=2, episodes=2, seed=0)
    >>> [tuple(inputs["age"].shape) for inputs, labels in data]
    [(6,)]
    """
    import tensorflow as tf

    sizes = {name: check.check_count(name, v) for name, v in (("support", support), ("query", query))}
    episodes = check.check_count("episodes", episodes)
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    targets = {name: _as_numbers(name, label) for name, label in labels.items()}
    by_group = _rows_by_group(groups, order, {**arrays, **{f"labels[{name!r}]": y for name, y in targets.items()}})
    seed = np.random.randint(2**31) if seed is None else check.check_int("seed", seed, minimum=0)
    generator = np.random.default_rng(seed)
    held = ({name: tf.constant(a) for name, a in arrays.items()}, {name: tf.constant(y) for name, y in targets.items()})

    def one_epoch() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        drawn = [
            _episode(by_group[at], order is not None, sizes, generator) for at in generator.permutation(len(by_group))
        ]
        for start in range(0, len(drawn), episodes):
            rows, counts = zip(*drawn[start : start + episodes], strict=True)
            yield np.concatenate(rows), np.concatenate(counts)

    def gathered(rows: Any, counts: Any) -> Any:
        x, y = (tf.nest.map_structure(lambda array: tf.gather(array, rows), part) for part in held)
        return x, {name: _hidden(label, counts) for name, label in y.items()}

    signature = (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.bool))
    data = tf.data.Dataset.from_generator(noted(one_epoch), output_signature=signature)
    data = data.map(tf.autograph.experimental.do_not_convert(gathered))
    data = data.apply(tf.data.experimental.assert_cardinality(-(-len(by_group) // episodes)))
    return with_plain_errors(data.prefetch(2))


def _as_numbers(name: str, label: Any) -> np.ndarray:
    array = np.asarray(label)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`labels[{name!r}]` must be numbers, as `encode_labels` gives them. Received: {array.dtype}")
    return array.astype("float32")


def _rows_by_group(groups: Any, order: Any, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The positions of each group's rows, in their order; groups of one row are left out."""
    of = np.asarray(groups)
    lengths = {"groups": len(of), **{name: len(array) for name, array in arrays.items()}}
    if order is not None:
        lengths["order"] = len(np.asarray(order))
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"`inputs`, `labels`, `groups` and `order` must have the same number of rows. Received: {lengths}"
        )
    _, codes = np.unique(of.astype(str) if of.dtype == object else of, return_inverse=True)
    keys = np.arange(len(of)) if order is None else np.asarray(order)
    positions = np.lexsort((keys, codes))
    found = np.split(positions, np.flatnonzero(np.diff(codes[positions])) + 1)
    found = [rows for rows in found if len(rows) > 1]
    if not found:
        raise ValueError(f"`groups` must hold one with two rows or more. Received: {len(of)} rows, of a group each")
    return found


def _episode(
    rows: np.ndarray, in_order: bool, sizes: Mapping[str, int], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of an episode's rows, and which of them count."""
    support, query = sizes["support"], sizes["query"]
    first = min(support, len(rows) - 1)
    taken = min(first + query, len(rows))
    if in_order:
        start = int(generator.integers(len(rows) - taken + 1))
        chosen = rows[start : start + taken]
    else:
        chosen = generator.choice(rows, taken, replace=False)
    places = np.concatenate([np.arange(first), support + np.arange(taken - first)])
    found, counts = np.full(support + query, chosen[0], "int64"), np.zeros(support + query, bool)
    found[places], counts[places] = chosen, True
    return found, counts


def _hidden(label: Any, counts: Any) -> Any:
    import tensorflow as tf

    return tf.where(tf.reshape(counts, [-1, *[1] * (len(label.shape) - 1)]), label, float("nan"))
