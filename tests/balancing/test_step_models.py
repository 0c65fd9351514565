"""The balanced step on models that share nothing or have one task, its state, and the two halves of a graph."""

import keras
import numpy as np
import pytest
from balanced_steps import (
    TWO_TASKS,
    Mixed,
    OnesOfBorder,
    assert_same,
    by_task,
    compiled,
    gram_of,
    inputs_for,
    small,
    step_of,
    trained,
)
from keras import ops
from toys import build, labels_for

from mtl_zoo.balancing import create_balancing

pytestmark = pytest.mark.tensorflow


# Models that share nothing, or something else.


def sharing_nothing():
    return small("single_task", bottom_units=(6,))


@pytest.fixture(scope="module")
def plain_sharing_nothing():
    return trained(sharing_nothing, None)[0]


@pytest.mark.parametrize("balancing", ["pcgrad", "mgda_ub", "grad_norm", "grad_drop", "moco"])
def test_where_nothing_is_shared_the_losses_are_summed_with_a_warning(balancing, plain_sharing_nothing):
    with pytest.warns(UserWarning, match=r"`balancing='\w+'` has nothing to weigh: the losses of .* share no "):
        found, model = trained(sharing_nothing, balancing)
    assert_same(plain_sharing_nothing, found)
    assert ops.convert_to_numpy(model.balancing.last_coefficients).tolist() == [1, 1]
    assert ops.convert_to_numpy(model.balancing.skipped).tolist() == [0, 0]


def test_where_tables_alone_are_shared_they_can_be_weighed():
    def make():
        return small("single_task", bottom_units=(6,), share_embeddings=True)

    plain, _ = trained(make, None)
    with pytest.warns(UserWarning, match="share no weights, tables aside"):
        found, _ = trained(make, "mgda")
    assert_same(plain, found)
    model = make()
    found, touched, _ = by_task(model)
    tables = [p for p, losses in touched.items() if len(losses) > 1]
    compiled(model, create_balancing("mgda", include_tables=True))
    step_of(model)
    gram = gram_of(found, tables)
    np.testing.assert_allclose(ops.convert_to_numpy(model.balancing.last_norms), np.sqrt(np.diag(gram)), rtol=1e-4)
    assert ops.convert_to_numpy(model.balancing.last_coefficients).sum() == pytest.approx(1, rel=1e-4)


def of_one_task():
    return small(tasks=TWO_TASKS[:1])


@pytest.fixture(scope="module")
def plain_of_one_task():
    return trained(of_one_task, None)[0]


@pytest.mark.parametrize("balancing", ["pcgrad", "mgda_ub", "grad_norm", "grad_drop", "moco"])
def test_one_task_takes_the_plain_step(balancing, plain_of_one_task):
    assert_same(plain_of_one_task, trained(of_one_task, balancing)[0])


@pytest.mark.extended
@pytest.mark.parametrize("name", ["esmm", "ple", "stem", "cross_stitch"])
def test_other_graphs(name):
    plain, _ = trained(lambda: build(name), None, steps=1)
    for balancing in (OnesOfBorder(), Mixed()):
        found, _ = trained(lambda: build(name), balancing, steps=1)
        assert_same(plain, found)


# State.


def test_weights_that_were_frozen_after_compile_are_noticed():
    model = compiled(small(bottom_units=(6, 4)), "moco")
    model.get_layer("bottom").dense[0].trainable = False
    with pytest.raises(ValueError, match=r"`compile\(\)` must be called again after weights were frozen"):
        model.train_on_batch(inputs_for(model), labels_for(model))


def test_state_has_a_place_for_every_shared_parameter():
    model = compiled(small(), "moco")
    bottom = model.get_layer("bottom").dense[0]
    assert model.balancing.averages.shape == (2, bottom.kernel.shape[0] * 6 + 6)


def test_compiling_again_drops_the_old_method(tmp_path):
    model = compiled(small(), "moco")
    count = len(model.weights)
    compiled(model, "moco")
    assert len(model.weights) == count
    compiled(model, None)
    assert not [v for v in model.weights if "balancing" in v.path]
    model.save_weights(tmp_path / "plain.weights.h5")
    compiled(model, "moco").load_weights(tmp_path / "plain.weights.h5")
    model.train_on_batch(inputs_for(model), labels_for(model))
    model.save_weights(tmp_path / "moco.weights.h5")
    compiled(model, "pcgrad").load_weights(tmp_path / "moco.weights.h5")
    assert float(model.balancing.step) == 0  # another method's state starts anew
    compiled(model, "moco").load_weights(tmp_path / "moco.weights.h5")
    assert float(model.balancing.step) == 1
    assert np.any(ops.convert_to_numpy(model.balancing.averages))


# The graph's two parts.


@pytest.mark.extended
def test_the_representation_of_several_graphs():
    def names(name):
        parts = compiled(build(name), "mgda_ub").balancing.halves
        return sorted(tensor.name.rpartition("_output")[0] for tensor in parts.above.input[0])

    assert names("shared_bottom") == ["bottom"]
    assert names("mmoe") == ["embedding", "experts"]
    assert names("single_task") == []
    assert "click_head" in names("esmm")  # both losses depend on the click logit
    # The last unit gives each task a vector of its own: what they have in common ends below it.
    assert names("cross_stitch") == ["click_column_1", "conversion_column_1", "like_column_1"]


@pytest.mark.parametrize("name", ["mmoe", "esmm", "pepnet", "single_task"])
def test_two_halves_are_the_model(name):
    from mtl_zoo.models import halves

    model = build(name)
    expected = model(inputs_for(model))
    parts = compiled(model, "mgda_ub").balancing.halves if name == "esmm" else halves(model)
    logits = parts.above(parts.below(inputs_for(model)))
    for output, value in expected.items():
        np.testing.assert_array_equal(logits[output], value)
    both = {id(v) for half in (parts.below, parts.above) for v in half.weights}
    assert both == {id(v) for layer in model.layers for v in layer.weights}


def test_halves_of_unknown_logits():
    from mtl_zoo.models import halves

    with pytest.raises(ValueError, match=r"`losses` must name outputs of the model. Received unknown: \['buy'\]"):
        halves(small(), [{"click"}, {"buy"}])


@pytest.mark.extended
def test_layers_called_on_both_sides_keep_what_they_add_to_the_loss():
    """A layer with a penalty that one loss alone and several depend on, in two calls."""
    import tensorflow as tf

    from mtl_zoo.models import halves

    twice = keras.layers.Dense(3, activity_regularizer=keras.regularizers.L2(1.0), name="twice")
    x = keras.Input((3,), name="x")
    shared = twice(x)
    model = keras.Model({"x": x}, {"a": keras.layers.Dense(1)(twice(shared)), "b": keras.layers.Dense(1)(shared)})
    rows = {"x": np.random.default_rng(0).normal(size=(5, 3)).astype("float32")}
    expected = model(rows)
    penalty = sum(model.losses)
    with tf.GradientTape(persistent=True) as tape:
        logits, representation = halves(model).record(rows, tape)
    np.testing.assert_allclose(sum(model.losses), penalty, rtol=1e-6)
    np.testing.assert_array_equal(logits["a"], expected["a"])
    assert [tuple(value.shape) for value in representation] == [(5, 3)]
