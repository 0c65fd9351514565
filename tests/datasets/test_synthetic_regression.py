import numpy as np
import pytest

from mtl_zoo.datasets import label_correlation, load_dataset


@pytest.mark.parametrize(("c", "p"), [(1.0, 0.5), (1.0, 0.9), (0.3, 0.5), (1.0, -0.7), (1.0, 1.0)])
def test_labels_correlate_as_the_closed_form_says(c, p):
    data = load_dataset("synthetic_regression", correlation=p, c=c, d=10, size=60_000, seed=1)
    y1, y2 = data.train.labels["y1"], data.train.labels["y2"]
    note = float(data.notes[0].rsplit(" ", 1)[1])
    assert np.corrcoef(y1, y2)[0, 1] == pytest.approx(note, abs=0.015)


def test_closed_form_by_hand():
    # One sine of frequency 1 and phase 0, c = 1: cov(p) = p + 2 p e^-.5 + e^-1 sinh p.
    def by_hand(p):
        return p + 2 * p * np.exp(-0.5) + np.exp(-1) * np.sinh(p)

    assert label_correlation(0.5, [1.0], [0.0]) == pytest.approx(by_hand(0.5) / (by_hand(1.0) + 0.01), rel=1e-12)
    assert label_correlation(1.0, [1.0, 2.0], [0.1, 0.2], noise_variance=0.0) == pytest.approx(1.0)
    # Without sines and noise, the weights' cosine is the labels' correlation.
    assert label_correlation(-0.3, [], [], c=2.0, noise_variance=0.0) == pytest.approx(-0.3)


def test_variance_of_a_label_is_the_closed_form_too():
    alpha, beta, s = np.array([0.7, 1.3]), np.array([0.2, -0.4]), 1.0
    z = np.random.default_rng(0).standard_normal(400_000)
    y = z + np.sin(np.outer(z, alpha) + beta).sum(1)
    # Correlation at p = 1 with noise n is V / (V + n), which gives V.
    ratio = label_correlation(1.0, alpha, beta, noise_variance=s)
    assert y.var() == pytest.approx(ratio / (1 - ratio), rel=0.02)


def test_data_set():
    data = load_dataset("synthetic_regression", size="small", m=2, alpha=(1.0, 2.0), beta=(0.0, 0.5), d=8)
    assert data.train.inputs["x"].shape == (10_000, 8) and data.train.inputs["x"].dtype == np.float32
    assert data.features[0].shape == (8,) and [task.kind for task in data.tasks] == ["regression"] * 2
    for split in data.splits.values():
        for name in ("y1", "y2"):
            noise = split.labels[name] - split.truth[name]
            assert np.mean(noise**2) == pytest.approx(0.01, rel=0.15)
    same = load_dataset("synthetic_regression", size="small", m=2, alpha=(1.0, 2.0), beta=(0.0, 0.5), d=8)
    assert same.version == data.version
    np.testing.assert_array_equal(same.test.labels["y2"], data.test.labels["y2"])
    assert load_dataset("synthetic_regression", size="small", d=8).version != data.version


def test_encoder_passes_x_through():
    data = load_dataset("synthetic_regression", size="small", d=4)
    x = data.test.inputs["x"][:3]
    np.testing.assert_array_equal(np.asarray(data.features[0].encoder(x)), x)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"correlation": 1.1}, "`correlation` must be a finite number and >= -1 and <= 1"),
        ({"c": 0}, "`c` must be a finite number and > 0"),
        ({"m": -1}, "`m` must be a whole number >= 0"),
        ({"d": 1}, "`d` must be a whole number >= 2"),
        ({"size": "huge"}, "Received: size='huge'"),
        ({"size": 5}, "`size` must be a whole number >= 100"),
        ({"alpha": (1.0,)}, "`alpha` must hold m=5 values. Received: 1 values"),
        ({"beta": (1.0, 2.0, 3.0, 4.0, float("nan"))}, r"`beta\[4\]` must be a finite number"),
        ({"seed": 0.5}, "`seed` must be a whole number >= 0"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        load_dataset("synthetic_regression", **({"size": "small"} | options))


def test_closed_form_refuses():
    with pytest.raises(ValueError, match=r"`alpha` and `beta` must have the same length. Received: 1 and 2 values"):
        label_correlation(0.5, [1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"`correlation` must be"):
        label_correlation(2.0, [], [])
