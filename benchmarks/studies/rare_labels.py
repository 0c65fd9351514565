"""What helps where labels are rare: losses, weights, sampling and calibration, against known probabilities.

    python -m benchmarks.studies.rare_labels --out benchmarks/results/learning/rare_labels.csv

Impressions and click probabilities are those of `synthetic_funnel`; a constant is added to the true logit so that the
mean probability is the base rate, and clicks are drawn anew. A shared-bottom model of the twelve fields is trained by
each remedy, the best epoch by validation AUC, and its scores are then calibrated on the validation rows. `balanced`
batches are half positive. Of generated rows (`wgan_gp`, `smote_nc`) as many are put below the training rows as bring
label 1 to ten times its rate, or 10 %. AUC, calibration error (100 bins of equal mass), normalised entropy and PCOC
(mean score / mean true probability) are expectations over the true probabilities of the test rows: no noise of drawn
test labels is in them. `oracle_auc` is that of the true probabilities. One row for each rate, seed, remedy and
calibration.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

import mtl_zoo
from benchmarks.studies import _frame as frame
from mtl_zoo import BalancedBatches, BinaryTask, ExactValidation, FeatureTransform, NegativeSampling, calibrate
from mtl_zoo.datasets import Split
from mtl_zoo.metrics import exact
from mtl_zoo.models._corrections import Corrections
from mtl_zoo.tasks import Focal, LabelSmoothing, LogitAdjustment
from mtl_zoo.training import generate_rows

CALIBRATIONS = ("none", "platt", "temperature", "isotonic")
COLUMNS = (
    *("rate", "seed", "remedy", "calibration", "rows", "trained_rows", "positives", "auc", "oracle_auc", "ece_mass"),
    *("ne", "pcoc", "best_epoch", "epochs", "seconds"),
)
# The share of negative rows that stays, and the most epochs of all rows and of those that stay.
KEPT, EPOCHS, EPOCHS_OF_SAMPLED = 0.1, 4, 16


@dataclasses.dataclass(frozen=True)
class Remedy:
    """How a model is trained: options of its task, how rows are sampled, and how more of them are made."""

    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    sampling: NegativeSampling | BalancedBatches | None = None
    generator: str | None = None

    @property
    def drops(self) -> bool:
        return isinstance(self.sampling, NegativeSampling)


def remedies(rate: float) -> dict[str, Remedy]:
    """What is compared, by name. Weights are those that make both labels count the same, and their root."""
    odds = (1 - rate) / rate
    return {
        "plain": Remedy(),
        "positive_weight": Remedy({"positive_weight": odds}),
        "positive_weight_root": Remedy({"positive_weight": odds**0.5}),
        "focal": Remedy({"loss": Focal()}),
        "label_smoothing": Remedy({"loss": LabelSmoothing(rate)}),
        "logit_adjustment": Remedy({"loss": LogitAdjustment()}),
        "sampling": Remedy(sampling=NegativeSampling("click", rate=KEPT)),
        "balanced": Remedy(sampling=BalancedBatches({"click": 0.5})),
        "wgan_gp": Remedy(generator="wgan-gp"),
        "smote_nc": Remedy(generator="smote-nc"),
    }


def draw(rate: float, seed: int, rows: Sequence[int]) -> dict[str, Split]:
    """Splits of the funnel's impressions, with clicks of the base rate and their true probabilities."""
    data = mtl_zoo.load_dataset("synthetic_funnel", size=tuple(rows), seed=seed)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    logits = {name: _logit(split.truth["click"]) for name, split in splits.items()}
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _sigmoid(logits["train"] + middle).mean() > rate else (middle, high)
    rng = np.random.default_rng([seed, round(1e6 * rate)])
    made = {}
    for name, split in splits.items():
        p = _sigmoid(logits[name] + middle)
        click = (rng.random(len(p)) < p).astype("float32")
        inputs = {field: ids for field, ids in split.inputs.items() if "_field_" in field}
        made[name] = Split(inputs, {"click": click}, truth={"click": p})
    return made


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def features() -> list[Any]:
    return [
        mtl_zoo.Categorical(f"{g}_field_{i}", size=20, dim=8) for g in ("user", "item", "context") for i in range(1, 5)
    ]


def train(remedy: Remedy, splits: dict[str, Split], seed: int) -> tuple[Any, dict[str, Any]]:
    """A model, and what there is to say of its training."""
    keras.utils.set_random_seed(seed)
    model = mtl_zoo.SharedBottom(
        features(), BinaryTask("click", **remedy.options), bottom_units=(64,), tower_units=(32,)
    )
    model.compile(keras.optimizers.Adam(0.002), metrics=None)
    epochs = EPOCHS_OF_SAMPLED if remedy.drops else EPOCHS
    choice, started = ExactValidation(splits["validation"], patience=2), time.perf_counter()
    given, labels = splits["train"].inputs, splits["train"].labels
    if remedy.generator is not None:
        given, labels = with_generated(given, labels, remedy.generator, seed)
    model.fit(given, labels, batch_size=512, epochs=epochs, verbose=0, callbacks=[choice], sampling=remedy.sampling)
    click = labels["click"]
    kept = len(click)
    if isinstance(remedy.sampling, NegativeSampling):
        kept = int(remedy.sampling.kept(model.tasks[0], labels).sum())
    about = {"trained_rows": kept, "best_epoch": choice.best_epochs["click"], "epochs": len(choice.history)}
    return model, {**about, "seconds": round(time.perf_counter() - started, 1)}


