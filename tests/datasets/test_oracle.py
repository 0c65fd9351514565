import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mtl_zoo import BinaryTask
from mtl_zoo.datasets import Split, oracle_auc, oracle_logloss, oracle_scores
from mtl_zoo.datasets.oracle import inclusion


def brute_force_auc(p, v):
    above, total = 0.0, 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            weight = v[i] * p[i] * v[j] * (1 - p[j])
            above += weight * (1.0 if p[j] < p[i] else 0.5 if p[j] == p[i] else 0.0)
            total += weight
    return above / total


@pytest.mark.parametrize("seed", range(3))
def test_auc_equals_the_double_sum_with_ties(seed):
    rng = np.random.default_rng(seed)
    p, v = np.round(rng.random(60), 1), rng.random(60)
    np.testing.assert_allclose(oracle_auc(p, v), brute_force_auc(p, v), rtol=1e-12)
    np.testing.assert_allclose(oracle_auc(p), brute_force_auc(p, np.ones(60)), rtol=1e-12)


def test_certain_labels():
    assert oracle_auc([0.0, 1.0]) == 1.0
    assert oracle_logloss([0.0, 1.0]) == 0.0
    assert np.isnan(oracle_auc([1.0, 1.0]))


def latent_funnel(rows, seed):
    """The golden set-up: latent products, b1 = -3.2, b2 = -3.0, rho = .5."""
    rng = np.random.default_rng(seed)
    k, rho = 8, 0.5
    users, items = rng.standard_normal((2000, k)), rng.standard_normal((1000, k))
    rotation = rng.standard_normal((k, k)) / np.sqrt(k)
    u, i = users[rng.integers(2000, size=rows)], items[rng.integers(1000, size=rows)]
    a = (u * i).sum(1) / np.sqrt(k)
    b = (u @ rotation * i).sum(1) / np.sqrt(k)
    q = 1 / (1 + np.exp(3.2 - a))
    r = 1 / (1 + np.exp(3.0 - rho * a - np.sqrt(1 - rho**2) * b))
    return q, r, rng


# One draw of 1e6 rows: CTR AUC*, CVR|click AUC*, CTCVR AUC*, their LogLoss*.
GOLDEN = (0.7517, 0.7631, 0.8643, 0.1954, 0.2766, 0.02831)


def test_golden_values_lie_among_the_draws():
    # In which order that draw took its numbers is not known, and other latents move the values: it must be one of many.
    draws = []
    for seed in range(12):
        q, r, _ = latent_funnel(20_000, seed)
        spaces = ((q, None), (r, q), (q * r, None))
        draws.append([*(oracle_auc(p, v) for p, v in spaces), *(oracle_logloss(p, v) for p, v in spaces)])
    mean, spread = np.mean(draws, 0), np.std(draws, 0, ddof=1)
    assert (np.abs(mean - GOLDEN) < 2 * spread).all()
    assert spread[0] < 0.005 and spread[1:3].max() < 0.03


def test_the_truth_scores_what_the_oracle_expects():
    q, r, rng = latent_funnel(300_000, 1)
    click = rng.random(len(q)) < q
    conversion = click & (rng.random(len(r)) < r)
    # Within about three standard errors (Hanley and McNeil) of these counts of positives.
    assert roc_auc_score(click, q) == pytest.approx(oracle_auc(q), abs=0.006)
    assert roc_auc_score(conversion[click], r[click]) == pytest.approx(oracle_auc(r, q), abs=0.02)
    assert roc_auc_score(conversion, q * r) == pytest.approx(oracle_auc(q * r), abs=0.015)
    assert log_loss(click, q) == pytest.approx(oracle_logloss(q), abs=0.002)
    assert log_loss(conversion[click], r[click]) == pytest.approx(oracle_logloss(r, q), abs=0.01)


def test_no_score_beats_the_truth():
    q, _, rng = latent_funnel(50_000, 2)
    click = rng.random(len(q)) < q
    noisy = q * np.exp(0.5 * rng.standard_normal(len(q)))
    assert roc_auc_score(click, noisy) < roc_auc_score(click, q)


@pytest.mark.parametrize(
    ("p", "v", "text"),
    [
        ([], None, "`p` must have at least one row"),
        ([0.5, 1.5], None, r"`p` must be probabilities in \[0, 1\]. Received: from 0.5 to 1.5"),
        ([0.5, np.nan], None, "`p` must be probabilities"),
        ([0.5, 0.5], [1.0], "`v` must have as many rows as `p`. Received: 1 and 2 rows"),
        ([0.5, 0.5], [1.0, -1.0], "`v` must be weights >= 0 with a positive sum"),
        ([0.5, 0.5], [0.0, 0.0], "`v` must be weights >= 0 with a positive sum"),
    ],
)
def test_refuses_what_is_no_probability(p, v, text):
    with pytest.raises(ValueError, match=text):
        oracle_auc(p, v)
    with pytest.raises(ValueError, match=text):
        oracle_logloss(p, v)


def test_inclusion_follows_the_chain_of_spaces():
    tasks = (
        BinaryTask("click"),
        BinaryTask("cart", sample_space="click"),
        BinaryTask("conversion", sample_space="cart"),
    )
    truth = {"click": np.array([0.5]), "cart": np.array([0.4]), "conversion": np.array([0.3])}
    assert inclusion(tasks, truth, None) is None
    assert inclusion(tasks, truth, "click").tolist() == [0.5]
    assert inclusion(tasks, truth, "cart").tolist() == [0.2]


def test_scores_need_the_truth():
    split = Split({"x": np.zeros(2)}, {"click": np.zeros(2)})
    with pytest.raises(ValueError, match=r"`split` must carry its true probabilities"):
        oracle_scores(split, [BinaryTask("click")])
