# %% [markdown]
# # Several sources
#
# A shop has few ratings and many visits. Both say what is liked, but they are different tables: visits have no
# stars, ratings have no time of day. This tutorial trains one model on both, compares it with a model of the ratings
# alone, and then adapts it to a third task with a fraction of its weights. It takes less than a minute.

# %%
import keras
import numpy as np
import pandas as pd

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, JointSources, SharedBottom, evaluate, transfer

rng = np.random.default_rng(0)
USERS, ITEMS = 400, 150

# %% [markdown]
# ## Two tables
#
# Some users like more than others, and some items are liked by more. A visit is an item that was shown and clicked or
# not; a rating is an item that was liked or not. Both depend on the same two things, and there are eight times as many
# visits.

# %%
lenient, good = rng.normal(size=USERS), rng.normal(size=ITEMS)


def events(rows, label, shift):
    """Rows of users and items, and a label that both decide."""
    user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    p = 1 / (1 + np.exp(-lenient[user] - good[item] - shift))
    names = {"user": [f"u{u}" for u in user], "item": [f"i{i}" for i in item]}
    return pd.DataFrame({**names, label: (rng.random(rows) < p).astype(int)})


visits = events(12_000, "click", -1.0)
visits["hour"] = rng.choice(["morning", "noon", "night"], len(visits))
ratings, test = events(1_500, "like", 0.5), events(6_000, "like", 0.5)

# %% [markdown]
# ## One transform, one model
#
# The transform is fitted on both, so that a user is one id in both. A rating has no hour, which is then missing.

# %%
sources = JointSources({"visits": visits, "ratings": ratings})
features = [Categorical("user", dim=8), Categorical("item", dim=8), Categorical("hour", dim=2)]
transform = FeatureTransform(features, [BinaryTask("click"), BinaryTask("like")]).fit(sources)
print(transform.encode(ratings.head(3)))
print(sources.rows_of_epoch())


def trained(rows, tasks, epochs):
    keras.utils.set_random_seed(0)
    model = SharedBottom(transform, tasks, bottom_units=(32,), tower_units=(16,))
    model.compile(keras.optimizers.Adam(0.01))
    return model, model.fit(rows, batch_size=256, epochs=epochs, verbose=0).history


joint, history = trained(sources, transform.tasks, epochs=4)
alone, _ = trained(ratings, [BinaryTask("like")], epochs=4)
print({name: round(values[-1], 3) for name, values in history.items() if name.startswith(("visits", "ratings"))})

# %% [markdown]
# The same model on the tables below one another, with labels that are missing, has the same weights.

# %%
below, _ = trained(sources.table(), transform.tasks, epochs=4)
apart = max(np.abs(a - b).max() for a, b in zip(joint.get_weights(), below.get_weights(), strict=True))
print(f"largest difference of a weight: {apart:.1e}")
assert apart < 1e-6

# %% [markdown]
# ## What it is worth

# %%


def auc(model, table):
    found = evaluate(model, table).set_index(["task", "metric"])["value"]
    return found["like", "auc"]


found = {"ratings alone": auc(alone, test), "jointly": auc(joint, test)}
print(pd.Series(found, name="AUC of like").round(4).to_string())
assert found["jointly"] > found["ratings alone"]

# %% [markdown]
# ## To another task
#
# A third thing is asked with 500 labels: is an item given as a present? `transfer` keeps the body of the joint model
# and gives it a new tower. With `freeze="below"` the tables and the dense layers stay; low-rank updates of rank 2 let
# the dense layers follow the new task.

# %%
presents, later = events(500, "present", 0.0), events(4_000, "present", 0.0)
new = transfer(joint, BinaryTask("present"), freeze="below", adapters=2)
report = new.transferred
print(report.drop(columns="shape").to_string())
print(f"{report['numbers'][report['trains']].sum()} of {report['numbers'].sum()} numbers train")
new.compile(keras.optimizers.Adam(0.01))
new.fit(presents, batch_size=64, epochs=10, verbose=0)
score = evaluate(new, later).set_index(["task", "metric"])["value"]["present", "auc"]
print(f"AUC of present: {score:.3f}")
assert score > 0.55

# %% [markdown]
# Ratios, alternating batches, streams and the source as a domain are told in `docs/concepts/sources.md`; a comparison
# on real data is `benchmarks/studies/sources.py`.
#
# Next: new ids every day (`12_daily_training.py`).
