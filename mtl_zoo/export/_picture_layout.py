"""Where the blocks of a picture are: in rows by depth, with few crossings, and linked blocks above one another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

_SWEEPS = 12


@dataclasses.dataclass
class Layout:
    """Rows of names from the bottom up, and their positions. Arrows that span several rows pass points in between.

    Args:
        rows: The names in each row, from left to right. A point that an arrow passes has a name, too, but is not a
            block.
        x: The horizontal position of the middle of each name.
        paths: For each arrow (source, target), the names along it, both ends included.
    """

    rows: list[list[str]]
    x: dict[str, float]
    paths: dict[tuple[str, str], list[str]]


def arrange(sources: Mapping[str, Sequence[str]], widths: Mapping[str, float], gap: float) -> Layout:
    """Lays out a graph.

    Args:
        sources: For each block, the blocks that it reads. Each block comes after its sources.
        widths: The width of each block.
        gap: The distance between neighbours in a row.
    """
    depth = _depths(sources)
    paths, rows = _paths(sources, depth)
    below: dict[str, list[str]] = {name: [] for row in rows for name in row}
    above: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for path in paths.values():
        for lower, upper in itertools.pairwise(path):
            below[upper].append(lower)
            above[lower].append(upper)
    rows = _order(rows, below, above)
    room = {name: widths.get(name, gap / 2) for row in rows for name in row}
    return Layout(rows, _positions(rows, below, above, room, gap), paths)


def _depths(sources: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """A block is a row above its highest source, or higher if its readers allow it: gates are below mixtures."""
    depth: dict[str, int] = {}
    for name, read in sources.items():
        depth[name] = max((depth[source] + 1 for source in read), default=0)
    readers: dict[str, list[str]] = {name: [] for name in sources}
    for name, read in sources.items():
        for source in read:
            readers[source].append(name)
    for name in reversed(list(sources)):
        if readers[name] and sources[name]:
            depth[name] = min(depth[reader] for reader in readers[name]) - 1
    return depth


def _paths(
    sources: Mapping[str, Sequence[str]], depth: Mapping[str, int]
) -> tuple[dict[tuple[str, str], list[str]], list[list[str]]]:
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in sources:
        rows[depth[name]].append(name)
    paths = {}
    for name, read in sources.items():
        for source in read:
            points = [f"{source}->{name} at {row}" for row in range(depth[source] + 1, depth[name])]
            for row, point in enumerate(points, start=depth[source] + 1):
                rows[row].append(point)
            paths[source, name] = [source, *points, name]
    return paths, rows


def _order(
    rows: list[list[str]], below: Mapping[str, Sequence[str]], above: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """Sorts each row by the mean position of linked names, up and down, and returns the best of all sweeps."""
    best, fewest = [list(row) for row in rows], _crossings(rows, above)
    rows = [list(row) for row in rows]
    for sweep in range(_SWEEPS):
        upwards = sweep % 2 == 0
        joined = below if upwards else above
        for i in range(len(rows)) if upwards else reversed(range(len(rows))):
            at = {name: k for row in rows for k, name in enumerate(row)}
            current = {name: k for k, name in enumerate(rows[i])}
            rows[i].sort(key=lambda name: (_mean([at[n] for n in joined[name]], current[name]), current[name]))
        crossings = _crossings(rows, above)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(rows: list[list[str]], above: Mapping[str, Sequence[str]]) -> int:
    count = 0
    for i, row in enumerate(rows[:-1]):
        at = {name: k for k, name in enumerate(rows[i + 1])}
        ends = [at[upper] for name in row for upper in sorted(above[name], key=at.__getitem__)]
        count += sum(a > b for k, a in enumerate(ends) for b in ends[k + 1 :])
    return count


def _positions(
    rows: list[list[str]],
    below: Mapping[str, list[str]],
    above: Mapping[str, list[str]],
    room: Mapping[str, float],
    gap: float,
) -> dict[str, float]:
    x: dict[str, float] = {}
    for row in rows:
        edge = 0.0
        for name in row:
            x[name] = edge + room[name] / 2
            edge += room[name] + gap
        middle = (edge - gap) / 2
        x.update({name: x[name] - middle for name in row})
    for sweep in range(4 * _SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            # Long arrows should be straight.
            wanted = [_mean([x[n] for n in below[name] + above[name]], x[name]) for name in row]
            x.update(zip(row, _apart(row, wanted, room, gap), strict=True))
    for row in rows:
        # Chains should be vertical.
        wanted = [x[below[name][0]] if len(below[name]) == 1 and len(above[name]) < 2 else x[name] for name in row]
        x.update(zip(row, _apart(row, wanted, room, gap), strict=True))
    return x


def _apart(row: list[str], wanted: list[float], room: Mapping[str, float], gap: float) -> list[float]:
    """The positions nearest to `wanted` (by least squares) that keep order and gaps, by pooling adjacent violators."""
    offsets = [0.0]
    for left, right in itertools.pairwise(row):
        offsets.append(offsets[-1] + (room[left] + room[right]) / 2 + gap)
    pools: list[list[float]] = []  # [sum, count]
    for position, offset in zip(wanted, offsets, strict=True):
        pools.append([position - offset, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    shifts = [total / count for total, count in pools for _ in range(int(count))]
    return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]
