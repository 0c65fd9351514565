from __future__ import annotations

from typing import Any, ClassVar

import keras

from mtl_zoo.layers.text._recurrent import RecurrentEncoder


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TextLSTM(RecurrentEncoder):
    """An LSTM over a text in each direction, and where both end.

    With `x_1 .. x_n` the vectors of the real tokens, and in each direction `h_0 = c_0 = 0`:

        i, f, o = sigmoid(W x_t + U h_{t-1} + b)
        c_t     = f c_{t-1} + i tanh(W_c x_t + U_c h_{t-1} + b_c)
        h_t     = o tanh(c_t)

    The state after the last token of one direction and that after the first of the other stand side by side. Padding is
    no step, and a text without tokens gives zeros.

    Args:
        units: Width of the state of each direction.

    Input: tokens (batch, length, dim), and `mask` (batch, length): which are real. Output: (batch, 2 units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.text import TextLSTM
    >>> TextLSTM(4)(np.zeros((2, 7, 3), "float32"), mask=np.ones((2, 7), "bool")).shape[1:]
    TensorShape([8])

    Reference: Hochreiter and Schmidhuber, Neural Computation 1997, doi:10.1162/neco.1997.9.8.1735.
    """

    recurrent: ClassVar[Any] = keras.layers.LSTM
