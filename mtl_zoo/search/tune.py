"""`tune(model, data)`: a search over hyperparameters that is judged on the validation rows."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import as_json, resolve_hyperparameters
from mtl_zoo.benchmark.progress import Silent
from mtl_zoo.benchmark.runner import fit_run, with_fraction
from mtl_zoo.datasets import Dataset, Split
from mtl_zoo.evaluation import evaluate_scores
from mtl_zoo.features.generated import refuse_generated
from mtl_zoo.models import list_models
from mtl_zoo.models._fingerprint import rows_digest
from mtl_zoo.search.objectives import Objective, metrics_of, objectives_of
from mtl_zoo.search.progress import Told
from mtl_zoo.search.result import Tuned
from mtl_zoo.search.settings import EMBEDDING_DIM, configured, space_of, start_values, with_width
from mtl_zoo.search.storage import Workers, ask, begin, counts, import_optuna, open_study, path_of, quiet

SAMPLERS = ("auto", "tpe", "nsga2", "random")
# A search whose trials all fail is wrong, and not unlucky.
_MOST_FAILURES = 3


def tune(
    model: str | RunConfig | Callable[..., Any],
    data: Any,
    space: Mapping[str, Any] | None = None,
    *,
    objectives: str | Sequence[str] = "score",
    trials: int | None = None,
    minutes: float | None = None,
    storage: Any = None,
    seed: int = 0,
    fixed: str | Sequence[str] = (),
    sampler: str = "auto",
    prune: bool = True,
    verbose: int = 1,
    **settings: Any,
) -> Tuned:
    """Searches hyperparameters with Optuna; trials are judged on the validation rows, and no test row is read.

    Trial 0 is where the search starts: the defaults, or what a `RunConfig` gives. So the best trial is at least as good
    on the validation rows. What it is worth on others only others can tell: the best of many trials is partly the
    luckiest, and the more trials, the more so.

    With one objective trials are proposed by a tree-structured Parzen estimator, and stopped after an epoch that is
    worse than the median of the other trials then. With several, NSGA-II looks for the front: the trials of which none
    is better in one objective without being worse in another.

    With a `storage` every trial is kept the moment it ends. The same call goes on after a kill, and begins anew what
    was being trained then; called in several processes at once, it shares the trials among them.

    Args:
        model: A name of `list_models()`; a `RunConfig`, whose values are the start; or a function that makes an
            uncompiled model from features, tasks and keywords.
        data: A `Dataset`, whose test split is left out; or `(transform, train, validation)`, a fitted
            `FeatureTransform` and two tables.
        space: What is tried, by name: arguments of the model (`"num_experts"`, or `"gate.temperature"` for a part of
            one), of the run (`"learning_rate"`, `"batch_size"`, `"optimizer"`, `"loss_weights.<task>"`),
            `"embedding_dim"` and `"dropout"`. Values are an `IntRange`, a `FloatRange`, a `Choice`, or as YAML says
            them: a list, `{"low": 1, "high": 8}`. Default: `default_space(model)`.
        objectives: `"score"`, the mean over tasks of AUC, accuracy or 1 - NRMSE; a task, by its own of these;
            `"<output>/<metric>"`, such as `"click/logloss"`; `"parameters"`, of which fewer are better; or several.
        trials: How many trials the storage shall hold, pruned ones included. None: as many as `minutes` allow.
        minutes: After so many no trial is begun. None: no limit. One of the two is needed.
        storage: A file (`.db` for SQLite; `.log` for a journal, where file locks of SQLite fail), a URL or a storage of
            Optuna. None: in memory.
        seed: Draws the proposals, and the weights and the order of rows of every trial.
        fixed: Names of the space that are not searched.
        sampler: `"tpe"`, `"nsga2"`, `"random"`, or `"auto"`: the first with one objective, else the second.
        prune: Whether a trial may be stopped early; with one objective only.
        verbose: 0: nothing is shown. 1: a line for each trial and, on a terminal, a bar.
        **settings: Arguments of `RunConfig`, such as `epochs`, `patience`, `batch_size`, where `model` is none.

    Returns:
        A `Tuned`: the best settings, all trials, the front, what mattered.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: No budget; a name, model or objective that is not known; another search in the storage; the first
            trials all fail.

    Example:

    >>> import mtl_zoo
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    >>> space = {"bottom_units": [(4,), (8,)], "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    >>> found = mtl_zoo.tune("shared_bottom", data, space, trials=2, epochs=1, batch_size=1000, verbose=0)
    >>> sorted(found.settings), len(found.table)
    (['bottom_units', 'learning_rate'], 2)

    Reference: Akiba et al., Optuna, KDD 2019, https://arxiv.org/abs/1907.10902; Bergstra et al., Algorithms for
    Hyper-Parameter Optimization, NeurIPS 2011; Deb et al., NSGA-II, IEEE Transactions on Evolutionary Computation 6,
    2002.
    """
    optuna = import_optuna()
    budget = _Budget(trials, minutes)
    check.check_choice("sampler", sampler, SAMPLERS)
    dataset = _rows_of(data)
    config, build = _start(model, dataset, settings)
    dataset = dataclasses.replace(with_fraction(config, dataset), test=None)  # type: ignore[arg-type]
    wanted = objectives_of(objectives, dataset.tasks)
    domains = space_of(config, dataset, space, (fixed,) if isinstance(fixed, str) else fixed, build is None)
    trainer = _Trainer(config, dataset, wanted, domains, build, seed, prune and len(wanted) == 1)
    told = Told(verbose, budget.trials, wanted)
    with quiet(optuna), Workers(path_of(storage)) as workers, told:
        study = open_study(
            optuna,
            storage,
            workers,
            f"{dataset.name} {config.model}",
            [objective.direction for objective in wanted],
            trainer.identity,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
            if trainer.prune
            else optuna.pruners.NopPruner(),
        )
        study.sampler = _sampler(optuna, sampler, study, workers, budget.trials, len(wanted), seed)
        begin(study, optuna, workers, trainer.start)
        while not budget.is_spent(study, optuna, workers):
            _one(study, optuna, workers, trainer, told)
            _stop_if_all_fail(study, optuna, workers)
        importances = Tuned.importances_of(study, optuna, [objective.name for objective in wanted])
    return Tuned(config, wanted, domains, study, importances, build)


class _Budget:
    """How long a search goes on."""

    def __init__(self, trials: int | None, minutes: float | None):
        if trials is None and minutes is None:
            raise ValueError("`trials` or `minutes` must be given. Received: neither")
        self.trials = None if trials is None else check.check_int("trials", trials)
        seconds = None if minutes is None else 60 * check.check_number("minutes", minutes, above=0)
        self._until = None if seconds is None else time.monotonic() + seconds

    def is_spent(self, study: Any, optuna: Any, workers: Workers) -> bool:
        if self._until is not None and time.monotonic() >= self._until:
            return True
        done, _, running = counts(study, optuna, workers)
        return self.trials is not None and done + running >= self.trials


def _rows_of(data: Any) -> Dataset:
    """The data set, or one of a transform and two tables."""
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, tuple) or len(data) != 3:
        raise TypeError(
            f"`data` must be a Dataset, or (transform, train, validation). Received: a {type(data).__name__}"
        )
    transform, *tables = data
    refuse_generated("data", tables[1])
    train, validation = (
        Split(transform.encode(table), transform.encode_labels(table), transform.encode_weights(table))
        for table in tables
    )
    rule = "given"
    # What would be the test rows is asked of nothing.
    return Dataset(
        *("table", "given", "", tuple(transform.features), tuple(transform.tasks), train, validation, validation, rule),
        transform=transform,
    )


def _start(model: Any, dataset: Dataset, settings: Mapping[str, Any]) -> tuple[RunConfig, Callable[..., Any] | None]:
    """Where the search starts, and how a model of the user's own is made."""
    if isinstance(model, RunConfig):
        if settings:
            raise ValueError(f"`settings` must be in the RunConfig where there is one. Received: {sorted(settings)}")
        return model, None
    given = {"dataset_options": {n: v for n, v in dataset.options.items() if _is_plain(v)}, **settings}
    if callable(model):
        name = check.suggest_name(getattr(model, "__name__", "own")) or "own"
        return RunConfig(dataset.name, name, **given), model
    check.check_choice("model", model, list_models())
    config = RunConfig(dataset.name, model, **given)
    resolve_hyperparameters(model, config.hyperparameters)
    return config, None


def _is_plain(value: Any) -> bool:
    """Whether YAML can say it."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _sampler(
    optuna: Any, name: str, study: Any, workers: Workers, trials: int | None, objectives: int, seed: int
) -> Any:
    # Proposals after a kill, or of a second process, must not repeat the first ones.
    drawn = np.random.SeedSequence([seed, len(study.get_trials(deepcopy=False)), len(workers.others())])
    number = int(drawn.generate_state(1)[0])
    name = ("tpe" if objectives == 1 else "nsga2") if name == "auto" else name
    if name == "random":
        return optuna.samplers.RandomSampler(seed=number)
    if name == "nsga2":
        # Some generations must come of the budget.
        return optuna.samplers.NSGAIISampler(population_size=min(max((trials or 64) // 4, 8), 50), seed=number)
    return optuna.samplers.TPESampler(seed=number, n_startup_trials=min(10, max((trials or 30) // 3, 3)))


def _one(study: Any, optuna: Any, workers: Workers, trainer: _Trainer, told: Told) -> None:
    """One trial, whatever becomes of it."""
    state = optuna.trial.TrialState
    trial = ask(study, workers)
    try:
        values = trainer.train(trial, optuna)
    except optuna.TrialPruned:
        study.tell(trial, state=state.PRUNED)
    except (KeyboardInterrupt, SystemExit):
        study.tell(trial, state=state.FAIL)
        raise
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:1000])
        study.tell(trial, state=state.FAIL)
    else:
        study.tell(trial, values)
    told.ended(study.trials[trial.number], study)


def _stop_if_all_fail(study: Any, optuna: Any, workers: Workers) -> None:
    done, failed, _ = counts(study, optuna, workers)
    if done == 0 and failed >= _MOST_FAILURES:
        errors = [trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs]
        raise ValueError(f"`space` must hold settings that can be trained. Received: {errors[0]}")


@dataclasses.dataclass
class _Trainer:
    """What becomes of a proposal: a configuration, a model, and its values on the validation rows."""

    config: RunConfig
    dataset: Dataset
    objectives: tuple[Objective, ...]
    space: Mapping[str, Any]
    build: Callable[..., Any] | None
    seed: int
    prune: bool

    @property
    def identity(self) -> str:
        """What trials of one study share."""
        data = self.dataset
        return as_json(
            {
                "config": vars(self.config),
                "data": [data.version, data.variant, len(data.train), len(data.validation), *self._digests()],
                "objectives": [objective.name for objective in self.objectives],
                "space": {name: repr(domain) for name, domain in self.space.items()},
                "seed": self.seed,
            }
        )

    def _digests(self) -> list[str]:
        """What the rows are known by: tables of one's own have no version."""
        return [rows_digest(x.inputs, x.labels, x.weights) for x in (self.dataset.train, self.dataset.validation)]

    @functools.cached_property
    def start(self) -> dict[str, Any]:
        """The proposal that stands for the configuration as it is."""
        known = start_values(self.config, self.dataset, self.space, self.build is None)
        return {name: self.space[name].encoded(value) for name, value in known.items()}

    def train(self, trial: Any, optuna: Any) -> list[float]:
        """The values of the objectives, in their order."""
        values = {name: domain.suggest(trial, name) for name, domain in self.space.items()}
        config = configured(self.config, values, self.build is None)
        dataset = with_width(self.dataset, values.get(EMBEDDING_DIM))
        if self.build is None:
            arguments = resolve_hyperparameters(config.model, config.hyperparameters)
        else:
            arguments = dict(config.hyperparameters)
        started = time.perf_counter()
        reporter = _Reporter(trial, self.objectives[0].log, optuna.TrialPruned if self.prune else None)
        try:
            trained = fit_run(config, dataset, arguments, self.seed, Silent(), build=self.build, callbacks=[reporter])
            model, split = trained.model, dataset.validation
            scores = model.predict(split.inputs, verbose=0)
            table = evaluate_scores(
                model, split, scores, products=True, only=metrics_of(self.objectives, dataset.tasks)
            )
            records: list[dict[Any, Any]] = table.to_dict("records")
            measured = {f"{row['task']}/{row['metric']}": float(row["value"]) for row in records}
            trial.set_user_attr("metrics", measured)
            trial.set_user_attr("parameters", model.count_params())
            trial.set_user_attr("best_epoch", max(trained.validation.best_epochs.values()))
            return [objective.value(model, table) for objective in self.objectives]
        finally:
            trial.set_user_attr("epochs", reporter.epochs)
            trial.set_user_attr("seconds", round(time.perf_counter() - started, 2))
            keras.backend.clear_session()


class _Reporter(keras.callbacks.Callback):
    """Tells a trial the best score so far after each epoch, and stops it where others were better by then."""

    def __init__(self, trial: Any, log: str, pruned: type[Exception] | None):
        super().__init__()
        self._trial, self._log, self._pruned = trial, log, pruned
        self._best, self.epochs = -np.inf, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs = epoch + 1
        score = (logs or {}).get(self._log)
        if self._pruned is None or score is None or not np.isfinite(score):
            return
        self._best = max(self._best, float(score))
        self._trial.report(self._best, epoch + 1)
        last = epoch + 1 == (self.params or {}).get("epochs")  # then nothing would be saved
        if not last and self._trial.should_prune():
            raise self._pruned(f"worse than the median after epoch {epoch + 1}")
