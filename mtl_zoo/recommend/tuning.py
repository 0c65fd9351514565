"""The search for a fusion's parameters on validation data, and what the one that is chosen gains on test data."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.evaluation.significance import Interval, bootstrap_interval
from mtl_zoo.recommend.fusion import Fusion, WeightedSum
from mtl_zoo.recommend.fusion._base import FUSIONS, Suggest, checked_numbers, column

METRICS = ("value", "ndcg")


@dataclasses.dataclass(frozen=True)
class ScoredLists:
    """Lists of candidates with the scores of all tasks, and what each candidate is worth.

    Args:
        scores: Finite scores by task, of shape (rows,).
        labels: What counts, by name: labels >= 0 or, where they are known, true probabilities; of shape (rows,).
        groups: The list (user, session) of each row.

    Raises:
        ValueError: Columns differ in length, or are not finite; labels are negative.

    Example:

    >>> from mtl_zoo.recommend import ScoredLists, WeightedSum
    >>> lists = ScoredLists({"click": [0.3, 0.1, 0.2]}, {"bought": [0, 1, 0]}, ["ann", "ann", "bob"])
    >>> lists.values(WeightedSum({"click": 1}), "bought", k=1).tolist()
    [0.0, 0.0]
    """

    scores: Mapping[str, Any]
    labels: Mapping[str, Any]
    groups: Any

    def __post_init__(self) -> None:
        for name in ("scores", "labels"):
            object.__setattr__(self, name, {key: column(values) for key, values in getattr(self, name).items()})
        object.__setattr__(self, "groups", np.asarray(self.groups).reshape(-1))
        columns = {**self.scores, **self.labels}
        lengths = {name: values.shape for name, values in columns.items()}
        if not self.scores or not self.labels or set(lengths.values()) != {self.groups.shape} or not len(self.groups):
            raise ValueError(
                "`scores`, `labels` and `groups` must have one number of rows. "
                f"Received: {lengths} and {self.groups.shape}"
            )
        for name, values in columns.items():
            if not np.isfinite(values).all() or (name in self.labels and (self.labels[name] < 0).any()):
                raise ValueError(f"`labels` must be >= 0, and scores finite too. Received: others in {name!r}")

    @functools.cached_property
    def _codes(self) -> np.ndarray:
        """The number of each row's list, in the order in which lists first come."""
        return pd.factorize(self.groups)[0]

    def values(self, fusion: Fusion, label: str, *, k: int = 10, metric: str = "value") -> np.ndarray:
        """A value for each list, in the order in which lists first come, if `fusion` orders them.

        `"value"`: the sum of the label among the first k. `"ndcg"`: their DCG with the label as linear gain, over that
        of the best order; 0 where the list has nothing. Equal scores stay in the order of the rows.
        """
        check.check_choice("label", label, tuple(self.labels))
        check.check_choice("metric", metric, METRICS)
        k = check.check_int("k", k)
        amounts = self._sum_of_first(fusion(self.scores, self.groups), label, k, metric)
        if metric == "value":
            return amounts
        best = self._sum_of_first(self.labels[label], label, k, metric)
        return np.divide(amounts, best, out=np.zeros_like(amounts), where=best > 0)

    def _sum_of_first(self, score: np.ndarray, label: str, k: int, metric: str) -> np.ndarray:
        codes = self._codes
        order = np.lexsort((-score, codes))
        sizes = np.bincount(codes)
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = place < k
        rows, amounts = order[first], self.labels[label][order[first]]
        if metric == "ndcg":
            amounts = amounts / np.log2(place[first] + 2)
        return np.bincount(codes[rows], weights=amounts, minlength=len(sizes))

    def is_same(self, other: ScoredLists) -> bool:
        """Whether other has the same rows, be it the same object or a copy."""
        columns = ({**lists.scores, **lists.labels} for lists in (self, other))
        mine, others = columns
        return mine.keys() == others.keys() and all(np.array_equal(mine[name], others[name]) for name in mine)


