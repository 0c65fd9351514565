"""Single-task: what every model with one task must equal, and networks that share nothing."""

import numpy as np
import pytest
from toys import CLICK, TASKS, assert_same_function, build, copy_bank_to_stack, copy_heads_and_embedding, loss_gradients

from mtl_zoo import MLP


@pytest.mark.parametrize("name", ["shared_bottom", "cross_stitch", "mmoe"])
def test_one_task_is_the_single_task_network(name):
    extra = {"num_experts": 1} if name == "mmoe" else {}
    model, single = build(name, [CLICK], **extra), build("single_task", [CLICK], share_embeddings=True)
    copy_heads_and_embedding(model, single)
    bottom = single.get_layer("click_bottom")
    if name == "mmoe":
        copy_bank_to_stack(model.get_layer("experts"), bottom)
    else:
        stacks = [model.get_layer(f"click_column_{i}") for i in range(2)] if name == "cross_stitch" else None
        stacks = stacks or [model.get_layer("bottom")]
        for target, source in zip(bottom.dense, [d for stack in stacks for d in stack.dense], strict=True):
            target.kernel.assign(source.kernel)
            target.bias.assign(source.bias)
    assert_same_function(model, single)


def test_task_variables_hold_moving_statistics():
    model = build("single_task", bottom_units=MLP((4,), norm="batch"))
    assert any("moving_mean" in v.path for v in model.task_variables("click"))


def test_single_task_networks_share_nothing():
    model = build("single_task")
    assert model.independent_tasks
    for task in TASKS:
        grads = loss_gradients(model, task.name)
        moved = {path for path, grad in grads.items() if np.any(grad)}
        assert moved == {v.path for v in model.task_variables(task.name)}
    assert not build("single_task", share_embeddings=True).independent_tasks
