"""What the study of rare labels measures: clicks of a base rate, and expectations over known probabilities."""

import numpy as np
import pytest

from benchmarks.studies import rare_labels
from mtl_zoo.datasets.oracle import oracle_auc

ROWS = (3000, 1500, 1500)


def test_clicks_have_the_base_rate_and_their_true_probabilities():
    splits = rare_labels.draw(0.02, 1, ROWS)
    truth = splits["train"].truth["click"]
    assert truth.mean() == pytest.approx(0.02, rel=1e-6) and [len(split) for split in splits.values()] == list(ROWS)
    assert splits["train"].labels["click"].mean() == pytest.approx(0.02, abs=0.01)
    assert sorted(splits["test"].inputs) == sorted(feature.name for feature in rare_labels.features())


def test_measures_are_expectations_over_the_true_probabilities():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.01, 0.3, 400)
    found = rare_labels.measure(truth, truth)
    assert found["pcoc"] == 1 and found["ece_mass"] < 1e-9
    assert found["auc"] == found["oracle_auc"] == pytest.approx(oracle_auc(truth))
    entropy = -np.mean(truth * np.log(truth) + (1 - truth) * np.log(1 - truth))
    rate = truth.mean()
    assert found["ne"] == pytest.approx(entropy / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))
    double = rare_labels.measure(2 * truth, truth)
    assert double["pcoc"] == pytest.approx(2) and double["ece_mass"] == pytest.approx(rate, rel=1e-6)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_small_run_has_a_row_for_each_case_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(rare_labels, "EPOCHS", 1)
    monkeypatch.setattr(rare_labels, "EPOCHS_OF_SAMPLED", 8)
    out = tmp_path / "rows.csv"
    given = ["--rates", "0.1", "--seeds", "0", "--rows", "20000", "4000", "2000", "--remedies", "sampling"]
    assert rare_labels.main([*given, "--out", str(out)]) == 0
    table = rare_labels.run_rare_labels([0.1], [0], ROWS, ["sampling"], out)
    assert sorted(zip(table["remedy"], table["calibration"], strict=True)) == [
        *(("sampling", calibration) for calibration in sorted(rare_labels.CALIBRATIONS)),
        ("sampling_uncorrected", "none"),
    ]
    by_case = table.set_index(["remedy", "calibration"])
    assert by_case.loc[("sampling_uncorrected", "none"), "pcoc"] > 2.5
    assert by_case.loc[("sampling", "none"), "pcoc"] == pytest.approx(1, abs=0.25)
    assert by_case.loc[("sampling", "none"), "auc"] == by_case.loc[("sampling_uncorrected", "none"), "auc"]
