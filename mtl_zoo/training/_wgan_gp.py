"""A WGAN-GP for rows of numbers and categories, given their joint label."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.training._mixed_rows import MixedRows


@dataclasses.dataclass(frozen=True)
class WGANGP:
    """A conditional Wasserstein generator with a gradient penalty: how `generate_rows` makes rows.

    From noise `z` and the joint label `c` the generator makes a row `G(z, c)`: scaled numbers, and for each category
    `softmax((logits + g) / temperature)` with Gumbel noise `g`, which is nearly one-hot. The critic `D` learns

        mean D(G(z, c), c) - mean D(x, c) + penalty mean (||grad_u D(u, c)|| - 1)^2,   u between a row and a made one

    and the generator the negative of the first term, once for every `critic_steps` steps of the critic. Both are two
    dense layers; joint labels come equally often, so that the rare ones are learned.

    Args:
        steps: Of the generator.
        batch_size: Rows of a step.
        units: Layer widths of both.
        noise: Width of `z`.
        critic_steps: Of the critic for one of the generator.
        penalty: Factor of the gradient penalty.
        temperature: Of the Gumbel-softmax.
        learning_rate: Of Adam with beta_1 = 0 and beta_2 = 0.9.

    Raises:
        ValueError: An option is out of range.

    Example:

    >>> from mtl_zoo.training import WGANGP
    >>> WGANGP(steps=200).penalty
    10.0

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028; Jang et al.,
    "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017, arXiv:1611.01144.
    """

    steps: int = 1000
    batch_size: int = 256
    units: tuple[int, ...] = (128, 128)
    noise: int = 32
    critic_steps: int = 5
    penalty: float = 10.0
    temperature: float = 0.3
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "noise", "critic_steps"):
            check.check_int(name, getattr(self, name))
        object.__setattr__(self, "units", check.check_units("units", self.units))
        check.check_number("penalty", self.penalty, minimum=0)
        check.check_number("temperature", self.temperature, above=0)
        check.check_number("learning_rate", self.learning_rate, above=0)

    def generate(self, rows: MixedRows, cells: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and codes of made rows, one for each of the joint labels `cells`."""
        pair = _Pair(self, rows, seed)
        pair.train()
        return pair.made(cells)


class _Pair:
    """The generator and the critic."""

    def __init__(self, options: WGANGP, rows: MixedRows, seed: int):
        self.options, self.sizes = options, rows.sizes
        self.width, self.num_cells = rows.numbers.shape[1], len(rows.labels)
        seeds = np.random.SeedSequence(seed).generate_state(3)
        self._rng = np.random.default_rng(seeds[0])
        self._draws = keras.random.SeedGenerator(int(seeds[1]))
        self._seeds = iter(np.random.SeedSequence(int(seeds[2])).generate_state(64).tolist())
        onehot = [np.eye(size, dtype="float32")[rows.codes[:, i]] for i, size in enumerate(rows.sizes)]
        self._rows = np.concatenate([rows.numbers.astype("float32"), *onehot], axis=1)
        self._by_cell = np.argsort(rows.cells, kind="stable")
        self._counts = np.bincount(rows.cells, minlength=self.num_cells)
        self._starts = np.cumsum(self._counts) - self._counts
        self.generator = self._dense(options.noise + self.num_cells, self._rows.shape[1], "relu")
        self.critic = self._dense(self._rows.shape[1] + self.num_cells, 1, "leaky_relu")
        adam = {"learning_rate": options.learning_rate, "beta_1": 0.0, "beta_2": 0.9}
        self._optimizers = keras.optimizers.Adam(**adam), keras.optimizers.Adam(**adam)

    def _dense(self, width: int, outputs: int, activation: str) -> keras.Model:
        def layer(units: int, kind: str | None) -> keras.layers.Layer:
            start = keras.initializers.GlorotUniform(seed=next(self._seeds))
            return keras.layers.Dense(units, kind, kernel_initializer=start, dtype="float32")

        layers = [layer(units, activation) for units in self.options.units]
        return keras.Sequential([keras.Input((width,)), *layers, layer(outputs, None)])

    def train(self) -> None:
        import tensorflow as tf

        for model, optimizer in zip((self.generator, self.critic), self._optimizers, strict=True):
            optimizer.build(model.trainable_variables)
        step = tf.function(self._step, autograph=False)
        for _ in range(self.options.steps):
            count = self.options.batch_size * self.options.critic_steps
            cells = self._rng.integers(0, self.num_cells, count)
            at = self._starts[cells] + (self._rng.random(count) * self._counts[cells]).astype("int64")
            step(tf.constant(self._rows[self._by_cell[at]]), tf.constant(cells))

    def _step(self, rows: Any, cells: Any) -> None:
        import tensorflow as tf

        size = self.options.batch_size
        for start in range(0, self.options.critic_steps * size, size):
            with tf.GradientTape() as tape:
                loss = self._critic_loss(rows[start : start + size], self._given(cells[start : start + size]))
            self._apply(1, self.critic, tape, loss)
        with tf.GradientTape() as tape:
            given = self._given(cells[:size])
            loss = -ops.mean(self.critic(ops.concatenate([self._fake(given), given], axis=1)))
        self._apply(0, self.generator, tape, loss)

    def _apply(self, which: int, model: keras.Model, tape: Any, loss: Any) -> None:
        gradients = tape.gradient(loss, model.trainable_variables)
        self._optimizers[which].apply(gradients, model.trainable_variables)

    def _critic_loss(self, real: Any, given: Any) -> Any:
        import tensorflow as tf

        fake = tf.stop_gradient(self._fake(given))
        share = keras.random.uniform((ops.shape(real)[0], 1), seed=self._draws)
        between = share * real + (1 - share) * fake
        with tf.GradientTape() as tape:
            tape.watch(between)
            judged = self.critic(ops.concatenate([between, given], axis=1))
        slope = ops.sqrt(ops.sum(ops.square(tape.gradient(judged, between)), axis=1) + 1e-12)
        gap = [ops.mean(self.critic(ops.concatenate([x, given], axis=1))) for x in (fake, real)]
        return gap[0] - gap[1] + self.options.penalty * ops.mean(ops.square(slope - 1))

    def _given(self, cells: Any) -> Any:
        return ops.one_hot(cells, self.num_cells, dtype="float32")

    def _raw(self, given: Any) -> Any:
        noise = keras.random.normal((ops.shape(given)[0], self.options.noise), seed=self._draws)
        return self.generator(ops.concatenate([noise, given], axis=1))

    def _fake(self, given: Any) -> Any:
        """Rows as the critic reads them: numbers, and categories that are nearly one-hot."""
        raw = self._raw(given)
        parts, start = [raw[:, : self.width]], self.width
        for size in self.sizes:
            logits = raw[:, start : start + size]
            u = keras.random.uniform(ops.shape(logits), 1e-6, 1 - 1e-6, seed=self._draws)
            parts.append(ops.softmax((logits - ops.log(-ops.log(u))) / self.options.temperature))
            start += size
        return ops.concatenate(parts, axis=1)

    def made(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and codes of rows with these joint labels; a category is drawn from its softmax."""
        fake = ops.convert_to_numpy(self._fake(self._given(cells)))
        ends = self.width + np.cumsum([0, *self.sizes])
        codes = [fake[:, start:end].argmax(axis=1) for start, end in itertools.pairwise(ends)]
        return fake[:, : self.width], np.stack(codes, axis=1) if codes else np.zeros((len(cells), 0), "int64")
