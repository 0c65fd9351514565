from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class ExpectedL0(keras.regularizers.Regularizer):
    """The expected number of open hard-concrete gates: `l0 sum sigmoid(log_alpha - beta log(-gamma / zeta))`.

    Args:
        l0: The factor of the penalty.
        beta, gamma, zeta: The constants of the gates, as in `SubNetworkRouting`.
    """

    def __init__(self, l0: float, beta: float, gamma: float, zeta: float) -> None:
        self.l0, self.beta, self.gamma, self.zeta = l0, beta, gamma, zeta

    def __call__(self, x: Tensor) -> Tensor:
        return self.l0 * ops.sum(self.open_probability(x))

    def open_probability(self, log_alpha: Tensor) -> Tensor:
        """The probability that `z` is not 0, for each gate."""
        return ops.sigmoid(log_alpha - self.beta * math.log(-self.gamma / self.zeta))

    def get_config(self) -> Config:
        return {"l0": self.l0, "beta": self.beta, "gamma": self.gamma, "zeta": self.zeta}


@keras.saving.register_keras_serializable(package="mtl_zoo")
class SubNetworkRouting(keras.layers.Layer):
    """Connects sub-networks `u_j` to the inputs `v_i` of the next ones, with a gate on each connection that can close.

        v_i = sum_j z_ij W_ij u_j   (transform),   or   v_i = sum_j z_ij u_j

    Every `z_ij` is a hard-concrete gate. In training one `u ~ U(0, 1)` is drawn for each connection at each step, the
    same for all rows of the batch; at inference the gate is fixed:

        s = sigmoid((log u - log(1 - u) + log_alpha_ij) / beta)     training
        s = sigmoid(log_alpha_ij)                                   inference
        z_ij = clip(s (zeta - gamma) + gamma, 0, 1)

    The model's `losses` hold the expected number of open gates,
    `l0 sum_ij sigmoid(log_alpha_ij - beta log(-gamma / zeta))`, as a weight regulariser. Only `log_alpha` is learned;
    `u` is a sample.

    Args:
        num_outputs: The number of outputs `v_i`.
        transform: Whether there are matrices `W_ij`.
        l0: The factor of the penalty.
        beta: The temperature of the gates.
        gamma: A number below 0: how far `s` is stretched below 0, which lets gates close.
        zeta: A number above 1: how far `s` is stretched above 1, which lets gates open fully.
        log_alpha: Where every `log_alpha_ij` starts.
        seed: Seed of the samples.

    Input: (batch, J, units). Output: (batch, num_outputs, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import SubNetworkRouting
    >>> routing = SubNetworkRouting(1, transform=False, log_alpha=20.0)
    >>> routing(np.array([[[1.0, 2.0], [10.0, 20.0]]], "float32")).numpy().tolist()
    [[[11.0, 22.0]]]

    Reference: Ma et al., AAAI 2019, doi:10.1609/aaai.v33i01.3301216; the gates: Louizos et al., ICLR 2018,
    arXiv:1712.01312.
    """

    def __init__(
        self,
        num_outputs: int,
        transform: bool = True,
        l0: float = 0.0,
        beta: float = 2 / 3,
        gamma: float = -0.1,
        zeta: float = 1.1,
        log_alpha: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = check.check_count("num_outputs", num_outputs)
        self.transform = bool(transform)
        self.l0 = check.check_number("l0", l0, minimum=0)
        self.beta = check.check_number("beta", beta, above=0)
        self.gamma = check.check_number("gamma", gamma, below=0)
        self.zeta = check.check_number("zeta", zeta, above=1)
        self.log_alpha = check.check_number("log_alpha", log_alpha)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        inputs, units = input_shape[1:]
        self.log_alphas = self.add_weight(
            shape=(self.num_outputs, inputs),
            initializer=keras.initializers.Constant(self.log_alpha),
            regularizer=self._penalty() if self.l0 else None,
            # A gate near its edge must not be rounded open or shut under mixed precision.
            autocast=False,
            name="log_alpha",
        )
        self.kernel = None
        if self.transform:
            shape = (self.num_outputs, inputs, units, units)
            self.kernel = self.add_weight(shape=shape, initializer=self._draw_each, name="kernel")

    def _draw_each(self, shape: Shape, dtype: Any = None) -> Tensor:
        # v_i is one dense layer over all u_j side by side, so its kernel is drawn with the fans of that layer.
        outputs, inputs, units, _ = shape
        draws = [keras.initializers.GlorotUniform()((inputs * units, units), dtype=dtype) for _ in range(outputs)]
        return ops.reshape(ops.stack(draws), shape)

    def _penalty(self) -> ExpectedL0:
        return ExpectedL0(self.l0, self.beta, self.gamma, self.zeta)

    def open_probability(self) -> Tensor:
        """The probability that `z_ij` is not 0 in training, (num_outputs, J)."""
        return self._penalty().open_probability(self.log_alphas)

    def gates(self) -> Tensor:
        """The gates `z_ij` at inference, (num_outputs, J)."""
        return self._stretch(ops.sigmoid(self.log_alphas))

    def sample_gates(self) -> Tensor:
        """A sample of the gates `z_ij` as in training, (num_outputs, J)."""
        uniform = keras.random.uniform(self.log_alphas.shape, seed=self.seed_generator, dtype="float32")
        uniform = ops.clip(uniform, 1e-6, 1 - 1e-6)
        noise = ops.log(uniform) - ops.log(1 - uniform)
        return self._stretch(ops.sigmoid((noise + self.log_alphas) / self.beta))

    def _stretch(self, s: Tensor) -> Tensor:
        return ops.clip(s * (self.zeta - self.gamma) + self.gamma, 0, 1)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        z = ops.cast(self.sample_gates() if training else self.gates(), inputs.dtype)
        if not self.transform:
            return ops.matmul(z, inputs)
        # One product for each output, over all u_j side by side.
        sub_networks, units = inputs.shape[1:]
        kernels = ops.reshape(z[:, :, None, None] * self.kernel, (self.num_outputs, sub_networks * units, units))
        side_by_side = ops.reshape(inputs, (-1, sub_networks * units))
        outputs = [ops.matmul(side_by_side, kernel) for kernel in ops.unstack(kernels, self.num_outputs)]
        return ops.stack(outputs, axis=1)

    def save_own_variables(self, store: Any) -> None:
        # Keras leaves the state of a seed generator out: a loaded model would go on with other samples.
        super().save_own_variables(store)
        store["seed_state"] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        self.seed_generator.state.assign(store["seed_state"])
        super().load_own_variables({key: store[key] for key in store.keys() if key != "seed_state"})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_outputs, input_shape[-1])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "transform": self.transform,
            "l0": self.l0,
            "beta": self.beta,
            "gamma": self.gamma,
            "zeta": self.zeta,
            "log_alpha": self.log_alpha,
            "seed": self.seed,
        }
