import numpy as np
import pytest
from sklearn import metrics as sk

from mtl_zoo import evaluation as ev

Y, P = [0, 0, 1, 0], [0.2, 0.1, 0.6, 0.3]


def random_rows(n=500, seed=0):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(n), 2)  # rounded, so that there are ties
    return (rng.random(n) < p).astype("float64"), p, rng.uniform(0, 2, n)


@pytest.mark.parametrize(
    ("value", "golden"),
    [
        (ev.auc([1, 0, 1, 0, 1], [0.8, 0.8, 0.6, 0.3, 0.2]), 0.4166667),
        (ev.logloss(Y, P), 0.299001),
        (ev.normalized_entropy(Y, P), 0.531713),
        (1 - ev.normalized_entropy(Y, P), 0.468287),
        (ev.pcoc(Y, P), 1.2),
        (ev.ece(Y, P, bins=2), 0.25),
        (ev.correct_downsampling(0.107481, 0.1), 0.011899),
        (ev.delta_m({"a": 0.78, "b": 0.45}, {"a": 0.80, "b": 0.50}, {"a": "auc", "b": "logloss"}), 3.75),
    ],
)
def test_golden_values(value, golden):
    assert value == pytest.approx(golden, abs=1e-6)


def test_gauc_golden_value_and_its_weights():
    # AUC 1 for three rows, one user with one class only, .875 for four rows.
    groups = ["a"] * 3 + ["b"] * 2 + ["c"] * 6
    y = [1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    score = [0.9, 0.1, 0.2, 0.5, 0.5, 0.9, 0.4, 0.1, 0.2, 0.3, 0.6]
    assert ev.auc(y[5:], score[5:]) == 0.875
    found = ev.gauc(y, score, groups)
    assert found.kept == 2 and found.groups == 3
    assert found.value == pytest.approx((3 * 1 + 6 * 0.875) / 9)
    assert ev.gauc(y, score, groups, group_weight="clicks").value == pytest.approx((1 + 2 * 0.875) / 3)
    assert ev.gauc(y, score, groups, group_weight="uniform").value == pytest.approx((1 + 0.875) / 2)
    # The reference's own example: 3 impressions at 1.0 and 4 at .875.
    weights = np.array([1] * 5 + [4 / 6] * 6)
    assert ev.gauc(y, score, groups, weights).value == pytest.approx(0.928571, abs=1e-6)


def test_gauc_equals_an_auc_for_each_group():
    y, p, weight = random_rows()
    groups = np.random.default_rng(1).integers(0, 60, len(y)).astype(str)
    values, counts = [], []
    for group in np.unique(groups):
        rows = groups == group
        value = ev.auc(y[rows], p[rows], weight[rows])
        if not np.isnan(value):
            values.append(value)
            counts.append(weight[rows].sum())
    found = ev.gauc(y, p, groups, weight)
    assert found.value == pytest.approx(np.average(values, weights=counts), abs=1e-12)
    assert found.kept == len(values)


def test_equal_to_scikit_learn_with_weights():
    y, p, w = random_rows()
    hard = p >= 0.5
    assert ev.auc(y, p, w) == sk.roc_auc_score(y, p, sample_weight=w)
    assert ev.logloss(y, p, w) == pytest.approx(sk.log_loss(y, p, sample_weight=w), abs=1e-12)
    assert ev.accuracy(y, p, w) == sk.accuracy_score(y, hard, sample_weight=w)
    assert ev.precision(y, p, w) == sk.precision_score(y, hard, sample_weight=w)
    assert ev.recall(y, p, w) == sk.recall_score(y, hard, sample_weight=w)
    assert ev.f1(y, p, w) == sk.f1_score(y, hard, sample_weight=w)
    assert ev.rmse(y, p, w) == sk.root_mean_squared_error(y, p, sample_weight=w)
    assert ev.mae(y, p, w) == sk.mean_absolute_error(y, p, sample_weight=w)


def test_a_whole_weight_is_the_same_as_repeating_the_row_and_zero_as_leaving_it_out():
    y, p, _ = random_rows(200)
    weight = np.random.default_rng(2).integers(0, 4, 200)
    repeated_y, repeated_p = np.repeat(y, weight), np.repeat(p, weight)
    for metric in (ev.auc, ev.logloss, ev.normalized_entropy, ev.pcoc, ev.ece, ev.ks, ev.accuracy, ev.f1, ev.nrmse):
        assert metric(y, p, weight) == pytest.approx(metric(repeated_y, repeated_p), abs=1e-12), metric.__name__
    mass = ev.ece(y, p, weight, bins=10, binning="mass")
    assert mass == pytest.approx(ev.ece(repeated_y, repeated_p, bins=10, binning="mass"), abs=1e-12)


def test_ece_of_equal_mass_keeps_ties_together_and_tells_rare_positives_apart():
    rng = np.random.default_rng(0)
    p = np.repeat([0.001, 0.003], 50_000)
    y = (rng.random(100_000) < p).astype(float)
    swapped = p[::-1]
    assert ev.ece(y, swapped) < 1e-3  # one bin of equal width holds all, and the means agree
    assert ev.ece(y, swapped, binning="mass") == pytest.approx(0.002, abs=5e-4)
    constant = np.full(1000, 0.25)
    assert ev.ece(np.r_[np.ones(250), np.zeros(750)], constant, binning="mass") == pytest.approx(0, abs=1e-12)


def test_ks_is_the_largest_distance_of_the_rates():
    y, p, w = random_rows()
    distances = [
        abs(w[(p >= t) & (y == 1)].sum() / w[y == 1].sum() - w[(p >= t) & (y == 0)].sum() / w[y == 0].sum()) for t in p
    ]
    assert ev.ks(y, p, w) == pytest.approx(max(distances), abs=1e-12)


def test_nrmse_is_one_for_the_mean():
    y, _, w = random_rows()
    assert ev.nrmse(y, np.full(len(y), np.average(y, weights=w)), w) == pytest.approx(1.0)
    assert np.isnan(ev.nrmse([2.0, 2.0], [1.0, 3.0]))


def test_multiclass():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 300).astype("float32")
    y, w = rng.integers(0, 3, 300), rng.uniform(0.1, 1, 300)
    assert ev.accuracy(y, p, w) == sk.accuracy_score(y, p.argmax(1), sample_weight=w)
    expected = -np.average(np.log(p[np.arange(300), y].astype("float64")), weights=w)
    assert ev.multiclass_logloss(y, p, w) == pytest.approx(expected, abs=1e-6)
    areas = [sk.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in range(3)]
    assert ev.macro_auc(y, p, w) == pytest.approx(np.mean(areas), abs=1e-12)
    two = y < 2  # class 2 is missing: it has no AUC of its own
    assert ev.macro_auc(y[two], p[two]) == pytest.approx(np.mean([ev.auc(y[two] == k, p[two, k]) for k in (0, 1)]))


