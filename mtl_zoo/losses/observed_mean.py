from __future__ import annotations

from typing import Any

from keras import ops

from mtl_zoo import _backend


def observed_mean(values: Any, weights: Any, local: bool = False) -> Any:
    """The mean over observed rows: `sum_i w_i v_i / sum_i w_i`, and 0 where no row is observed.

    Under tf.distribute the denominator is that of the global batch, so that the sum over replicas of what this returns
    (and of its gradients) is the mean over the global batch, however unevenly the observed rows fall on the replicas.

    Args:
        values: (batch,) one loss a row; finite also where the weight is 0.
        weights: (batch,) not negative; 0 where the row is not observed.
        local: Count these rows alone, and not those of other replicas. Default: False.

    Returns:
        A scalar.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.losses import observed_mean
    >>> float(observed_mean(np.array([2.0, 4.0, 9.0], "float32"), np.array([1.0, 1.0, 0.0], "float32")))
    3.0
    """
    total = ops.sum(weights) if local else _backend.sum_over_replicas(ops.sum(weights))
    return ops.sum(values * weights) / ops.where(total > 0, total, 1.0)