def with_generated(inputs: Any, labels: Any, method: str, seed: int) -> tuple[Any, Any]:
    """The training rows, and generated ones with label 1 below them."""
    table = pd.DataFrame({**inputs, **{name: label.astype(int) for name, label in labels.items()}})
    rate = table["click"].mean()
    wanted = min(10 * rate, 0.1)
    rows = max(1, int((wanted * len(table) - table["click"].sum()) / (1 - wanted)))
    transform = FeatureTransform(features(), BinaryTask("click"))
    # Of the negative rows a sample shows what they look like.
    negatives = table[table["click"] == 0].sample(min(20_000, int((table["click"] == 0).sum())), random_state=seed)
    seen = pd.concat([table[table["click"] == 1], negatives], ignore_index=True)
    made = generate_rows(seen, transform, labels={"click": 1}, rows=rows, method=method, seed=seed)
    more = {name: np.concatenate([values, made[name].to_numpy(values.dtype)]) for name, values in inputs.items()}
    return more, {"click": np.concatenate([labels["click"], made["click"].to_numpy("float32")])}


def measure(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Expectations over the true probabilities: each row is positive with the weight p, and negative with 1 - p."""
    y = np.repeat([1.0, 0.0], len(truth))
    weight, both = np.concatenate([truth, 1 - truth]), np.concatenate([scores, scores])
    return {
        "auc": exact.auc(y, both, weight),
        "oracle_auc": exact.auc(y, np.concatenate([truth, truth]), weight),
        "ece_mass": exact.ece(y, both, weight, binning="mass"),
        "ne": exact.normalized_entropy(y, both, weight),
        "pcoc": float(scores.sum() / truth.sum()),
    }


def cases(model: Any, validation: Split, sampled: bool) -> dict[tuple[str, str], Any]:
    """The model, and what calibrations make of it, by the ending of the remedy's name and the calibration."""
    found = {("", "none"): model}
    for method in CALIBRATIONS[1:]:
        found["", method] = calibrate(model, validation, "click", method)
    if sampled:
        uncorrected = model.clone()
        uncorrected.set_weights(model.get_weights())
        uncorrected.set_corrections(Corrections())
        found["_uncorrected", "none"] = uncorrected
    return found


def run_rare_labels(
    rates: Sequence[float], seeds: Sequence[int], rows: Sequence[int], names: Sequence[str], out: Path
) -> pd.DataFrame:
    """Trains what the file does not hold yet, and gives all of its rows."""
    kept = frame.Rows(out, COLUMNS)
    for rate in rates:
        for seed in seeds:
            left = [name for name in names if not kept.has(rate=rate, seed=seed, remedy=name, calibration="isotonic")]
            splits = draw(rate, seed, rows) if left else {}
            for name in left:
                remedy = remedies(rate)[name]
                model, about = train(remedy, splits, seed)
                about |= {"rate": rate, "seed": seed, "rows": rows[0], "error": ""}
                about["positives"] = int(splits["train"].labels["click"].sum())
                made = cases(model, splits["validation"], remedy.sampling is not None)
                # The row that tells that a case is done comes last.
                for (ending, calibration), scorer in sorted(made.items(), key=lambda case: case[0][1] == "isotonic"):
                    scores = scorer.predict(splits["test"].inputs, batch_size=16_384, verbose=0)["click"][:, 0]
                    found = measure(scores.astype("float64"), splits["test"].truth["click"])
                    rounded = {metric: float(f"{value:.6g}") for metric, value in found.items()}
                    kept.add({**about, "remedy": name + ending, "calibration": calibration, **rounded})
                keras.backend.clear_session()
    return kept.read()


def main(arguments: Sequence[str] | None = None) -> int:
    defaults = {
        "rates": (0.05, 0.005, 0.0005),
        "seeds": (0, 1, 2),
        "rows": (400_000, 100_000, 100_000),
        "remedies": tuple(remedies(0.5)),
    }
    given = frame.parser(__doc__ or "", defaults).parse_args(arguments)
    table = run_rare_labels(given.rates, given.seeds, given.rows, given.remedies, given.out)
    shown = table[table["error"].astype(str) == ""]
    metrics = ["auc", "oracle_auc", "ece_mass", "ne", "pcoc", "seconds"]
    means = shown.astype(dict.fromkeys(metrics, float)).groupby(["rate", "remedy", "calibration"], sort=False)[metrics]
    frame.show(means.mean().reset_index().round(5), ["rate", "remedy", "calibration", *metrics], "means over seeds")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
