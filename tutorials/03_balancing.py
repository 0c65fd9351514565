# %% [markdown]
# # Tasks that pull in different directions
#
# Several losses, one set of shared weights: which loss do they follow? This tutorial looks before it acts. It
# measures how large each task's gradient is and how often two of them conflict, and then compares methods that weigh
# them. It takes about a minute.

# %%
import keras
import pandas as pd

import mtl_zoo
from mtl_zoo.optimizers import LazyAdam
from mtl_zoo.training import BalancingLogger

# %% [markdown]
# ## Three tasks of two kinds
#
# Click and conversion are yes or no, watch time is a number, for clicked rows. Its unit does not matter, since such a
# label is standardised inside. But a squared error and a cross-entropy are different things, and nothing makes them
# count alike.

# %%
data = mtl_zoo.load_dataset("synthetic_funnel", size=(30_000, 1_000, 20_000), watch_time=True)
features = [feature for feature in data.features if feature.name not in ("user_id", "item_id")]
for task in data.tasks:
    print(task.name, type(task).__name__, "defined on", task.sample_space or "all impressions")

# %% [markdown]
# ## Look first
#
# `balancing="static"` changes nothing: every loss keeps the weight 1. But a method is there, so that a
# `BalancingLogger` can read what the shared weights follow. With `split` it measures each task's own gradient on a
# batch, now and then.

# %%
EPOCHS, BATCH = 4, 256
steps = EPOCHS * -(-len(data.train) // BATCH)


def train(balancing, logger=None):
    keras.utils.set_random_seed(0)
    model = mtl_zoo.create_model("shared_bottom", features, data.tasks, bottom_units=(64, 32))
    model.compile(LazyAdam(keras.optimizers.schedules.CosineDecay(0.002, steps)), balancing=balancing)
    batches = data.train.batches(BATCH, shuffle=True, seed=0)
    model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=[logger] if logger else None)
    return model


logger = BalancingLogger(every=50, split=data.train)
models = {"plain sum": train("static", logger)}
report = mtl_zoo.balancing_report(logger)
print(report)
report.plot("plain_sum.png")

# %% [markdown]
# `share` is what counts: the part of a loss in what moves the shared weights. `conflict_rate` is the share of
# readings in which two gradients pointed apart. Near one half with a `cosine` near 0 it means nothing: of two
# unrelated directions every other pair does.
#
# ## Three ways out
#
# * `uncertainty` learns a weight for each loss, at the price of one number a task.
# * `dwa` gives more to what has fallen less.
# * `pcgrad` takes the gradient of each task apart, and removes from it what opposes another. That costs a backward
#   pass for each task.

# %%
for method in ("uncertainty", "dwa", "pcgrad"):
    models[method] = train(method)

# %% [markdown]
# ## Did it help?

# %%
scores = {}
for name, model in models.items():
    table = mtl_zoo.evaluate(model, data.test).set_index(["task", "metric"])["value"]
    scores[name] = {
        "click AUC": table["click", "auc"],
        "conversion AUC": table["conversion", "auc"],
        "watch_time RMSE": table["watch_time", "rmse"],
    }
print(pd.DataFrame(scores).T.round(4))

# %% [markdown]
# One seed decides nothing, and a plain sum with *tuned* weights is the opponent to beat: in our own suites no method
# was ahead of it on every data set (`docs/results.md`). To run such a comparison on yours:
#
#     python -m benchmarks.run --config benchmarks/configs/balancing/synthetic_funnel_small.yaml --out results/mine.csv
#     python -m benchmarks.report results/mine.csv
#
# Formulas, costs and the full list of methods: `docs/concepts/balancing.md`.
#
# Next: tables that do not fit into memory (`04_large_tables.py`).