# What a fusion is judged by: lists, or a function from a fusion to values by label, one for each user.
Judge = ScoredLists | Callable[[Fusion], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TunedFusion:
    """What `tune_fusion` found.

    Args:
        fusion: The chosen one.
        parameters: What was drawn for it.
        trials: One row a trial: `trial`, its parameters, the mean of each label's metric on validation, `feasible`
            (no floor missed) and `front` (no other feasible trial is as good in all labels and better in one).
        objective: The label that was maximised.
        baseline: The best single task's order on validation, as a fusion.
        test: By label: `fusion`, `baseline` and `gain` (their difference) on the test lists, with `low` and `high` of
            the gain, from a paired bootstrap of lists. None without test data.
        sampler: `"optuna"` or `"random"`: what proposed the trials.

    Example:

    >>> from mtl_zoo.recommend import ScoredLists, tune_fusion
    >>> lists = ScoredLists({"a": [1, 2, 3, 4], "b": [4, 1, 3, 2]}, {"y": [1, 0, 0, 0]}, [1, 1, 2, 2])
    >>> found = tune_fusion("borda", lists, objective="y", k=1, trials=8, sampler="random")
    >>> found.baseline, found.parameters["weight_b"] > found.parameters["weight_a"]
    (WeightedSum(floors={}, weights={'b': 1.0}), True)
    """

    fusion: Fusion
    parameters: Mapping[str, float]
    trials: pd.DataFrame
    objective: str
    baseline: Fusion
    test: pd.DataFrame | None
    sampler: str

    @property
    def front(self) -> pd.DataFrame:
        """The trials of the Pareto front, best objective first."""
        return self.trials[self.trials["front"]].sort_values(self.objective, ascending=False)

    @property
    def gain(self) -> Interval:
        """The gain of the objective on the test lists, with its interval.

        Raises:
            ValueError: There was no test data.
        """
        if self.test is None:
            raise ValueError("`test` must be given to `tune_fusion` for a gain. Received: None")
        gain, low, high = self.test.loc[[self.objective], ["gain", "low", "high"]].to_numpy()[0]
        return Interval(float(gain), float(low), float(high))


def tune_fusion(
    fusion: str | Callable[[Suggest], Fusion],
    validation: Judge,
    *,
    objective: str,
    test: Judge | None = None,
    tasks: Sequence[str] | None = None,
    floors: Mapping[str, float] | None = None,
    k: int = 10,
    metric: str = "value",
    trials: int = 100,
    sampler: str = "auto",
    resamples: int = 2000,
    seed: int = 0,
    verbose: int = 1,
) -> TunedFusion:
    """Chooses a fusion's parameters by what its order is worth on validation lists.

    Maximises the mean over lists of `metric@k` of the label `objective`, among the trials that reach all `floors`. Each
    single task's order is a baseline; the best of them on validation is what the gain is measured against, on the test
    lists, which the search never sees: they are read once, after the choice.

    Args:
        fusion: A kind that can be searched (`"weighted_sum"`, `"powers"`, `"reciprocal_rank"`, `"borda"`), or a
            function that makes a fusion from `suggest(name, low, high, log=False)`, which draws one number.
        validation: `ScoredLists`; or a function from a fusion to values by label, one for each user, such as one that
            runs a recommender with it.
        objective: The label to maximise.
        test: As `validation`, of other rows. Default: none, and no gain is computed.
        tasks: The tasks to fuse. Default: all that the lists have scores of.
        floors: Smallest means on validation by label, such as `{"click": 0.8}`: what must not be given up.
        k: Length of the lists that count.
        metric: `"value"`, the sum of the label among the first k, or `"ndcg"`; for `ScoredLists`.
        trials: How many are tried.
        sampler: `"optuna"` (its tree-structured Parzen estimator; `pip install "mtl-zoo[tune]"`), `"random"`, or
            `"auto"`: the first where it is installed.
        resamples: Of the bootstrap.
        seed: Of the trials.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Returns:
        A `TunedFusion`.

    Raises:
        ValueError: `test` is `validation`, or has the same rows; no trial reaches the floors; a label or kind is not
            known; Optuna is asked for and not installed; a function is given without `tasks`.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.recommend import ScoredLists, tune_fusion
    >>> def lists(seed):
    ...     click, buy = np.random.default_rng(seed).beta(1, 9, (2, 2000))
    ...     return ScoredLists({"click": click, "buy": buy}, {"bought": click * buy}, np.arange(2000) // 50)
    >>> found = tune_fusion("powers", lists(0), objective="bought", test=lists(1), trials=20, sampler="random")
    >>> found.gain.low > 0
    True

    Reference: Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012; Akiba et al., Optuna,
    KDD 2019, https://arxiv.org/abs/1907.10902
    """
    trials, k = check.check_int("trials", trials), check.check_int("k", k)
    check.check_choice("metric", metric, METRICS)
    check.check_choice("sampler", sampler, ("auto", "optuna", "random"))
    least = checked_numbers("floors", floors or {}, allow_empty=True)
    _refuse_same(validation, test)
    names = _tasks(validation, tasks)
    make, judge = _maker(fusion, validation, names), _Judge(validation, k, metric)
    singles = [WeightedSum({name: 1.0}) for name in names]
    baselines = [judge.means(single) for single in singles]
    for label in (objective, *least):
        check.check_choice("objective" if label == objective else "floors", label, tuple(baselines[0]))
    with Bar("Trials", trials, verbose) as bar:

        def counted(suggest: Suggest) -> Fusion:
            bar.advance()
            return make(suggest)

        found, by = _search(counted, judge, trials, sampler, seed, objective, least)
    table = _trial_table(found, objective, least)
    if not table["feasible"].any():
        best = {label: round(float(table[label].max()), 6) for label in least}
        raise ValueError(f"`floors` must be within reach. Received: {least}, and the most of any trial is {best}")
    chosen = int(table.loc[table["feasible"], objective].idxmax())
    baseline = singles[int(np.argmax([means[objective] for means in baselines]))]
    gains = None if test is None else _gains(_Judge(test, k, metric), found[chosen].fusion, baseline, resamples, seed)
    return TunedFusion(found[chosen].fusion, found[chosen].parameters, table, objective, baseline, gains, by)


def _refuse_same(validation: Judge, test: Judge | None) -> None:
    both = isinstance(validation, ScoredLists) and isinstance(test, ScoredLists)
    if test is validation or (both and validation.is_same(test)):  # type: ignore[union-attr,arg-type]
        raise ValueError("`test` must be other rows than `validation`, which chooses. Received: the same")


def _tasks(validation: Judge, tasks: Sequence[str] | None) -> tuple[str, ...]:
    known = tuple(validation.scores) if isinstance(validation, ScoredLists) else None
    if known is None and not tasks:
        raise ValueError("`tasks` must be given where `validation` is a function. Received: None")
    for name in tasks or ():
        if known is not None:
            check.check_choice("tasks", name, known)
    return tuple(tasks or known or ())


def _maker(fusion: Any, validation: Judge, tasks: tuple[str, ...]) -> Callable[[Suggest], Fusion]:
    if callable(fusion):
        return fusion
    kind = FUSIONS[fusion]
    scores = validation.scores if isinstance(validation, ScoredLists) else {}
    typical = {name: float(np.mean(scores[name])) if name in scores else 1.0 for name in tasks}
    return lambda suggest: kind.suggested(suggest, typical)


class _Judge:
    """Values and means of a fusion by label."""

    def __init__(self, data: Judge, k: int, metric: str):
        self.data, self.k, self.metric = data, k, metric

    def values(self, fusion: Fusion) -> dict[str, np.ndarray]:
        if isinstance(self.data, ScoredLists):
            labels = self.data.labels
            return {label: self.data.values(fusion, label, k=self.k, metric=self.metric) for label in labels}
        return {label: np.asarray(values, "float64").reshape(-1) for label, values in self.data(fusion).items()}

    def means(self, fusion: Fusion) -> dict[str, float]:
        means = {label: float(values.mean()) for label, values in self.values(fusion).items()}
        if not np.isfinite(list(means.values())).all():
            raise ValueError(f"`validation` must give finite values. Received: {means} for {fusion!r}")
        return means


@dataclasses.dataclass
class _Trial:
    parameters: dict[str, float]
    fusion: Fusion
    means: dict[str, float]


def _search(
    make: Callable[[Suggest], Fusion],
    judge: _Judge,
    trials: int,
    sampler: str,
    seed: int,
    objective: str,
    floors: Mapping[str, float],
) -> tuple[list[_Trial], str]:
    """All trials, and what proposed them."""
    installed = importlib.util.find_spec("optuna") is not None
    if sampler == "optuna" and not installed:
        raise ValueError(
            '`sampler` must be "random" where Optuna is not installed (`pip install "mtl-zoo[tune]"`). '
            f"Received: sampler={sampler!r}"
        )
    if sampler == "random" or not installed:
        rng = np.random.default_rng(seed)
        return [_tried(make, judge, _drawing(rng)) for _ in range(trials)], "random"
    return _asked_of_optuna(make, judge, trials, seed, objective, floors), "optuna"


def _asked_of_optuna(
    make: Callable[[Suggest], Fusion],
    judge: _Judge,
    trials: int,
    seed: int,
    objective: str,
    floors: Mapping[str, float],
) -> list[_Trial]:
    import optuna

    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study on the terminal
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(said)
    found = []
    for _ in range(trials):
        trial = study.ask()

        def suggest(name: str, low: float, high: float, log: bool = False, trial: Any = trial) -> float:
            return float(trial.suggest_float(name, low, high, log=log))

        tried = _tried(make, judge, suggest)
        # What misses a floor is told as worse than anything that does not, by how far it is off.
        missed = sum(max(least - tried.means[label], 0.0) for label, least in floors.items())
        study.tell(trial, -missed if missed else tried.means[objective])
        found.append(tried)
    return found


def _drawing(rng: np.random.Generator) -> Suggest:
    def suggest(name: str, low: float, high: float, log: bool = False) -> float:
        if log:
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return float(rng.uniform(low, high))

    return suggest


def _tried(make: Callable[[Suggest], Fusion], judge: _Judge, suggest: Suggest) -> _Trial:
    parameters: dict[str, float] = {}

    def noting(name: str, low: float, high: float, log: bool = False) -> float:
        if name not in parameters:
            parameters[name] = suggest(name, low, high, log=log)
        return parameters[name]

    fusion = make(noting)
    return _Trial(parameters, fusion, judge.means(fusion))


def _trial_table(found: list[_Trial], objective: str, floors: Mapping[str, float]) -> pd.DataFrame:
    table = pd.DataFrame([{"trial": i, **trial.parameters, **trial.means} for i, trial in enumerate(found)])
    feasible = np.ones(len(table), bool)
    for label, least in floors.items():
        feasible &= table[label].to_numpy() >= least
    values = np.array([list(trial.means.values()) for trial in found])
    return table.assign(feasible=feasible, front=feasible & _is_on_front(np.where(feasible[:, None], values, -np.inf)))


def _is_on_front(values: np.ndarray) -> np.ndarray:
    """Rows that no other row is as good as in all columns and better than in one."""
    as_good = (values[:, None] >= values[None]).all(axis=2)
    better = (values[:, None] > values[None]).any(axis=2)
    return np.asarray(~(as_good & better).any(axis=0))


def _gains(judge: _Judge, fusion: Fusion, baseline: Fusion, resamples: int, seed: int) -> pd.DataFrame:
    after, before = judge.values(fusion), judge.values(baseline)
    rows = {}
    for label in after:
        gap = bootstrap_interval(np.mean, after[label] - before[label], resamples=resamples, seed=seed)
        means = (float(after[label].mean()), float(before[label].mean()))
        rows[label] = (*means, gap.value, gap.low, gap.high)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["fusion", "baseline", "gain", "low", "high"])
