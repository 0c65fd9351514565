"""The methods that models inherit from Keras keep the zoo's promises, or refuse with the reason."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MMoE, Numeric
from mtl_zoo.balancing import PCGrad

pytestmark = pytest.mark.tensorflow

ROWS = pd.DataFrame(
    {"user": ["a", "b", "c", "a"], "age": [1.0, 2.0, 3.0, 4.0], "click": [0.0, 1.0, 0.0, 1.0], "like": [1.0, 0, 1, 0]}
)


@pytest.fixture(scope="module")
def transform():
    features, tasks = [Categorical("user", dim=2), Numeric("age")], [BinaryTask("click"), BinaryTask("like")]
    return FeatureTransform(features, tasks).fit(ROWS)


@pytest.fixture
def model(transform):
    model = MMoE(transform, num_experts=2, expert_units=(3,), tower_units=())
    model.compile("sgd", balancing=PCGrad(shuffle=False), metrics=None)
    return model


# fault 2, fault 25
def test_a_clone_is_a_model_of_the_same_kind(model):
    with pytest.raises(ValueError, match=r"`model` must be cloned by `model.clone\(\)`.*Received: a MMoE"):
        keras.models.clone_model(model)
    clone = model.clone()
    assert type(clone) is MMoE and clone.compiled and clone.balancing.method_name == "pcgrad"
    assert [tuple(v.shape) for v in clone.weights] == [tuple(v.shape) for v in model.weights]
    assert not {id(v) for v in clone.weights} & {id(v) for v in model.weights}
    clone.fit(ROWS, verbose=0)
    assert set(clone.predict(ROWS, verbose=0)) == {"click", "like"}


# fault 2
def test_a_config_and_json_make_a_model_of_the_same_kind(model):
    made = keras.models.model_from_json(model.to_json())
    assert type(made) is MMoE
    assert made.get_config() == model.get_config()
    assert json.loads(model.to_json())["class_name"] == "MMoE"
    with pytest.raises(ValueError, match="`x` may be a table only if the model was made with a fitted"):
        made.predict(ROWS, verbose=0)


# fault 2
def test_steps_on_a_batch_read_what_fit_reads(model, transform):
    logs = model.test_on_batch(ROWS, return_dict=True)
    arrays, labels = transform.encode(ROWS), transform.encode_labels(ROWS)
    assert model.test_on_batch(arrays, labels, return_dict=True)["loss"] == pytest.approx(logs["loss"], rel=1e-6)
    model.train_on_batch(ROWS)
    model.train_on_batch(arrays, labels)
    assert int(model.optimizer.iterations) == 2
    with pytest.raises(ValueError, match="user"):
        model.train_on_batch({**arrays, "user": np.full(4, 900)}, labels)
    with pytest.raises(ValueError, match="click"):
        model.train_on_batch(arrays, {**labels, "click": np.full(4, 7.0)})


# fault 2
def test_weights_are_loaded_into_a_clone(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    clone = model.clone()
    clone.load_weights(tmp_path / "model.weights.h5")
    for name, value in model.predict(ROWS, verbose=0).items():
        np.testing.assert_array_equal(clone.predict(ROWS, verbose=0)[name], value)


# fault 41
def test_quantization_is_refused(model):
    before = [ops.convert_to_numpy(v) for v in model.weights]
    with pytest.raises(ValueError, match="`quantize` must not be called on a model of the zoo.*Received: mode='int8'"):
        model.quantize("int8")
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


# fault 25
def test_a_mistyped_argument_lists_those_that_there_are(transform):
    with pytest.raises(TypeError, match=r"`dropout` is not an argument of MMoE. Expected: one of \['num_experts', "):
        MMoE(transform, dropout=0.1)


# fault 25
def test_models_are_called_as_in_the_catalogue(transform):
    keras.backend.clear_session()
    names = [MMoE(transform, num_experts=1, expert_units=(2,), tower_units=()).name for _ in range(2)]
    assert names == ["mmoe", "mmoe_1"]
    lines = []
    MMoE(transform, num_experts=1, expert_units=(2,), name="mine").summary(print_fn=lines.append)
    assert 'Model: "mine"' in "\n".join(map(str, lines))


# fault 37: a feature named like a layer is refused by name
@pytest.mark.parametrize("name", ["embedding", "experts", "click_tower"])
def test_a_feature_named_like_a_layer_is_refused_by_name(name):
    rule = "`features` must not be named like a layer of the model"
    with pytest.raises(ValueError, match=f"{rule}. Received: '{name}'"):
        MMoE([Categorical(name, size=4)], [BinaryTask("click")])
