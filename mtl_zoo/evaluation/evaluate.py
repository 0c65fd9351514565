"""`evaluate(model, split)`: a table of exact metrics by task."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.datasets import Split
from mtl_zoo.datasets.oracle import oracle_auc
from mtl_zoo.evaluation.gain import lift_share
from mtl_zoo.features._several import fills_of
from mtl_zoo.features.generated import refuse_generated
from mtl_zoo.features.sources import ALL, JointSources
from mtl_zoo.heads import Output
from mtl_zoo.heads._base import IMPRESSIONS, observed
from mtl_zoo.heads._funnel import and_then, steps_to
from mtl_zoo.metrics import exact
from mtl_zoo.models._data import checked_stream, encode_table, is_stream, is_table, labels_by_name, require_transform
from mtl_zoo.models._predict import predict_with_bar
from mtl_zoo.tasks import Task

COLUMNS = ("task", "metric", "space", "observed", "value", "note")
_ENDLESS, _UNKNOWN = -1, -2  # how tf.data says how many batches there are


def evaluate(
    model: Any,
    split: Split,
    *,
    group: str | None = None,
    products: bool = False,
    batch_size: int = 4096,
    verbose: int = 1,
) -> pd.DataFrame:
    """Exact metrics of a model on a split: one row for each output, metric and sample space.

    Columns: `task` (the output's name), `metric`, `space`, `observed` (rows that count), `value`, `note`.

    Binary outputs get `auc`, `logloss`, `ne`, `pcoc`, `ece` (15 bins of equal width), `ece_mass` (100 of equal mass),
    `ks`, and at threshold 0.5 `accuracy`, `precision`, `recall`, `f1`; with `group` also `gauc`; where the split knows
    the true probabilities also `oracle_auc`, the expected AUC of those on the rows that count, and `lift_share`.
    Multi-class outputs get `accuracy`, `logloss`, `macro_auc`; regressions `rmse`, `mae`, `nrmse`.

    Rows count where the label is observed and, for a task with a sample space, where that column is 1. The split's
    sample weights weigh them. A metric that those rows do not define is NaN and the note says why.

    "CVR AUC" has three meanings in the literature, and `space` and `note` name the one a row uses:

    (a) the clicked rows, label conversion, score pCVR: `task="conversion", space="click"` (ESMM's CVR);
    (b) all impressions, label click and conversion, score pCTCVR: `task="click_and_conversion",
        space="impressions"` (AITM's "purchase", MTReclib's "CTCVR");
    (c) all impressions, label conversion, score pCVR: `task="conversion", space="impressions"`. Real data have no
        conversion labels without a click, so no row of this kind is made.

    Of `JointSources` there is a further first column, `source`, with the rows of all together (`"all"`), and those of
    each source on the tasks that it has labels of.

    Args:
        model: A compiled or uncompiled model of the zoo.
        split: A split of a data set, a table (pandas, pyarrow) or `JointSources` of tables if the model was made with a
            transform, a `TableStream`, or a finite `tf.data.Dataset` of `(inputs, labels)` or
            `(inputs, labels, weights)`. Of the last two, a batch of inputs is in memory at a time.
        group: Name of a column in `split.groups`, or of the table; adds the AUC within groups (users), weighted by
            their rows.
        products: Also score the steps of a funnel from end to end where the model has no output for that: meaning (b)
            above, with `pCTCVR` the product of the model's own `pCTR` and `pCVR`.
        batch_size: Rows a step of `predict`.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: `group` is not in `split.groups`; the split is empty; the model's scores are not finite.

    Example:

    >>> from mtl_zoo import create_model
    >>> from mtl_zoo.datasets import load_dataset
    >>> from mtl_zoo.evaluation import evaluate
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> model = create_model("mmoe", data.features, data.tasks, num_experts=2, expert_units=(8,))
    >>> table = evaluate(model, data.test.take(500))
    >>> list(table["task"].unique())
    ['click', 'conversion']
    """
    if is_batched(split) and group is not None:
        raise ValueError(
            f"`group` must be None with batches, which hold no such column. Received: group={group!r}. Pass a table or "
            "a split"
        )
    joint, (split, scores) = split, rows_and_scores(model, split, batch_size, verbose)
    if group is not None:
        check.check_choice("group", group, tuple(split.groups))
    table = evaluate_scores(model, split, scores, group=group, products=products)
    if not isinstance(joint, JointSources):
        return table
    tables = {ALL: table}
    for source, rows in rows_by_source(joint, split).items():
        own = {name: values[rows] for name, values in scores.items()}
        found = evaluate_scores(model, split.take_rows(rows), own, group=group, products=products)
        tables[source] = found[found["observed"] > 0]
    return pd.concat(tables, names=["source"]).reset_index("source").reset_index(drop=True)


def rows_by_source(joint: JointSources, split: Split) -> dict[str, np.ndarray]:
    """The rows of each source in the split that `as_split` made of several."""
    of_row = np.asarray(split.groups[joint.column])
    return {name: np.flatnonzero(of_row == name) for name in joint.names}


def is_batched(split: Any) -> bool:
    """Whether rows come batch by batch: a stream of files, or a dataset of batches."""
    return is_stream(split) or hasattr(split, "element_spec")


def rows_and_scores(
    model: Any, split: Any, batch_size: int = 4096, verbose: int = 0
) -> tuple[Split, dict[str, np.ndarray]]:
    """What `evaluate` takes as a split of labels and weights, and the model's scores of all its rows.

    Of batches nothing is kept but labels, weights and scores: 4 bytes for each of them and row.
    """
    check.check_int("batch_size", batch_size)
    if is_batched(split):
        return _scores_of_batches(model, split, batch_size, verbose)
    split = as_split(model, split, verbose)
    return split, predict_with_bar(model, split.inputs, len(split), batch_size, verbose)


def _scores_of_batches(model: Any, data: Any, batch_size: int, verbose: int) -> tuple[Split, dict[str, np.ndarray]]:
    """A split of the labels and weights of all rows, and their scores."""
    found: list[tuple[Any, ...]] = []
    stream = is_stream(data)
    if not stream and int(getattr(data, "cardinality", lambda: _UNKNOWN)()) == _ENDLESS:
        raise ValueError("`split` must end. Received: a dataset that repeats without end. Write dataset.take(batches)")
    with Bar("Scoring rows", getattr(data, "rows", None) if stream else None, verbose) as bar:
        for batch in checked_stream(model, data, "split").batches(batch_size) if stream else data:
            arrays = keras.tree.map_structure(lambda part: None if part is None else np.asarray(part), batch)
            x, y, weights = keras.utils.unpack_x_y_sample_weight(arrays)
            refuse_generated("split", y)
            if y is None:
                raise ValueError("`split` must give labels with its inputs. Received: batches of inputs alone")
            scores = model.predict(x, batch_size=batch_size, verbose=0)
            found.append((scores, labels_by_name(model, y), weights))
            bar.advance(len(next(iter(scores.values()))))
    if not found:
        raise ValueError("`split` must have at least one row. Received: no batch")
    scores, labels, weights = keras.tree.map_structure(lambda *parts: _joined(parts), *found)
    rows = {"row": np.arange(len(next(iter(labels.values()))))}
    return Split(rows, dict(labels), weights), scores


def _joined(parts: Sequence[Any]) -> Any:
    return None if parts[0] is None else np.concatenate(parts)


def as_split(model: Any, split: Any, verbose: int = 1) -> Split:
    """A split as it is, or a table encoded as the model reads it.

    Raises:
        ValueError: There is no row; a table, and the model has no transform; something else.
    """
    check_split(split)
    if isinstance(split, JointSources):
        return _joint_split(model, split, verbose)
    if not is_table(split):
        refuse_generated("split", getattr(split, "labels", None))
        return split
    refuse_generated("split", split)
    inputs, labels, weights = encode_table(model, split, verbose)
    groups = {name: np.asarray(split[name]) for name in getattr(split, "column_names", split.columns)}
    return Split(inputs, labels, weights, groups)


def check_split(split: Any) -> None:
    """Refuses what holds no rows."""
    if not (hasattr(split, "inputs") or isinstance(split, JointSources) or is_table(split)):
        raise ValueError(f"`split` must be a split, or a table, of rows with labels. Received: {type(split).__name__}")
    if len(split) == 0:
        raise ValueError("`split` must have at least one row. Received: an empty split")


def _joint_split(model: Any, joint: JointSources, verbose: int) -> Split:
    """All rows, with the labels that `fit` would read of each source."""
    fills = fills_of((), model.labelled_tasks, require_transform(model).sample_weight)
    split, tasks = as_split(model, joint.table(fills), verbose), joint.tasks_by_source(model.labelled_tasks)
    for source, rows in rows_by_source(joint, split).items():
        for task in model.labelled_tasks:
            if task.name not in tasks[source]:
                split.labels[task.name][rows] = np.nan
    return split


def evaluate_scores(
    model: Any,
    split: Split,
    scores: Mapping[str, np.ndarray],
    *,
    group: str | None = None,
    products: bool = False,
    only: Collection[str] | None = None,
) -> pd.DataFrame:
    """`evaluate` with the scores in hand: what `model.predict(split.inputs)` gave.

    Args:
        model, split, group, products: As in `evaluate`.
        scores: Scores by output name.
        only: Metrics to compute. Default: all.

    Example:

    >>> from mtl_zoo import create_model
    >>> from mtl_zoo.datasets import load_dataset
    >>> from mtl_zoo.evaluation import evaluate_scores
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> model = create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> split = data.test.take(500)
    >>> scores = model.predict(split.inputs, verbose=0)
    >>> sorted(set(evaluate_scores(model, split, scores, only=["auc"])["metric"]))
    ['auc']
    """
    outputs, scores, targets = list(model.outputs_info), dict(scores), dict(model.targets(split.labels))
    if products:
        for output, score, target in _products(model.tasks, split.labels, scores):
            outputs.append(output)
            scores[output.name], targets[output.name] = score, target
    rows: list[tuple[Any, ...]] = []
    for output in outputs:
        label, mask = (keras.ops.convert_to_numpy(part).reshape(len(split)) for part in targets[output.name])
        score = np.asarray(scores[output.name])
        if not np.isfinite(score).all():
            raise ValueError(
                "`model` must predict finite scores. "
                f"Received: {int((~np.isfinite(score)).sum())} NaN or infinite for {output.name!r}"
            )
        score = score if output.task.units > 1 else score.reshape(len(split))
        note, counts = _funnel_note(output), mask > 0
        for metric, value, why in _measured(split, output, label, score, counts, group, only):
            # Groups are always told of, the other reasons only where there is no value.
            said = why if np.isnan(value) or metric == "gauc" else ""
            text = "; ".join(filter(None, (note, said)))
            rows.append((output.name, metric, output.space, int(counts.sum()), float(value), text))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measured(
    split: Split,
    output: Output,
    label: np.ndarray,
    score: np.ndarray,
    counts: np.ndarray,
    group: str | None,
    only: Collection[str] | None,
) -> Iterator[tuple[str, float, str]]:
    """(metric, value, what there is to say of it) for one output, on the rows that count."""
    weight = weights_of(split, output)
    weight = None if weight is None else weight[counts]
    label, score = label[counts], score[counts]
    yield from _values(output.task, label, score, weight, only)
    if not output.task.is_event or only is not None:
        return
    if group is not None:
        found = exact.gauc(label, score, np.asarray(split.groups[group])[counts], weight)
        said = [f"by {group}: {found.kept} of {found.groups} groups have both classes"]
        said += [f"{found.without} rows have no group"] if found.without else []
        said += ["no group has both classes"] if np.isnan(found.value) else []
        yield "gauc", found.value, "; ".join(said)
    if output.name in split.truth and len(label):
        best = oracle_auc(np.asarray(split.truth[output.name], dtype="float64").reshape(len(split))[counts], weight)
        yield "oracle_auc", best, ""
        yield "lift_share", lift_share(exact.auc(label, score, weight), best), "one class only"


def _products(
    tasks: Sequence[Task], labels: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
) -> Iterator[tuple[Output, Any, Any]]:
    """(output, scores, targets) of the steps of funnels that have scores of their own and none from end to end."""
    for task in tasks:
        first, *later = steps = steps_to(tasks, task)
        name = f"{first.name}_and_{task.name}"
        if not later or name in {*scores, *(other.name for other in tasks)} or not {s.name for s in steps} <= {*scores}:
            continue
        target, score = observed(first, labels), np.asarray(scores[first.name], "float64")
        for step in later:
            target, score = and_then(target, observed(step, labels)), score * scores[step.name]
        yield Output(name, task, first.sample_space or IMPRESSIONS), score, target


def _values(
    task: Task, label: np.ndarray, score: np.ndarray, weight: np.ndarray | None, only: Collection[str] | None
) -> Iterator[tuple[str, float, str]]:
    """(metric, value, why it is NaN) for one output's rows."""
    one_class = np.unique(label if weight is None else label[weight > 0]).size < 2
    for name, metric in task.exact_metrics().items():
        if only is not None and name not in only:
            continue
        if label.size == 0:
            yield name, float("nan"), "no observed rows"
            continue
        why = metric.undefined
        if one_class and metric.needs_both_classes:
            why = f"one class only: every label is {label[0]:g}"
        yield name, metric.function(label, score, weight), why


def weights_of(split: Split, output: Any) -> np.ndarray | None:
    """The split's weights of an output's rows, if it has any."""
    weights = split.weights
    if isinstance(weights, Mapping):
        weights = weights.get(output.task.name)
    return None if weights is None else np.asarray(weights, dtype="float64").reshape(len(split))


def _funnel_note(output: Any) -> str:
    if output.space != IMPRESSIONS:
        return f"{output.name}|{output.space}: rows where {output.space} is 1"
    return f"{output.name} on impressions" if output.name != output.task.name else ""


def scoreboard(table: pd.DataFrame, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
    """The table of `evaluate` with one row for each task and space, and one column a metric.

    Args:
        table: What `evaluate` returned.
        metrics: The columns to keep, in order. Default: all.

    Raises:
        ValueError: A metric is not in the table.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.evaluation import scoreboard
    >>> long = pd.DataFrame({"task": ["click", "click"], "metric": ["auc", "ne"], "space": "impressions",
    ...                      "observed": 100, "value": [0.75, 0.875], "note": ""})
    >>> scoreboard(long).to_dict("records")
    [{'auc': 0.75, 'ne': 0.875}]
    """
    known = tuple(dict.fromkeys(table["metric"]))
    for metric in metrics or ():
        check.check_choice("metrics", metric, known)
    keys = ["task", "space", "observed"]
    order = list(dict.fromkeys(table[keys].itertuples(index=False, name=None)))
    wide = table.pivot(index=keys, columns="metric", values="value")
    wide.columns.name = None
    return wide.reindex(index=pd.MultiIndex.from_tuples(order, names=keys), columns=list(metrics or known))
