# %% [markdown]
# # A conversion comes after a click
#
# A conversion rate is learned from clicked rows, because only they have an answer. It is *used* on all impressions,
# to rank what nobody has clicked yet. The two populations differ: people click on what they like. This tutorial
# measures what that does, on data whose true probabilities are known, and compares three ways to train. It takes a
# minute or two.

# %%
import keras
import numpy as np
import pandas as pd

import mtl_zoo
from mtl_zoo.optimizers import LazyAdam

# %% [markdown]
# ## Data that knows its answers
#
# In `synthetic_funnel` every impression has a true click rate `q` and a true conversion rate given a click, `r`.
# About one impression in twenty is clicked, and what is liked is both clicked and bought more: `rho` is the
# correlation of the two. The ids of users and items are left out: they add nothing that the other columns do not say.

# %%
data = mtl_zoo.load_dataset("synthetic_funnel", size=(60_000, 1_000, 50_000), rho=0.8)
features = [feature for feature in data.features if feature.name not in ("user_id", "item_id")]
clicked = data.test.labels["click"] == 1
truth = data.test.truth
print(f"clicked: {clicked.mean():.1%} of impressions")
print(f"true conversion rate of clicked rows: {truth['conversion'][clicked].mean():.3f}")
print(f"true conversion rate of all impressions: {truth['conversion'].mean():.3f}")

# %% [markdown]
# The first of these rates is what training sees, the second what the model is asked for.
#
# ## Three ways to train
#
# * **MMoE** with `sample_space="click"`: the loss of `conversion` counts clicked rows only.
# * **ESMM** trains the *product* pCTR x pCVR on all impressions, where the label "clicked and converted" is always
#   known; pCVR is what is left of it.
# * **ESCM2-IPS** is ESMM and a conversion loss on clicked rows, each weighed by one over its click rate, so that
#   together they stand for all impressions.
#
# The last two sit on any backbone; here on the same MMoE. They need to know which task is the click and which the
# conversion, and the `sample_space` of the tasks says so.

# %%
print([(task.name, task.sample_space) for task in data.tasks])
experts = {"num_experts": 4, "expert_units": (64, 32)}
ways = {
    "mmoe": experts,
    "esmm": {"backbone": "mmoe", "backbone_options": experts},
    "escm2_ips": {"backbone": "mmoe", "backbone_options": experts},
}

# %% [markdown]
# Two choices to make with care:
#
# * The loss of `conversion` is a mean over the clicked rows of a batch, about 30 of 512. Each weighs as much as 17
#   impressions in the loss of `click`. `loss_weights` makes that about two.
# * Few positive rows make the *level* of a rate wander from batch to batch. A learning rate that falls to zero lets it
#   settle.

# %%
BATCH, EPOCHS = 512, 5
steps = EPOCHS * -(-len(data.train) // BATCH)


def train(name):
    keras.utils.set_random_seed(0)
    model = mtl_zoo.create_model(name, features, data.tasks, **ways[name])
    weights = {loss: 0.1 if loss == "conversion" else 1.0 for loss in model.loss_names}
    model.compile(LazyAdam(keras.optimizers.schedules.CosineDecay(0.002, steps)), loss_weights=weights)
    model.fit(data.train.batches(BATCH, shuffle=True, seed=0), epochs=EPOCHS, verbose=0)
    return model


models = {name: train(name) for name in ways}

# %% [markdown]
# ## What to look at
#
# "CVR AUC" has three meanings. Two of them can be computed from real data, and `evaluate` names which one a row is:
# `conversion` on the space `click`, and `click_and_conversion` on all impressions. MMoE has no output for the second,
# and `products=True` multiplies its two scores. `lift_share` is the part of what can be known that the model has
# found: 0 for scores that order nothing, 1 for the true probabilities.

# %%
found = {name: mtl_zoo.evaluate(model, data.test, products=True) for name, model in models.items()}
for metric in ("auc", "lift_share"):
    values = {
        name: table.query("metric == @metric").set_index(["task", "space"])["value"] for name, table in found.items()
    }
    print(metric, pd.DataFrame(values).round(3), sep="\n")

# %% [markdown]
# The third needs the truth, which only drawn data has: how far is pCVR from `r`, on clicked rows and on all
# impressions? `level` is the mean of pCVR over the mean of `r`; `error` is the mean distance.

# %%
about = []
for name, model in models.items():
    rate = model.predict(data.test.inputs, batch_size=4096, verbose=0)["conversion"][:, 0]
    for space, rows in {"click": clicked, "impressions": np.ones_like(clicked)}.items():
        true = truth["conversion"][rows]
        about.append((name, space, rate[rows].mean() / true.mean(), np.abs(rate[rows] - true).mean()))
print(pd.DataFrame(about, columns=["model", "space", "level", "error"]).round(3).to_string(index=False))

# %% [markdown]
# Read it with care. A model of clicked rows is not wrong on the others *because* they were not clicked: here
# everything that drives clicks is among the features, so it can carry over what it has learned. What it cannot know
# is what only the user knew. All three ways come out much alike on these data, and one seed cannot say whether what is
# left between them is more than luck. On your own table compare `click_and_conversion` on all impressions, on several
# seeds, and keep the simplest model that is not beaten. `docs/results.md` has comparisons of funnel models over seeds,
# and `docs/concepts/sample_spaces.md` the formulas.
#
# Next: when tasks pull the shared weights in different directions (`03_balancing.py`).
