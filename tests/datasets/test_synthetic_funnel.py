import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mtl_zoo.datasets import load_dataset, oracle_auc, oracle_scores
from mtl_zoo.datasets.synthetic_funnel import FIELDS, PAIRS, last_clicks
from mtl_zoo.features.spec import as_features, require_fitted


@pytest.fixture(scope="module")
def data():
    return load_dataset("synthetic_funnel", size=100_000)


def test_shapes_types_and_ranges(data):
    assert (len(data.train), len(data.validation), len(data.test)) == (100_000, 20_000, 20_000)
    require_fitted(as_features(data.features))
    sizes = {feature.name: feature.num_ids for feature in data.features}
    assert list(sizes) == ["user_id", "item_id", *FIELDS]
    for split in data.splits.values():
        for name, ids in split.inputs.items():
            assert ids.dtype == np.int32 and ids.min() >= 2 and ids.max() < sizes[name]
        assert all(label.dtype == np.float32 for label in split.labels.values())
        assert set(split.truth) == {"click", "conversion", "click_and_conversion"}
        assert len(split.groups["user_id"]) == len(split)
    assert [(task.name, task.sample_space) for task in data.tasks] == [("click", None), ("conversion", "click")]


def test_ids_determine_their_fields(data):
    for owner in ("user", "item"):
        for field in (f for f in FIELDS if f.startswith(owner)):
            pairs = np.stack([data.train.inputs[f"{owner}_id"], data.train.inputs[field]], 1)
            assert len(np.unique(pairs, axis=0)) == len(np.unique(pairs[:, 0]))


def test_truth_is_the_stated_model(data):
    truth, labels = data.train.truth, data.train.labels
    a = np.log(truth["click"] / (1 - truth["click"])) + 3.2
    residual = np.log(truth["conversion"] / (1 - truth["conversion"])) + 3.0 - 0.5 * a
    b = residual / np.sqrt(0.75)
    for effect in (a, b):
        assert abs(effect.mean()) < 0.15 and 0.8 < effect.var() < 1.2
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.2
    np.testing.assert_allclose(truth["click_and_conversion"], truth["click"] * truth["conversion"])
    assert labels["conversion"][labels["click"] == 0].max() == 0
    assert len(PAIRS) == len(set(PAIRS)) == 12
    assert np.bincount(np.ravel(PAIRS), minlength=12).tolist() == [2] * 12


def test_labels_follow_the_truth(data):
    split = data.train
    clicked = split.labels["click"] == 1
    for label, p in ((split.labels["click"], split.truth["click"]), (split.labels["conversion"][clicked], None)):
        p = split.truth["conversion"][clicked] if p is None else p
        error = np.sqrt((p * (1 - p)).sum()) / len(p)
        assert abs(label.mean() - p.mean()) < 4 * error
    scores = {row["output"]: row for row in oracle_scores(split, data.tasks)}
    assert 0.72 < scores["click"]["auc"] < 0.79
    assert roc_auc_score(clicked, split.truth["click"]) == pytest.approx(scores["click"]["auc"], abs=0.01)
    assert scores["conversion"]["space"] == "click" and scores["click_and_conversion"]["space"] == "impressions"
    assert 0.8 < scores["click"]["ne"] < 0.95