@pytest.mark.parametrize(
    "metric", [ev.auc, ev.logloss, ev.normalized_entropy, ev.pcoc, ev.ece, ev.ks, ev.accuracy, ev.rmse, ev.mae]
)
def test_no_rows_is_nan(metric):
    assert np.isnan(metric([], []))


@pytest.mark.parametrize("metric", [ev.auc, ev.normalized_entropy, ev.ks])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan(metric, label):
    assert np.isnan(metric([label] * 3, [0.1, 0.2, 0.3]))


def test_undefined_rates_are_nan():
    assert np.isnan(ev.precision([0, 1], [0.1, 0.2]))
    assert np.isnan(ev.recall([0, 0], [0.1, 0.9]))
    assert np.isnan(ev.f1([0, 0], [0.1, 0.2]))
    assert np.isnan(ev.pcoc([0, 0], [0.1, 0.2]))
    assert np.isnan(ev.macro_auc([1, 1], [[0.5, 0.5], [0.1, 0.9]]))
    assert ev.gauc([1, 1], [0.1, 0.2], [1, 2]).kept == 0


def test_logloss_of_saturated_float32_scores_is_finite():
    assert ev.logloss([1.0], np.array([0.0], "float32")) == pytest.approx(-np.log(np.finfo("float32").eps))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ev.auc([0, 2], [0.1, 0.2]), "`y` must be 0 or 1. Received: 1 other labels, \\[2.0\\]"),
        (lambda: ev.auc([0, 1], [0.1]), "must have the same number of rows. Received: 2, 1 and 2"),
        (lambda: ev.auc([0, 1], [0.1, np.nan]), "`score` must be finite. Received: 1 NaN"),
        (lambda: ev.auc([0, 1], [0.1, 0.2], [-1, 1]), "`weight` must be finite and not negative. Received: \\[-1.0\\]"),
        (lambda: ev.ece([0, 1], [0.1, 1.2]), "`p` must be in \\[0, 1\\]. Received: \\[1.2\\]"),
        (lambda: ev.ece(Y, P, binning="depth"), "`binning` must be one of the known values"),
        (lambda: ev.ece(Y, P, bins=0), "`bins` must be a whole number >= 1"),
        (lambda: ev.gauc(Y, P, [1, 2]), "`groups` must have one value a row. Received: 2 for 4 rows"),
        (lambda: ev.gauc(Y, P, Y, group_weight="ctr"), "`group_weight` must be one of the known values"),
        (lambda: ev.correct_downsampling(0.1, 0), "`keep_rate` must be a finite number and <= 1 and > 0"),
        (lambda: ev.delta_m({"a": 1.0}, {"b": 1.0}, {"a": "auc"}), "`baseline` must name the tasks \\['a'\\]"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_gain_turns_the_sign_where_lower_is_better():
    assert ev.gain("auc", 0.8, 0.7) == pytest.approx(0.1)
    assert ev.gain("logloss", 0.3, 0.4) == pytest.approx(0.1)
    assert np.isnan(ev.lift_share(0.7, 0.5))


# fault 10
@pytest.mark.parametrize("groups", [[1.0, 1.0, np.nan, np.nan], ["a", "a", None, None], ["a", "a", None, np.nan]])
def test_rows_without_a_group_are_left_out_of_gauc(groups):
    found = ev.gauc([1, 0, 1, 0], [0.9, 0.2, 0.1, 0.8], groups)
    assert found == (1.0, 1, 1, 2)
    assert ev.gauc([1, 0, 1, 0], [0.9, 0.2, 0.1, 0.8], groups, [1, 1, 0, 1]).without == 1


# fault 10
def test_groups_of_mixed_types_need_no_order():
    assert ev.gauc([1, 0, 1, 0], [0.9, 0.2, 0.1, 0.8], np.array(["a", "a", 3, 3], object)) == (0.5, 2, 2, 0)
