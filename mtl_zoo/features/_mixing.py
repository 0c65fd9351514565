"""How rows of several sources are mixed: how many of each an epoch holds, and in which order they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features.batching import RowOrders

EPOCHS = ("largest", "smallest")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """The options of a mixture.

    Args:
        ratios: Shares of the sources by name, which need not add up to 1; None: by their sizes.
        temperature: The sizes count as `size^(1 / temperature)`.
        alternating: Whether a batch holds rows of one source.
        epoch: `"largest"`, `"smallest"`, or a number of steps.
    """

    ratios: Mapping[str, float] | None
    temperature: float
    alternating: bool
    epoch: str | int

    def shares(self, sizes: Mapping[str, int]) -> np.ndarray:
        """The share of each source in the rows of an epoch."""
        if self.ratios is None:
            found = np.array(list(sizes.values()), "float64") ** (1 / self.temperature)
        else:
            found = np.array([self.ratios[name] for name in sizes], "float64")
        return found / found.sum()

    def counts(self, sizes: Mapping[str, int], batch_size: int) -> list[int]:
        """Rows of each source in an epoch, at least one."""
        shares, size = self.shares(sizes), batch_size if self.alternating else 1
        if isinstance(self.epoch, int):
            units = self.epoch if self.alternating else self.epoch * batch_size
            if units < len(sizes):
                raise ValueError(
                    f"`epoch` must have room for each of the {len(sizes)} sources. Received: epoch={self.epoch}, "
                    f"alternating={self.alternating}, batches of {batch_size}"
                )
            return [size * count for count in apportioned(units, shares)]
        rows = list(sizes.values())
        whole = int(np.argmax(rows) if self.epoch == "largest" else np.argmin(rows))
        exact = rows[whole] * (shares / shares[whole]) / size
        return [size * max(1, int(np.rint(count))) for count in exact]

    def get_config(self) -> dict[str, Any]:
        ratios = None if self.ratios is None else dict(self.ratios)
        return {**dataclasses.asdict(dataclasses.replace(self, ratios=None)), "ratios": ratios}


def apportioned(total: int, shares: np.ndarray) -> list[int]:
    """Whole numbers >= 1 near `total * shares` that add up to `total`."""
    exact = total * shares
    counts = np.maximum(np.floor(exact), 1)
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > total:
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return [int(count) for count in counts]


class Mixture:
    """The epochs of a mixture.

    Row r of an epoch is a draw, one of 0 .. rows - 1: the first `counts[0]` are those of the first source, and so on.
    The draws of an epoch come in a random order, or batch by batch of one source, that depends on the seed and on the
    number of the epoch alone.

    Args:
        counts: Rows of each source in an epoch.
        batch_size: Rows a batch.
        alternating: Whether a batch holds rows of one source; counts are then whole batches.
        seed: None keeps the order of each source's rows, and spreads them evenly among those of the others.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, alternating: bool, seed: int | None):
        self.counts, self.rows = list(counts), sum(counts)
        self._ends = np.cumsum(counts)
        self._batch_size, self._alternating, self._seed = batch_size, alternating, seed
        self._orders = None if seed is None else RowOrders(self.rows, seed)

    def draws(self, epoch: int) -> np.ndarray:
        """The draws of an epoch in the order in which they come, (rows,)."""
        if self._orders is None or self._seed is None:
            places = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
            return np.argsort(places, kind="stable")
        if not self._alternating:
            return self._orders(epoch)
        rng = np.random.default_rng((self._seed, epoch))
        own = [end - count + rng.permutation(count) for count, end in zip(self.counts, self._ends, strict=True)]
        batches = np.concatenate(own).reshape(-1, self._batch_size)
        return batches[rng.permutation(len(batches))].ravel()

    def sources(self, draws: np.ndarray) -> np.ndarray:
        """The number of each draw's source."""
        return np.searchsorted(self._ends, draws, side="right")

    def first(self, source: int) -> int:
        """The first draw of a source."""
        return int(self._ends[source]) - self.counts[source]


def rows_of_draws(size: int, count: int, epoch: int, draws: np.ndarray, seed: int | None) -> np.ndarray:
    """Which rows of a source its draws are.

    A source is drawn from without replacement, pass after pass, from one epoch to the next: an epoch goes on where the
    one before stopped. Where an epoch is exactly one pass, its order is shuffled enough.

    Args:
        size: Rows of the source.
        count: Draws of an epoch.
        epoch: Number of the epoch, from 0.
        draws: Draws of this epoch, 0 .. count - 1.
        seed: Of the passes; None keeps the order of the rows.
    """
    if count == size or seed is None:
        return draws % size
    passes, places = np.divmod(epoch * count + draws, size)
    rows = np.empty(len(draws), "int64")
    for number in np.unique(passes):
        at = passes == number
        rows[at] = np.random.default_rng((seed, int(number))).permutation(size)[places[at]]
    return rows


def seed_of_source(seed: int | None, source: int) -> int | None:
    """A seed of its own for each source."""
    return None if seed is None else int(np.random.SeedSequence((seed, source)).generate_state(1)[0])


def as_mixing(mixing: Any, temperature: Any, alternating: Any, epoch: Any, names: Sequence[str]) -> Mixing:
    """The checked options."""
    temperature = check.check_number("temperature", temperature, above=0)
    if not isinstance(alternating, bool):
        raise ValueError(f"`alternating` must be True or False. Received: alternating={alternating!r}")
    ratios = None
    if isinstance(mixing, Mapping):
        if set(mixing) != set(names):
            raise ValueError(
                f"`mixing` must hold a ratio for each source. Received: mixing={dict(mixing)!r}. "
                f"Expected: the names {list(names)}"
            )
        if temperature != 1:
            raise ValueError(f"`temperature` must be 1 with given ratios. Received: temperature={temperature!r}")
        ratios = {name: check.check_number(f"mixing[{name!r}]", mixing[name], above=0) for name in names}
    elif not isinstance(mixing, str) or mixing != "proportional":
        raise ValueError(f"`mixing` must be 'proportional' or a dict of ratios by source. Received: mixing={mixing!r}")
    if isinstance(epoch, str):
        check.check_choice("epoch", epoch, EPOCHS)
    else:
        epoch = check.check_int("epoch", epoch)
    return Mixing(ratios, temperature, alternating, epoch)