def test_same_seed_same_rows_and_other_seed_other_rows():
    one, same, other = (load_dataset("synthetic_funnel", size="small", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.train.labels["click"], same.train.labels["click"])
    np.testing.assert_array_equal(one.test.inputs["user_id"], same.test.inputs["user_id"])
    assert one.version == same.version != other.version
    assert (one.test.inputs["user_id"] != other.test.inputs["user_id"]).any()
    narrow = load_dataset("synthetic_funnel", size="small", seed=3, embedding_dim=4)
    assert narrow.version == one.version and narrow.features[0].dim == 4


def test_options_leave_the_rest_as_it_was():
    plain = load_dataset("synthetic_funnel", size="small")
    rich = load_dataset("synthetic_funnel", size="small", watch_time=True, history=5, unobserved=0.1)
    np.testing.assert_array_equal(plain.test.labels["conversion"], rich.test.labels["conversion"])
    np.testing.assert_array_equal(plain.train.inputs["item_id"], rich.train.inputs["item_id"])
    assert rich.variant == "small,watch_time=True,history=5,unobserved=0.1" and rich.version != plain.version


def test_domains_shift_clicks_and_rotate_pairs():
    data = load_dataset("synthetic_funnel", size=60_000, domains=3)
    domain, click = data.train.groups["domain"], data.train.labels["click"]
    rates = [click[domain == d].mean() for d in range(3)]
    assert rates[0] < rates[1] < rates[2]
    assert data.train.inputs["domain"].tolist()[:50] == (domain[:50] + 2).tolist()
    assert [f.num_ids for f in data.features if f.name == "domain"] == [5]


def test_cart_is_a_third_link():
    data = load_dataset("synthetic_funnel", size=50_000, cart=True)
    assert [(t.name, t.sample_space) for t in data.tasks] == [
        ("click", None),
        ("cart", "click"),
        ("conversion", "cart"),
    ]
    labels, truth = data.train.labels, data.train.truth
    assert (labels["conversion"] <= labels["cart"]).all() and (labels["cart"] <= labels["click"]).all()
    np.testing.assert_allclose(truth["click_and_cart"], truth["click"] * truth["cart"])
    np.testing.assert_allclose(truth["click_and_conversion"], truth["click_and_cart"] * truth["conversion"])
    rows = {row["output"]: row for row in oracle_scores(data.train, data.tasks)}
    assert rows["conversion"]["space"] == "cart"
    assert rows["conversion"]["auc"] == oracle_auc(truth["conversion"], truth["click_and_cart"])
    assert 0.003 < labels["conversion"].mean() < 0.012


def test_history_holds_earlier_clicks_only():
    users = np.array([0, 1, 0, 0, 1, 0])
    items = np.array([5, 6, 7, 8, 9, 4])
    clicks = np.array([1, 1, 0, 1, 0, 1], "float32")
    assert last_clicks(users, items, clicks, 2).tolist() == [[0, 0], [0, 0], [7, 0], [7, 0], [8, 0], [7, 10]]
    assert last_clicks(users, items, clicks, 1).tolist() == [[0], [0], [7], [7], [8], [10]]
    data = load_dataset("synthetic_funnel", size="small", history=4)
    feature = data.features[-1]
    assert (feature.name, feature.table, feature.shape) == ("history", "item_id", (4,))
    history = data.train.inputs["history"]
    assert history.shape == (20_000, 4) and history.dtype == np.int32
    assert (history[-1000:] > 0).any() and not (history[0] > 0).any()
    # Padding stands at the end.
    assert ((history[:, 1:] == 0) | (history[:, :-1] > 0)).all()


def test_numeric_field_and_watch_time():
    data = load_dataset("synthetic_funnel", size=50_000, numeric=True, watch_time=True)
    split = data.train
    assert split.inputs["number"].dtype == np.float32
    logit = np.log(split.truth["click"] / (1 - split.truth["click"]))
    assert np.corrcoef(split.inputs["number"], logit)[0, 1] == pytest.approx(np.sqrt(0.1), abs=0.05)
    watched = split.labels["watch_time"]
    np.testing.assert_array_equal(np.isfinite(watched), split.labels["click"] == 1)
    row = oracle_scores(split, data.tasks)[-1]
    assert row["output"] == "watch_time" and row["rmse"] == pytest.approx(0.1, abs=0.01)
    empty = load_dataset("synthetic_funnel", size="small", watch_time=True).train
    empty.labels["click"][:] = 0
    assert np.isnan(oracle_scores(empty, data.tasks)[-1]["rmse"])


def test_unobserved_labels_are_missing_from_training_alone():
    data = load_dataset("synthetic_funnel", size="small", unobserved=0.3)
    for name in ("click", "conversion"):
        assert np.isnan(data.train.labels[name]).mean() == pytest.approx(0.3, abs=0.02)
        assert np.isfinite(data.test.labels[name]).all()
    assert (np.isnan(data.train.labels["click"]) != np.isnan(data.train.labels["conversion"])).any()


def test_rho_zero_makes_conversion_independent_of_click_tastes():
    data = load_dataset("synthetic_funnel", size=50_000, rho=0.0)
    q, r = data.train.truth["click"], data.train.truth["conversion"]
    assert abs(np.corrcoef(np.log(q / (1 - q)), np.log(r / (1 - r)))[0, 1]) < 0.2


def test_three_sizes():
    data = load_dataset("synthetic_funnel", size=[1000, 300, 2000])
    assert [len(split) for split in data.splits.values()] == [1000, 300, 2000]
    assert data.variant == "1000/300/2000" and data.split_rule.endswith("1,000 / 300 / 2,000")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": "huge"}, r"Received: size='huge'. Expected: one of 'full', 'small'"),
        ({"size": 10}, "`size` must be a whole number >= 1000. Received: size=10"),
        ({"size": (1000, 1000)}, r"`size` must hold three numbers of rows.*Received: size=\(1000, 1000\)"),
        ({"size": (1000, 1000, 10)}, r"`size\[2\]` must be a whole number >= 200"),
        ({"rho": 1.5}, "`rho` must be a finite number and >= -1 and <= 1. Received: rho=1.5"),
        ({"domains": 1}, r"`domains` must be 0 \(none\) or at least 2. Received: domains=1"),
        ({"history": -1}, "`history` must be a whole number >= 0"),
        ({"unobserved": 1.0}, "`unobserved` must be a finite number and >= 0 and < 1"),
        ({"cart": "yes"}, "`cart` must be one of the known values. Received: cart='yes'"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"embedding_dim": 0}, "`dim` must be a whole number >= 1"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        load_dataset("synthetic_funnel", **({"size": "small"} | options))
