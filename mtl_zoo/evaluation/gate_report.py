"""`gate_report(model, split)` shows which experts the gates of a model use, and how similar gates are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.evaluation._gates import GateReader, normalized_entropy
from mtl_zoo.features.spec import UNKNOWN_ID
from mtl_zoo.models._biases import required_inputs, with_unknown
from mtl_zoo.models._data import encode_table, is_table

CAPTURED_ENTROPY, CAPTURED_WEIGHT = 0.3, 0.95
# Relative to an even share.
DEAD = 0.1
_MOST_VALUES = 100
_ALL = "all rows"


@dataclasses.dataclass(frozen=True)
class GateReport:
    """The result of `gate_report`.

    Attributes:
        table: One row for each gate, segment and expert, with the columns `gate`, `by` if there is one, `rows`,
            `expert`, `weight` (the mean over rows) and `dead`, and, for the gate as a whole, `entropy`, `row_entropy`
            and `captured`.
        similarity: One row for each segment and each pair of gates that weigh some of the same experts, with the
            columns `gate`, `other`, `experts` (how many they share), `cosine` (of their mean weights) and `overlap`
            (the mean over rows of `sum_i min(g_i, g'_i)`, which is 1 where both gates have equal weights on every row).
        by: The column by which rows were grouped, or None.
        panels: For pictures, the experts of each panel and, for each gate in it, the positions of its experts among
            them. Gates that weigh the same experts share a panel.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model, gate_report
    >>> features, tasks = [Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")]
    >>> model = create_model("mmoe", features, tasks, num_experts=2, expert_units=(4,))
    >>> report = gate_report(model, {"user_id": [2, 3, 4]})
    >>> report.table["gate"].nunique(), len(report.similarity)
    (2, 1)
    """

    table: pd.DataFrame
    similarity: pd.DataFrame
    by: str | None
    panels: tuple[tuple[tuple[str, ...], dict[str, tuple[int, ...]]], ...]

    @property
    def gates(self) -> pd.DataFrame:
        """One row for each gate and segment: entropies, the expert with the most weight, dead experts, `captured`."""
        rows = []
        for _, part in self.table.groupby(self._keys, sort=False):
            top = part.iloc[int(part["weight"].to_numpy().argmax())]
            row = {key: top[key] for key in (*self._keys, "rows", "entropy", "row_entropy")}
            row |= {"top": top["expert"], "top_weight": top["weight"]}
            row |= {"dead": ", ".join(part.loc[part["dead"], "expert"]), "captured": top["captured"]}
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def _keys(self) -> list[str]:
        return ["gate"] if self.by is None else ["gate", self.by]

    def __str__(self) -> str:
        parts = [self.gates.to_string(index=False, float_format="{:.3f}".format)]
        if len(self.similarity):
            parts.append(self.similarity.to_string(index=False, float_format="{:.3f}".format))
        return "\n\n".join(parts)

    def plot(self, path: str | Path) -> Path:
        """Draws the mean weights as a heat map of gates by experts, and writes it to `path` (png, svg, pdf).

        Gates that weigh the same experts share a panel; an expert that a gate does not see is an empty cell. The name
        of a captured gate is red.
        """
        from mtl_zoo.evaluation._gate_figure import draw_gate_report

        return draw_gate_report(self, path)


def gate_report(
    model: Any, split: Any, *, by: str | None = None, batch_size: int = 4096, verbose: int = 1
) -> GateReport:
    """The mean weight of every expert in every gate of a model, with warnings of gates and experts that went wrong.

    With `g(x)` a gate's weights of n experts and `u = mean over rows of g(x)`:

        entropy     = -sum_i u_i log u_i / log n                     1: all are used evenly, 0: one is used
        row_entropy = mean over rows of -sum_i g_i log g_i / log n   far below `entropy`: rows choose for themselves
        dead        : u_i < 0.1 / n, a tenth of an even share
        captured    : entropy < 0.3, or one u_i > 0.95

    A gate over one expert has no choice: both its entropies are 1, and it is not captured. With a `DSelectK` gate,
    experts without weight are intended. All rows of the split count equally, whatever task a gate serves.

    Args:
        model: A model with gates, trained or not.
        split: A split of a data set, a dict of inputs, or a table (pandas, pyarrow) if the model has a transform.
        by: The name of a column with one value a row, such as a domain or a segment: one of `split.groups`, a feature,
            or a column of the table. Each of its values is reported separately. Ids are shown as the values that they
            stand for, where the vocabulary is known.
        batch_size: The number of rows in a batch.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: If the model has no gates, the split is empty, or `by` is not a column, holds several values a row,
            or has more than 100 different values.

    Example:

    >>> import mtl_zoo
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> model = mtl_zoo.create_model("mmoe", data.features, data.tasks, num_experts=2, expert_units=(8,))
    >>> report = mtl_zoo.gate_report(model, data.test.take(500))
    >>> list(report.gates["gate"])
    ['click_gate', 'conversion_gate']
    >>> round(float(report.table["weight"].sum()), 4)
    2.0

    Reference: gates that settle on few experts are reported by Zhao et al., RecSys 2019, doi:10.1145/3298689.3346997;
    the measures and thresholds here are ours.
    """
    return report_of_reader(GateReader(model), split, by=by, batch_size=batch_size, verbose=verbose)


def report_of_reader(
    reader: GateReader, split: Any, *, by: str | None = None, batch_size: int = 4096, verbose: int = 0
) -> GateReport:
    """`gate_report` with a given reader, so that its graph is traced once for many reports."""
    check.check_int("batch_size", batch_size)
    inputs, columns = _inputs_and_columns(reader.model, split, verbose)
    rows = len(next(iter(inputs.values()), ()))
    if rows == 0:
        raise ValueError("`split` must have at least one row. Received: an empty split")
    codes, values = _segments(columns, by, rows)
    sums = reader.read(inputs, codes, len(values), batch_size, verbose)
    table, similarity = _table(reader, sums, values, by), _similarity(reader, sums, values, by)
    return GateReport(table, similarity, by, _panels(reader))


def _inputs_and_columns(model: Any, split: Any, verbose: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The model's inputs, and the columns that rows may be grouped by."""
    if is_table(split):
        inputs, _, _ = encode_table(model, split, verbose)
        return inputs, {name: np.asarray(split[name]) for name in getattr(split, "column_names", split.columns)}
    inputs = split if isinstance(split, Mapping) else split.inputs
    missing = [name for name in required_inputs(model) if name not in inputs]
    if missing:
        raise ValueError(f"`split` must hold every feature of the model. Missing: {missing}")
    arrays = {name: np.asarray(inputs[name]) for name in model.input if name in inputs}
    ids = {f.name: decoded(model, f, arrays[f.name]) for f in model.features if f.name in arrays}
    return with_unknown(model, arrays, training=False), {**ids, **getattr(split, "groups", {})}


def decoded(model: Any, feature: Any, ids: Any) -> Any:
    """A feature's ids as the values that they stand for, where these are known."""
    values = feature.values(None) if model.transform is None else model.transform.values_of(feature.name)
    if values is None or np.ndim(ids) != 1:
        return ids
    names = np.array(["(missing)", "(unknown)", *values], dtype=object)
    ids = np.asarray(ids)
    return names[np.where((ids >= 0) & (ids < len(names)), ids, UNKNOWN_ID)]


def _segments(columns: Mapping[str, Any], by: str | None, rows: int) -> tuple[np.ndarray, list[Any]]:
    """A code for each row, and the value that each code stands for."""
    if by is None:
        return np.zeros(rows, "int64"), [_ALL]
    column = np.asarray(columns[check.check_choice("by", by, tuple(columns))])
    if column.ndim != 1:
        raise ValueError(f"`by` must name a column with one value a row. Received: by={by!r}, shape {column.shape}")
    codes, segments = pd.factorize(column, use_na_sentinel=False)
    if len(segments) > _MOST_VALUES:
        raise ValueError(
            f"`by` must name a column with at most {_MOST_VALUES} different values. "
            f"Received: by={by!r}, which has {len(segments):,}"
        )
    values = list(segments)
    try:
        order = sorted(range(len(values)), key=lambda i: values[i])
    except TypeError:
        order = sorted(range(len(values)), key=lambda i: str(values[i]))
    return np.argsort(order)[codes], [values[i] for i in order]


def _table(reader: GateReader, sums: Any, values: Sequence[Any], by: str | None) -> pd.DataFrame:
    rows = []
    for gate in reader.gates.values():
        n = gate.num_experts
        for segment, value in enumerate(values):
            count = sums.rows[segment]
            mean = sums.weights[gate.name][segment] / count
            entropy = float(normalized_entropy(mean))
            row = {"gate": gate.name} | ({} if by is None else {by: value}) | {"rows": int(count)}
            whole = {
                "entropy": entropy,
                "row_entropy": float(sums.entropy[gate.name][segment] / count),
                "captured": bool(n > 1 and (entropy < CAPTURED_ENTROPY or mean.max() > CAPTURED_WEIGHT)),
            }
            for expert, weight in zip(gate.expert_names, mean, strict=True):
                rows.append(
                    {**row, "expert": expert, "weight": float(weight), "dead": bool(weight < DEAD / n), **whole}
                )
    return pd.DataFrame(rows)


def _similarity(reader: GateReader, sums: Any, values: Sequence[Any], by: str | None) -> pd.DataFrame:
    keys = [] if by is None else [by]
    rows = []
    for (first, second), (at, other) in reader.pairs.items():
        for segment, value in enumerate(values):
            u, v = sums.weights[first][segment], sums.weights[second][segment]
            # Over all experts of both gates: an expert that only one of them weighs has a weight of 0 in the other.
            cosine = float(u[at] @ v[other] / (np.linalg.norm(u) * np.linalg.norm(v)))
            overlap = float(sums.overlap[first, second][segment] / sums.rows[segment])
            row = {"gate": first, "other": second} | dict.fromkeys(keys, value)
            rows.append({**row, "experts": len(at), "cosine": cosine, "overlap": overlap})
    return pd.DataFrame(rows, columns=["gate", "other", *keys, "experts", "cosine", "overlap"])


def _panels(reader: GateReader) -> tuple[tuple[tuple[str, ...], dict[str, tuple[int, ...]]], ...]:
    """Groups gates that share experts, and gives the positions of each gate's experts among those of its group."""
    panels: list[list[str]] = []
    for gate in reader.gates:
        linked = [p for p in panels if any(set(reader.experts[gate]) & set(reader.experts[other]) for other in p)]
        panels = [p for p in panels if p not in linked] + [[other for p in linked for other in p] + [gate]]
    order = list(reader.gates)
    result = []
    for panel in sorted(panels, key=lambda panel: min(map(order.index, panel))):
        # The gate with the most experts gives their order.
        columns: dict[Any, str] = {}
        for gate in sorted(panel, key=lambda gate: -len(reader.experts[gate])):
            for expert, name in zip(reader.experts[gate], reader.gates[gate].expert_names, strict=True):
                columns.setdefault(expert, name)
        where = {expert: i for i, expert in enumerate(columns)}
        seen = {gate: tuple(where[e] for e in reader.experts[gate]) for gate in sorted(panel, key=order.index)}
        result.append((tuple(columns.values()), seen))
    return tuple(result)
