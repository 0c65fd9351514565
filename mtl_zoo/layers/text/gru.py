from __future__ import annotations

from typing import Any, ClassVar

import keras

from mtl_zoo.layers.text._recurrent import RecurrentEncoder


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TextGRU(RecurrentEncoder):
    """A GRU over a text in each direction, and where both end.

    With `x_1 .. x_n` the vectors of the real tokens, and in each direction `h_0 = 0`:

        z, r = sigmoid(W_zr x_t + U_zr h_{t-1} + b_zr)
        g    = tanh(W_g x_t + b_g + r (U_g h_{t-1} + b_u))
        h_t  = z h_{t-1} + (1 - z) g

    The state after the last token of one direction and that after the first of the other stand side by side. Padding is
    no step, and a text without tokens gives zeros; the reset after the product is that of Keras.

    Args:
        units: Width of the state of each direction.

    Input: tokens (batch, length, dim), and `mask` (batch, length): which are real. Output: (batch, 2 units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.text import TextGRU
    >>> TextGRU(4)(np.zeros((2, 7, 3), "float32"), mask=np.ones((2, 7), "bool")).shape[1:]
    TensorShape([8])

    Reference: Cho et al., EMNLP 2014, arXiv:1406.1078.
    """

    recurrent: ClassVar[Any] = keras.layers.GRU
