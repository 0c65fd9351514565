# %% [markdown]
# # From a table to scores
#
# A shop has a table with a row for each *impression*: a user saw an item. What it knows of the two are strings,
# numbers and holes; what happened then are two labels: `click`, and `order`, which can only follow a click. This
# tutorial goes from that table to a model that predicts both, and to the numbers that say whether it is any good. It
# takes about half a minute.

# %%
import numpy as np
import pandas as pd

import mtl_zoo
from mtl_zoo import BinaryTask, ExactValidation, FeatureTransform

# %% [markdown]
# ## The table
#
# It is drawn here, so that the tutorial needs no download. With a table of your own, `pd.read_csv` or
# `pd.read_parquet` stands in this place, and everything below stays as it is.
#
# Users like brands, cheap things sell, and phones are used in a hurry: that is what the model should find.

# %%
rng = np.random.default_rng(0)
rows = 30_000
brands = np.array(["Acme", "Bolt", "Cora", "Dune", "Echo"])
table = pd.DataFrame(
    {
        "user_id": rng.integers(0, 300, rows),
        "brand": rng.choice(brands, rows),
        "device": rng.choice(["phone", "desktop", None], rows, p=[0.6, 0.3, 0.1]),
        "price": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(3.0, 1.0, rows).round(2)),
    }
)
taste, style = rng.normal(size=(300, 2)), rng.normal(size=(len(brands), 2))
likes = (taste[table["user_id"]] * style[np.searchsorted(brands, table["brand"])]).sum(axis=1)
cheap = -np.log(table["price"].fillna(20.0) / 20.0)
in_a_hurry = (table["device"] == "phone").astype(float)


def happens(logit):
    return rng.random(rows) < 1 / (1 + np.exp(-logit))


click = happens(-1.2 + likes + 0.3 * cheap)
order = click & happens(-0.8 + 0.5 * likes + 0.8 * cheap - 0.6 * in_a_hurry)
table["click"], table["order"] = click.astype(int), order.astype(int)
print(table.head())

# %% [markdown]
# ## Rows to train on, to choose by, and to judge by
#
# Three parts: the model learns from the first, the second says when to stop, and the third is looked at once, at the
# end. These rows have no order in time; if yours do, let the last ones be the test.

# %%
train, validation, test = table.iloc[:20_000], table.iloc[20_000:25_000], table.iloc[25_000:]

# %% [markdown]
# ## Tasks and features
#
# A task is a label and what it means. `sample_space="click"` says that an order is *defined* where there was a click:
# loss and metrics of `order` then count clicked rows only, and a row without a click is not taken for a refusal.
#
# `infer` looks at the columns and says what it made of each. It is fitted on the training rows alone, since whatever
# it learned from the others (a mean, a vocabulary) would be known too early.

# %%
tasks = [BinaryTask("click"), BinaryTask("order", sample_space="click")]
transform = FeatureTransform.infer(train, tasks).fit(train)
print(transform.describe().to_string(index=False))

# %% [markdown]
# ## A model
#
# MMoE: experts that read all features, and for each task a gate that says, row by row, which experts it listens to.
# `compile("auto")` knows losses and metrics from the tasks, and its optimizer touches only those rows of the
# embedding tables that a batch has read. `ExactValidation` computes exact AUCs after every epoch, ends training when
# their mean has not risen for `patience` epochs, and goes back to the best weights.

# %%
model = mtl_zoo.MMoE(transform, num_experts=4, expert_units=(64, 32))
model.compile("auto")
best = ExactValidation(validation, patience=2)
model.fit(train, batch_size=256, epochs=20, verbose=0, callbacks=[best])
print(f"best epoch: {best.best_epochs['click']}")

# %% [markdown]
# ## How good is it?
#
# `evaluate` gives one row for each task, metric and sample space. `observed` says on how many rows a figure stands:
# that of `order` is of clicked rows. Read `auc` for the order of rows, `pcoc` for the level (predicted over observed
# rate; 1 is right).

# %%
metrics = mtl_zoo.evaluate(model, test)
print(metrics[metrics["metric"].isin(["auc", "logloss", "pcoc"])].to_string(index=False))

# %% [markdown]
# A figure says little alone. The same features with one network a task, `SingleTask`, is what sharing has to beat.
# Give it the same stopping rule, and compare on several seeds before you believe a difference: `python -m
# benchmarks.run` does both (`docs/concepts/comparing.md`).

# %%
alone = mtl_zoo.SingleTask(transform)
alone.compile("auto")
alone.fit(train, batch_size=256, epochs=20, verbose=0, callbacks=[ExactValidation(validation, patience=2)])
both = {"mmoe": metrics, "single_task": mtl_zoo.evaluate(alone, test)}
print(pd.DataFrame({name: found.query("metric == 'auc'").set_index("task")["value"] for name, found in both.items()}))

# %% [markdown]
# ## Scores
#
# `predict` takes a table in its own columns, here without labels, and gives probabilities by task, in the order of
# the rows. Values that training never saw, and holes, are no error: they are "unknown" and "missing".

# %%
new = pd.DataFrame({"user_id": [7, 7, 999_999], "brand": ["Acme", "Echo", "Nova"], "device": None, "price": 9.5})
scores = model.predict(new, verbose=0)
print(new.assign(**{task: scores[task][:, 0].round(3) for task in scores}))

# %% [markdown]
# ## Keep it
#
# The file holds weights, optimizer and the fitted transform: whoever loads it hands in raw tables too.

# %%
import keras

model.save("shop.keras")
again = keras.models.load_model("shop.keras")
assert np.allclose(again.predict(new, verbose=0)["order"], scores["order"], atol=1e-6)

# %% [markdown]
# Next: what to do about orders that nobody could place, because nobody clicked (`02_funnel.py`).
