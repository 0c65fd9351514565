import time

import numpy as np
import pytest

from mtl_zoo.evaluation import auc, auc_standard_error, bootstrap_auc_difference, bootstrap_interval
from mtl_zoo.evaluation.significance import _Ranked


def test_weighted_auc_of_a_resample_is_exact():
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 300), np.round(rng.random(300), 2)
    weight = rng.integers(0, 3, 300).astype("float64")
    positive = y == 1
    found = _Ranked(positive, score).auc(weight[positive], weight[~positive])
    assert found == pytest.approx(auc(y, score, weight), abs=1e-12)


def test_interval_covers_no_difference_and_leaves_out_a_real_one():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.3).astype(int)
    base = rng.normal(size=3000) + y
    alike = bootstrap_auc_difference(y, base + 0.05 * rng.normal(size=3000), base + 0.05 * rng.normal(size=3000))
    assert alike.low < 0 < alike.high and alike.high - alike.low < 0.01
    better = bootstrap_auc_difference(y, base, base + 0.5 * y)
    assert 0 < better.low < better.difference < better.high
    assert better.difference == pytest.approx(auc(y, base + 0.5 * y) - auc(y, base))


def test_pairing_makes_the_interval_narrower_than_two_separate_ones():
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.3).astype(int)
    base = rng.normal(size=2000) + y
    found = bootstrap_auc_difference(y, base, base + 0.05 * rng.normal(size=2000))
    alone = auc_standard_error(found.auc_a, int(y.sum()), int((1 - y).sum()))
    assert (found.high - found.low) / 3.92 < 0.3 * alone


def test_the_spread_of_one_auc_agrees_with_the_formula():
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.3).astype(int)
    score = rng.normal(size=2000) + y
    found = bootstrap_auc_difference(y, np.zeros(2000), score)  # a constant's AUC is 1/2 in every resample
    expected = auc_standard_error(found.auc_b, int(y.sum()), int((1 - y).sum()))
    assert (found.high - found.low) / 3.92 == pytest.approx(expected, rel=0.12)


def test_standard_errors_of_the_reference():
    assert auc_standard_error(0.94, 3093, 46_788) == pytest.approx(0.0030, abs=5e-5)


def test_weights_and_seed():
    rng = np.random.default_rng(0)
    y, a, b = rng.integers(0, 2, 500), rng.random(500), rng.random(500)
    weight = (np.arange(500) < 250).astype(float)
    weighted = bootstrap_auc_difference(y, a, b, weight, resamples=50)
    assert weighted == bootstrap_auc_difference(y[:250], a[:250], b[:250], resamples=50)
    assert weighted != bootstrap_auc_difference(y[:250], a[:250], b[:250], resamples=50, seed=1)


def test_a_thousand_resamples_of_50_000_rows_take_seconds():
    rng = np.random.default_rng(0)
    y = (rng.random(50_000) < 0.06).astype(int)
    started = time.perf_counter()
    bootstrap_auc_difference(y, rng.random(50_000), rng.random(50_000), resamples=100)
    assert time.perf_counter() - started < 3


def test_interval_of_a_mean_agrees_with_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap_interval(np.mean, values, resamples=4000)
    assert found.value == values.mean()
    assert (found.high - found.low) / 3.92 == pytest.approx(values.std() / 20, rel=0.05)
    wide = bootstrap_interval(np.mean, values, resamples=4000, confidence=0.99)
    assert wide.low < found.low < found.value < found.high < wide.high
    assert found == bootstrap_interval(np.mean, values, resamples=4000)
    assert found != bootstrap_interval(np.mean, values, resamples=4000, seed=1)


def test_columns_are_drawn_together():
    rng = np.random.default_rng(0)
    shared, noise = rng.normal(size=(2, 100))
    found = bootstrap_interval(lambda a, b: b.std() - a.std(), shared, 2 * shared + 1e-3 * noise)
    assert found.low > 0.5 and found.value == pytest.approx(shared.std(), rel=0.01)
    matrix = np.stack([shared, shared + 1], axis=1)
    assert bootstrap_interval(lambda m: (m[:, 1] - m[:, 0]).mean(), matrix).high == pytest.approx(1)


def test_errors():
    with pytest.raises(ValueError, match=r"`columns` must have one number of rows, at least 2. Received: \[3, 4\]"):
        bootstrap_interval(lambda a, b: 0.0, np.zeros(3), np.zeros(4))
    for columns in ([np.zeros(1)], []):
        with pytest.raises(ValueError, match="`columns` must have one number of rows, at least 2"):
            bootstrap_interval(np.mean, *columns)
    with pytest.raises(ValueError, match="`confidence` must be a finite number and > 0 and < 1"):
        bootstrap_interval(np.mean, np.zeros(3), confidence=1)
    with pytest.raises(ValueError, match=r"`y` must hold both classes. Received: only \[1.0\]"):
        bootstrap_auc_difference([1, 1], [0.1, 0.2], [0.3, 0.4])
    with pytest.raises(ValueError, match="`confidence` must be a finite number and > 0 and < 1"):
        bootstrap_auc_difference([0, 1], [0.1, 0.2], [0.3, 0.4], confidence=95)
    with pytest.raises(ValueError, match="`positives` must be a whole number >= 1"):
        auc_standard_error(0.9, 0, 5)
