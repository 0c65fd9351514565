# %% [markdown]
# # Several devices, and training that goes on after a fall
#
# `fit` under a `tf.distribute` strategy trains to the weights of one device: losses are means over the *global*
# batch, and so are metrics. This tutorial shows it on two logical devices of one processor, and then stops a training
# in the middle and lets it go on. It takes half a minute.

# %%
import keras
import numpy as np
import tensorflow as tf

import mtl_zoo
from mtl_zoo.training import Checkpoints

# %% [markdown]
# ## Two devices
#
# With GPUs, `tf.distribute.MirroredStrategy()` finds them. Here the processor is cut in two, which gains no time and
# shows the same. It must happen before anything else of TensorFlow.

# %%
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
train = data.train.take(8_000)

# %% [markdown]
# The model is made and compiled in the scope of the strategy; nothing else changes. `batch_size` is that of the
# global batch, so each device sees 128 of its 256 rows.


# %%
def fitted(strategy, epochs=2, callbacks=None):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = mtl_zoo.create_model("mmoe", data.features, data.tasks, num_experts=2, expert_units=(16,))
        model.compile("lazy_sgd", balancing="uncertainty")
    model.fit(train.inputs, train.labels, batch_size=256, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


one, two = fitted(tf.distribute.get_strategy()), fitted(mirrored)
for a, b in zip(one.weights, two.weights, strict=True):
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-5 * max(np.abs(a.numpy()).max(), 1e-3))
print("two devices have trained to the weights of one")

# %% [markdown]
# To 1e-5 of the largest weight of a tensor: sums in another order round differently. A loss that is a mean over each
# device's own rows would not give it: the few clicked rows of a batch, on which `conversion` is defined, never fall
# evenly.
#
# ## Going on
#
# `Checkpoints` writes weights, optimizer, balancing state, metrics, the position in the input and the random state,
# each time to a new file that has its name only when it is whole. Training that was killed is started again *by the
# same call*. Here a callback does the killing, in the middle of the second epoch.


# %%
class Falls(keras.callbacks.Callback):
    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == 50:
            raise KeyboardInterrupt


try:
    fitted(mirrored, callbacks=[Checkpoints("run", every_steps=20), Falls()])
except KeyboardInterrupt:
    print("fell at step 50")

checkpoints = Checkpoints("run", every_steps=20)
again = fitted(mirrored, callbacks=[checkpoints])
print("went on from", checkpoints.resumed_from)
assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(two.weights, again.weights, strict=True))

# %% [markdown]
# The weights are those of the training that was not interrupted, bit for bit, though steps 41 to 50 were done twice.
#
# ## Several machines
#
# The same script runs on several workers: with `MultiWorkerMirroredStrategy()` in place of `MirroredStrategy`, and
# `TF_CONFIG` set by whatever starts it. For a try on one machine
#
#     mtl-zoo launch --workers 2 --restarts 3 -- python train.py
#
# starts two processes, and starts them again from the last checkpoint when one dies. Tables that are larger than a
# machine go to parameter servers (`--ps 2`). `docs/concepts/distributed.md` has the details, files for Kubernetes and
# Slurm, and what was tested; `docs/concepts/scaling.md` what it costs, and up to how many workers it pays.
#
# Next: from a trained model to a ranked list (`06_serving.py`).
