"""Shared-bottom: gradients of tasks add up in the bottom and stay out of each other's towers."""

import keras
import numpy as np
from keras import ops
from toys import TASKS, build, compile_eagerly, inputs, labels, loss_gradients


def test_shared_bottom_gets_the_sum_of_the_tasks_gradients():
    model = build("shared_bottom")
    total = loss_gradients(model)["bottom/dense_0/kernel"]
    parts = [loss_gradients(model, task.name)["bottom/dense_0/kernel"] for task in TASKS]
    np.testing.assert_allclose(total, sum(parts), atol=1e-6)


def test_a_loss_weight_of_zero_leaves_the_tower_alone():
    model = build("shared_bottom")
    weights = {"click": 1.0, "conversion": 0.0, "like": 1.0}
    compile_eagerly(model, keras.optimizers.SGD(0.1), loss_weights=weights)
    before = [ops.convert_to_numpy(v).copy() for v in model.task_variables("conversion")]
    model.fit(inputs(), labels(), batch_size=64, verbose=0)
    for variable, value in zip(model.task_variables("conversion"), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
