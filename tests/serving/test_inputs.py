"""What `fit`, `evaluate` and `predict` are given is checked: raw columns are not read as ids, on any way in."""

import numpy as np
import pandas as pd
import pytest
from toys import build, inputs, labels

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, create_model


@pytest.fixture(scope="module")
def model():
    model = build("shared_bottom")
    model.compile()
    return model


WAYS = {
    "predict": lambda model, x: model.predict(x, verbose=0),
    "predict_on_batch": lambda model, x: model.predict_on_batch(x),
    "evaluate": lambda model, x: model.evaluate(x, labels(64), verbose=0),
    "fit": lambda model, x: model.fit(x, labels(64), verbose=0),
    "validation": lambda model, x: model.fit(
        inputs(64), labels(64), validation_data=(x, labels(64)), verbose=0, epochs=0
    ),
}


# fault 4
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name, values, message",
    [
        ("user_id", np.arange(64) + 100, r"ids of its table of 32 rows.* 64 of 64 are not, for example \[100, 101, .*"),
        ("user_id", np.where(np.arange(64) < 60, 3, -1), r"ids of its table of 32 rows.* 4 of 64 are not.*\[-1\]"),
        ("user_id", np.array([1.7] * 64), "whole numbers.* 64 of 64 are not"),
        ("history", np.full((64, 5), 2**31 - 1), "ids of its table of 8 rows.* 320 of 320 are not"),
        ("price", np.full(64, 2**64 - 1, "uint64"), "ids of its table of 6 rows"),
        ("age", np.where(np.arange(64) < 1, np.nan, 1.0), "finite.* 1 of 64 are not"),
        ("age", np.full(64, 1e39), "finite numbers that fit in float32"),
        ("user_id", np.array(["a"] * 64), "numbers, of a type that becomes int32.*dtype <U1"),
    ],
)
def test_what_is_no_id_or_number_is_refused(model, way, name, values, message):
    with pytest.raises(ValueError, match=rf"\['{name}'\]` must be {message}.*Are these raw columns\?.*DataFrame"):
        WAYS[way](model, {**inputs(64), name: values})


def test_ids_may_come_in_any_type_that_keeps_them(model):
    x = inputs(16)
    expected = model.predict(x, verbose=0)["click"]
    for dtype in ("int64", "uint8", "float64"):
        found = model.predict({**x, "user_id": x["user_id"].astype(dtype)}, verbose=0)
        np.testing.assert_allclose(found["click"], expected, atol=1e-6)


# fault 4
@pytest.mark.tensorflow
@pytest.mark.parametrize("way", ["fit", "evaluate", "predict"])
def test_the_first_batch_of_a_data_set_is_checked(model, way):
    import tensorflow as tf

    def data(x):
        return tf.data.Dataset.from_tensor_slices((x, labels(64))).shuffle(64, seed=3).batch(16)

    def call(x):
        given = data(x) if way != "predict" else data(x).map(lambda x, y: x)
        return getattr(model, way)(given, verbose=0)

    with pytest.raises(ValueError, match=r"`x\['user_id'\]` must be ids of its table.*16 of 16 are not"):
        call({**inputs(64), "user_id": np.arange(64) + 100})
    with pytest.raises(ValueError, match=r"`x\['user_id'\]` must be numbers"):
        call({**inputs(64), "user_id": np.array(["a"] * 64)})
    call(inputs(64))


@pytest.mark.tensorflow
def test_a_checked_data_set_has_the_batches_that_it_had(model):
    import tensorflow as tf

    from mtl_zoo.models._first_batch import FirstBatch

    def data():
        return tf.data.Dataset.from_tensor_slices((inputs(64), labels(64))).shuffle(64, seed=3).batch(16)

    plain, checked = data(), FirstBatch(model).checked("x", data())
    assert checked.element_spec == plain.element_spec and int(checked.cardinality()) == 4
    for _ in range(2):
        for (x, y), (a, b) in zip(plain, checked, strict=True):
            np.testing.assert_array_equal(x["user_id"], a["user_id"])
            np.testing.assert_array_equal(y["click"], b["click"])


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    city = rng.choice(["Rome", "Oslo"], 60)
    return pd.DataFrame({"city": city, "km": rng.normal(100, 50, 60), "click": (city == "Rome").astype(int)})


@pytest.fixture(scope="module", params=[None, "to_go"])
def of_tables(request, frame):
    distance = Numeric("km") if request.param is None else Numeric(request.param, column="km")
    transform = FeatureTransform([Categorical("city", dim=4), distance], BinaryTask("click")).fit(frame)
    model = create_model("shared_bottom", transform, bottom_units=(8,), tower_units=(4,))
    model.compile()
    return model


# fault 4, fault 25
def test_a_dict_of_raw_columns_is_a_table(of_tables, frame):
    raw = {name: frame[name].to_numpy() for name in frame}
    np.testing.assert_array_equal(
        of_tables.predict(raw, verbose=0)["click"], of_tables.predict(frame, verbose=0)["click"]
    )
    assert of_tables.evaluate(raw, verbose=0, return_dict=True) == of_tables.evaluate(
        frame, verbose=0, return_dict=True
    )
    of_tables.fit(raw, verbose=0)


def test_encoded_arrays_stay_what_they_are(of_tables, frame):
    encoded = of_tables.transform.encode(frame)
    np.testing.assert_array_equal(
        of_tables.predict({**encoded, "click": frame["click"].to_numpy()}, verbose=0)["click"],
        of_tables.predict(frame, verbose=0)["click"],
    )
