"""Cross-stitch: with the identity it is independent networks."""

import numpy as np
from toys import TASKS, assert_same_function, build, copy_heads_and_embedding, loss_gradients


def test_cross_stitch_with_the_identity_is_independent_networks():
    stitch, single = build("cross_stitch", diagonal=1.0), build("single_task", share_embeddings=True)
    copy_heads_and_embedding(stitch, single)
    for task in TASKS:
        for i in range(2):
            column = stitch.get_layer(f"{task.name}_column_{i}").dense[0]
            dense = single.get_layer(f"{task.name}_bottom").dense[i]
            dense.kernel.assign(column.kernel)
            dense.bias.assign(column.bias)
    assert_same_function(stitch, single)
    ours, theirs = loss_gradients(stitch), loss_gradients(single)
    for task in TASKS:
        for i in range(2):
            np.testing.assert_allclose(
                ours[f"{task.name}_column_{i}/dense_0/kernel"],
                theirs[f"{task.name}_bottom/dense_{i}/kernel"],
                atol=1e-6,
            )
