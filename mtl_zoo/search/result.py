"""What a search found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from mtl_zoo._files import whole_file
from mtl_zoo._space import Domain
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import as_json, resolve_hyperparameters
from mtl_zoo.search.objectives import Objective
from mtl_zoo.search.settings import configured

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
# Of fewer trials nothing can be said about what mattered.
_FEWEST = 4


@dataclasses.dataclass(frozen=True)
class Tuned:
    """All trials of a search, and the settings that were best on the validation rows.

    Attributes:
        start: The configuration where the search started.
        objectives: What trials are judged by.
        space: What was tried, by name.
        study: Optuna's own record of it.
        importances: A row for each name and objective: the share of the variance of that objective over the trials that
            the name explains (fANOVA); empty with fewer than 4 trials.
        build: What makes a model of the user's own; None for those of the catalogue.

    Example:

    >>> import mtl_zoo
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    >>> found = mtl_zoo.tune("shared_bottom", data, {"bottom_units": [(4,), (8,)]}, trials=1, epochs=1, verbose=0)
    >>> found.table["state"].tolist(), found.hyperparameters["bottom_units"]
    (['complete'], (256, 128))

    Reference: Hutter et al., An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014.
    """

    start: RunConfig
    objectives: tuple[Objective, ...]
    space: Mapping[str, Domain]
    study: Any = dataclasses.field(repr=False)
    importances: pd.DataFrame = dataclasses.field(repr=False)
    build: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each trial that ended.

        Its columns are `trial` (its number), `state` (`complete`, `pruned`, `failed`), `start` (whether it is the
        start), the objectives, the settings, `parameters`, `best_epoch`, `epochs`, `seconds`, `error`, and the metrics
        on the validation rows by `<output>/<metric>`.
        """
        rows = []
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name not in _STATES:
                continue
            about = trial.user_attrs
            values = trial.values or [np.nan] * len(self.objectives)
            row = {"trial": trial.number, "state": _STATES[trial.state.name], "start": bool(about.get("start"))}
            row |= {f"objective {o.name}": v for o, v in zip(self.objectives, values, strict=False)}
            row |= {name: trial.params.get(name) for name in self.space}
            row |= {name: about.get(name) for name in ("parameters", "best_epoch", "epochs", "seconds", "error")}
            rows.append({**row, **about.get("metrics", {})})
        return pd.DataFrame(rows)

    @property
    def front(self) -> pd.DataFrame:
        """The rows of `table` of which none is better in one objective without being worse in another."""
        table = self._complete
        gains = self._gains(table)
        beaten = [bool(((gains >= one).all(axis=1) & (gains > one).any(axis=1)).any()) for one in gains]
        found = table[~np.array(beaten, bool)]
        first = f"objective {self.objectives[0].name}"
        return found.sort_values(first, ascending=not self.objectives[0].larger, ignore_index=True)

    @property
    def _complete(self) -> pd.DataFrame:
        table = self.table
        found = table[table["state"] == "complete"] if len(table) else table
        if found.empty:
            raise ValueError("`trials` must hold one that was trained to its end. Received: none")
        return found

    def _gains(self, table: pd.DataFrame) -> np.ndarray:
        """The objectives, better when higher."""
        return np.stack(
            [table[f"objective {o.name}"].to_numpy(float) * (1 if o.larger else -1) for o in self.objectives], axis=1
        )

    @property
    def best_trial(self) -> int:
        """The number of the best trial; of several objectives, that of the front nearest to the best of each.

        Distances are measured with each objective scaled to 0..1 on the front.
        """
        front = self.front
        gains = self._gains(front)
        span = np.ptp(gains, axis=0)
        away = (gains.max(axis=0) - gains) / np.where(span > 0, span, 1.0)
        return int(front["trial"].iloc[int(np.argmin(np.square(away).sum(axis=1)))])

    @property
    def settings(self) -> dict[str, Any]:
        """What the best trial had, by the names of the space."""
        return self.settings_of(self.best_trial)

    def settings_of(self, trial: int) -> dict[str, Any]:
        """What a trial had, by the names of the space."""
        held = self.study.trials[trial].params
        return {name: domain.decoded(held[name]) for name, domain in self.space.items()}

    def config_of(self, trial: int) -> RunConfig:
        """A trial as a configuration for the benchmark."""
        return configured(self.start, self.settings_of(trial), self.build is None)

    @property
    def config(self) -> RunConfig:
        """The best trial as a configuration for the benchmark."""
        return self.config_of(self.best_trial)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The arguments of the best trial's model, as `create_model` takes them."""
        config = self.config
        if self.build is not None:
            return dict(config.hyperparameters)
        return resolve_hyperparameters(config.model, config.hyperparameters)

    def save(self, path: str | Path) -> Path:
        """Writes the best settings as a YAML file that `mtl-zoo bench run` takes; of several objectives the front.

        Raises:
            ValueError: The model is one of your own, which no file can name.
        """
        if self.build is not None:
            raise ValueError("`model` must be of the catalogue to be written to a file. Received: a function")
        names = [f"{o.name} {'highest' if o.larger else 'lowest'}" for o in self.objectives]
        front = [int(number) for number in self.front["trial"]]
        configs = [_as_plain(self.config_of(number)) for number in front]
        one = len(self.objectives) == 1
        content = _as_plain(self.config) if one else _suite(configs)
        which = f"trial {self.best_trial} of" if one else f"trials {', '.join(map(str, front))} of"
        head = f"# {which} {len(self.table)}; {', '.join(names)} on the validation rows\n"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return Path(path)

    def plot(self, path: str | Path | None = None) -> Figure:
        """A figure: the trials in their order, the front of two objectives, and what mattered.

        Args:
            path: Where to write it, too. Default: None, nowhere.
        """
        from mtl_zoo.evaluation._figures import save_figure
        from mtl_zoo.search._figure import search_figure

        figure = search_figure(self)
        if path is not None:
            save_figure(figure, path)
        return figure

    @staticmethod
    def importances_of(study: Any, optuna: Any, objectives: Sequence[str]) -> pd.DataFrame:
        """`importances` of a study."""
        rows: list[tuple[str, str, float]] = []
        done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        names = {name for trial in done for name in trial.params}
        vary = [name for name in names if len({str(trial.params.get(name)) for trial in done}) > 1]
        for i, objective in enumerate(objectives):
            if len(done) < _FEWEST or not vary or len({trial.values[i] for trial in done}) < 2:
                continue
            found = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                params=sorted(vary),
                target=lambda trial, i=i: trial.values[i],
            )
            rows += [(objective, name, round(share, 5)) for name, share in found.items()]
        return pd.DataFrame(rows, columns=["objective", "name", "importance"])

    def __str__(self) -> str:
        table, front = self.table, self.front
        states = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
        columns = [f"objective {o.name}" for o in self.objectives]
        lines = [f"{len(table)} trials: {states}"]
        start = table[table["start"] & (table["state"] == "complete")]
        for name, rows in (("start", start.head(1)), ("best", front if len(columns) > 1 else front.head(1))):
            for row in rows.to_dict("records"):
                values = "  ".join(f"{column.removeprefix('objective ')} {row[column]:.5g}" for column in columns)
                lines.append(f"{name}  trial {row['trial']}: {values}")
        lines += [f"  {name}: {value}" for name, value in self.settings.items()]
        for objective, rows in self.importances.groupby("objective", sort=False):
            shares = ", ".join(f"{row.name_} {row.importance:.0%}" for row in _named(rows))
            lines.append(f"what mattered for {objective}: {shares}")
        return "\n".join(lines)


def _named(rows: pd.DataFrame) -> Any:
    return rows.rename(columns={"name": "name_"}).itertuples()


def _as_plain(config: RunConfig) -> dict[str, Any]:
    """A configuration as YAML can say it, without what is as it is anyway."""
    defaults = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    given = {name: getattr(config, name) for name in defaults}
    kept = {name: v for name, v in given.items() if v != defaults[name] and v not in ({}, ())}
    first = {"dataset": config.dataset, "model": config.model, **kept}
    plain = json.loads(as_json(first))
    return {name: plain[name] for name in first}


def _suite(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several configurations with what they share said once."""
    shared = {n: v for n, v in configs[0].items() if all(one.get(n) == v for one in configs)}
    runs = [{n: v for n, v in one.items() if n not in shared} for one in configs]
    return {**shared, "runs": runs}
