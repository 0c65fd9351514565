from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.features import FeatureTransform
from mtl_zoo.features._columns import check_columns, read_table
from mtl_zoo.features.generated import GENERATED, refuse_generated
from mtl_zoo.training._mixed_rows import MixedRows
from mtl_zoo.training._wgan_gp import WGANGP


@dataclasses.dataclass(frozen=True)
class SMOTENC:
    """Rows between a rare row and one of its nearest neighbours, of numbers and categories.

    Numbers lie at random between the two, and a category is the most frequent one of the neighbours. imbalanced-learn
    makes them: `pip install "mtl-zoo[imbalance]"`.

    Args:
        neighbours: How many of the nearest rows with the same joint label there are to choose from.
        most_rows: Of a joint label with more rows, so many are drawn to make others between: the distances of all to
            all are in memory.

    Raises:
        ValueError: `neighbours` is below 1, or `most_rows` below 2.

    Example:

    >>> from mtl_zoo.training import SMOTENC
    >>> SMOTENC(neighbours=3).neighbours
    3

    Reference: Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16, 2002, doi:10.1613/jair.953.
    """

    neighbours: int = 5
    most_rows: int = 5000

    def __post_init__(self) -> None:
        check.check_int("neighbours", self.neighbours)
        check.check_int("most_rows", self.most_rows, minimum=2)

    def generate(self, rows: MixedRows, cells: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and codes of made rows, one for each of the joint labels `cells`, in their order."""
        numbers = np.zeros((len(cells), rows.numbers.shape[1]))
        codes = np.zeros((len(cells), rows.codes.shape[1]), "int64")
        for cell, count in zip(*np.unique(cells, return_counts=True), strict=True):
            numbers[cells == cell], codes[cells == cell] = self._of_cell(rows, int(cell), int(count), seed)
        return numbers, codes

    def _of_cell(self, rows: MixedRows, cell: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        own = np.flatnonzero(rows.cells == cell)
        if len(own) > self.most_rows:
            own = np.random.default_rng(seed).choice(own, self.most_rows, replace=False)
        if len(own) < 2:
            label = rows.labels.iloc[cell].to_dict()
            raise ValueError(
                f"`table` must have two rows of a joint label to make others between them. Received: {len(own)} with "
                f"{label}. method='wgan-gp' needs one"
            )
        sampler = self._sampler(rows, min(self.neighbours, len(own) - 1), len(own) + count, seed)
        # It wants a second class, of which it reads nothing.
        at, is_own = np.concatenate([own, own[:1]]), np.array([1] * len(own) + [0])
        width = rows.numbers.shape[1]
        table: Any = np.concatenate([rows.numbers[at], rows.codes[at]], axis=1)
        table = rows.codes[at] if not width else table
        made = np.asarray(sampler.fit_resample(table, is_own)[0], "float64")[len(at) :]
        return made[:, :width], made[:, width:].astype("int64")

    @staticmethod
    def _sampler(rows: MixedRows, neighbours: int, count: int, seed: int) -> Any:
        try:
            from imblearn import over_sampling
        except ImportError as error:
            raise ImportError(
                '`method` "smote-nc" needs imbalanced-learn: pip install "mtl-zoo[imbalance]". "wgan-gp" does not'
            ) from error
        options = {"sampling_strategy": {1: count}, "k_neighbors": neighbours, "random_state": seed}
        width, categories = rows.numbers.shape[1], rows.codes.shape[1]
        if not categories:
            return over_sampling.SMOTE(**options)
        if not width:
            return over_sampling.SMOTEN(**options)
        return over_sampling.SMOTENC(list(range(width, width + categories)), **options)


METHODS = {"wgan-gp": WGANGP, "smote-nc": SMOTENC}


def generate_rows(
    table: Any,
    transform: FeatureTransform,
    *,
    labels: Mapping[str, Any],
    rows: int,
    method: str | WGANGP | SMOTENC = "wgan-gp",
    most_values: int = 256,
    seed: int = 0,
    verbose: int = 1,
) -> pd.DataFrame:
    """Rows that nobody saw, with a label that is rare: to be trained on beside the real ones.

    They have the columns that the transform reads, labels and weights included, and the column `mtl_zoo_generated`,
    which is True. Put them below the training table:

        model.fit(pd.concat([train, generate_rows(train, transform, labels={"click": 1}, rows=1000)]))

    No model is judged by them: `validation_data`, `ExactValidation`, `evaluate`, `calibrate` and splits refuse tables
    with such rows. Split first; rows are made from training rows alone. Scores of a model that was trained on them are
    too high where the label is made more frequent: nothing corrects them exactly, since made rows are not rows that
    came more often; calibrate on real ones.

    The made rows' joint label (of all tasks with classes) is drawn from the real rows that have `labels`, by its share
    among them; labels that are numbers are made like other numbers. Missing values are made as well, by `"smote-nc"`
    where most neighbours lack one. Numbers stay within those that were seen, and whole numbers whole.

    Args:
        table: The training table, with all columns that the transform reads.
        transform: A transform, fitted or not, with `Categorical` and `Numeric` features of one value a row.
        labels: The label that made rows have, by its column: `{"click": 1}` or `{"click": 1, "conversion": 1}`.
        rows: How many to make.
        method: `"wgan-gp"`, `"smote-nc"`, or a `WGANGP` or `SMOTENC` with options.
        most_values: Categories with more values have a code for the most frequent ones; the others share one, which is
            drawn from real rows of the same joint label.
        seed: Of all that is drawn.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: The table lacks a column, or has generated rows already; a feature of another kind; no row has
            these labels.
        ImportError: `"smote-nc"` without imbalanced-learn.

    Example:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
    >>> from mtl_zoo.training import WGANGP, generate_rows
    >>> table = pd.DataFrame({"age": [20, 30, 40, 50], "city": ["Rome", "Oslo"] * 2, "click": [0, 1, 0, 0]})
    >>> transform = FeatureTransform([Numeric("age"), Categorical("city")], BinaryTask("click"))
    >>> few = WGANGP(steps=1, batch_size=4, units=(4,), critic_steps=1)
    >>> made = generate_rows(table, transform, labels={"click": 1}, rows=3, method=few)
    >>> made["click"].tolist(), made["mtl_zoo_generated"].tolist()
    ([1, 1, 1], [True, True, True])
    """
    maker = _maker(method)
    count, seed = check.check_int("rows", rows), check.check_int("seed", seed, minimum=0)
    refuse_generated("table", table)
    frame = read_table(table).reset_index(drop=True)
    check_columns(frame, [feature.source for feature in transform.specs])
    mixed = MixedRows.of(frame, transform, check.check_int("most_values", most_values, minimum=2))
    rng = np.random.default_rng(seed)
    like = np.flatnonzero(np.isin(mixed.cells, mixed.matching(labels)))
    cells = np.sort(mixed.cells[rng.choice(like, count)])
    with Bar("Generating rows", verbose=verbose):
        numbers, codes = maker.generate(mixed, cells, seed)
    made = mixed.decoded(numbers, codes, cells, rng)
    order = [name for name in frame.columns if name in made.columns]
    return made[order].assign(**{GENERATED: True})


def _maker(method: Any) -> WGANGP | SMOTENC:
    if isinstance(method, WGANGP | SMOTENC):
        return method
    return METHODS[check.check_choice("method", method, tuple(METHODS))]()
