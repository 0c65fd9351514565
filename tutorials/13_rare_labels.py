# %% [markdown]
# # Rare labels
#
# One impression in a hundred is clicked. A model of such rows can be wrong in two ways: in the order of rows, since few
# clicks say what is liked, and in the level of its scores, since most remedies for the first move it. This tutorial
# trains one model by several remedies, and looks at both. It takes less than a minute.

# %%
import keras
import numpy as np
import pandas as pd

from mtl_zoo import (
    BalancedBatches,
    BinaryTask,
    Categorical,
    FeatureTransform,
    NegativeSampling,
    Numeric,
    SharedBottom,
    calibrate,
    evaluate,
)
from mtl_zoo.training import WGANGP, generate_rows

rng = np.random.default_rng(0)

# %% [markdown]
# ## Impressions
#
# Who is young and is shown something cheap in the evening clicks more often; still, hardly anybody does.


# %%
def impressions(rows):
    age, price = rng.integers(18, 80, rows), rng.lognormal(3, 0.7, rows).round(2)
    hour = rng.choice(["morning", "noon", "evening", "night"], rows)
    logit = -5.2 - 0.05 * (age - 40) - 0.03 * (price - 20) + 1.5 * (hour == "evening")
    click = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return pd.DataFrame({"age": age, "price": price, "hour": hour, "click": click.astype(int)})


train, validation, test = impressions(20_000), impressions(10_000), impressions(30_000)
print(f"{train['click'].mean():.2%} of {len(train)} training rows are clicked: {train['click'].sum()}")
features = [Numeric("age"), Numeric("price"), Categorical("hour", dim=4)]


def trained(task, rows=train, **options):
    keras.utils.set_random_seed(0)
    model = SharedBottom(FeatureTransform(features, task).fit(train), bottom_units=(16,), tower_units=())
    model.compile(keras.optimizers.Adam(0.01), metrics=None)
    model.fit(rows, batch_size=256, epochs=3, verbose=0, **options)
    return model


def measured(model):
    found = evaluate(model, test).set_index(["task", "metric"])["value"]["click"]
    return found[["auc", "pcoc"]].astype(float).round(3)


# %% [markdown]
# ## Remedies
#
# `auc` is the order of rows, and `pcoc` the level: mean score / mean label, best at 1. Weights make scores too high.
# Sampling and balanced batches change what is trained on just as much, but the model knows of it: it takes the change
# back wherever scores leave it.

# %%
click = BinaryTask("click")
odds = float((1 - train["click"].mean()) / train["click"].mean())
models = {
    "plain": trained(click),
    "positive_weight": trained(BinaryTask("click", positive_weight=odds)),
    "negative sampling": trained(click, sampling=NegativeSampling("click", rate=0.2)),
    "balanced batches": trained(click, sampling=BalancedBatches({"click": 0.5})),
}
print(pd.DataFrame({name: measured(model) for name, model in models.items()}).T.to_string())

balanced = models["balanced batches"]
print(balanced.corrections.sampling, [round(rate, 5) for rate in balanced.corrections.sampling.rates])
assert 0.7 < measured(balanced)["pcoc"] < 1.4 < measured(models["positive_weight"])["pcoc"]

# %% [markdown]
# ## Rows that nobody saw
#
# Another way is to make more of the rare rows. A small generator learns what clicked rows look like, from noise and the
# label; with the extra `[imbalance]`, `method="smote-nc"` puts rows between neighbours instead.

# %%
clicked = train[train["click"] == 1]
some = pd.concat([clicked, train[train["click"] == 0].head(2000)], ignore_index=True)
transform = FeatureTransform(features, click)
made = generate_rows(some, transform, labels={"click": 1}, rows=1000, method=WGANGP(steps=150, learning_rate=2e-3))
both = pd.concat([train, made], ignore_index=True)
about = {name: rows[["age", "price"]].mean() for name, rows in (("all", train), ("clicked", clicked), ("made", made))}
print(pd.DataFrame(about).T.round(1).to_string())

models["made rows"] = trained(click, both)
print(measured(models["made rows"]).to_string())

# %% [markdown]
# Made rows bear a mark, and no model is judged by them.

# %%
try:
    evaluate(models["made rows"], both)
except ValueError as refused:
    print(refused)

# %% [markdown]
# ## The level, after training
#
# What no formula corrects is calibrated on rows that the model was not trained on. The order of rows stays.

# %%
for name in ("positive_weight", "made rows"):
    level = calibrate(models[name], validation, "click", method="platt")
    print(name, measured(level).to_dict())
    assert abs(measured(level)["pcoc"] - 1) < abs(measured(models[name])["pcoc"] - 1)

# %% [markdown]
# Losses for rare labels and for the order within a list, and what each remedy computes, are told in
# `docs/concepts/rare_labels.md`; `benchmarks/studies/rare_labels.py` compares them against known probabilities.
#
# Next: users with a few ratings (`14_cold_start.py`).
