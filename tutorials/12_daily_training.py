# %% [markdown]
# # Daily training
#
# Every day brings rows with users and items that nobody has seen. Here a model is trained on a first day, and then
# goes on in three ways: never again, on each day without ids for what is new, and extended by each day's ids. Each
# day is predicted before it is trained on. It takes less than a minute.

# %%
import keras
import numpy as np
import pandas as pd

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
from mtl_zoo.continual import ReplayBuffer, draw_days, progressive
from mtl_zoo.export import make_scorer
from mtl_zoo.optimizers import LazyAdam

DAYS, ROWS, ITEMS = 4, 4000, 200

# %% [markdown]
# ## Days with new items
#
# Items have a taste that users share in part. A tenth more items come each day.

# %%
rng = np.random.default_rng(0)
appeal = rng.normal(0.0, 1.2, 2 * ITEMS)
taste, kind = rng.normal(0.0, 1.0, (300, 3)), rng.integers(0, 3, 2 * ITEMS)


def day(number):
    item = rng.integers(0, int(ITEMS * 1.1**number), ROWS)
    user = rng.integers(0, 300, ROWS)
    p = 1 / (1 + np.exp(0.5 - appeal[item] - taste[user, kind[item]]))
    click = rng.random(ROWS) < p
    buy = click & (rng.random(ROWS) < 0.2 + 0.5 * (kind[item] == 1))
    ids = {"user": [f"u{i}" for i in user], "item": [f"i{i}" for i in item]}
    return pd.DataFrame({**ids, "click": click.astype(int), "buy": buy.astype(int)})


first, *later = [day(number) for number in range(DAYS)]

# %% [markdown]
# ## The model of the first day
#
# `unknown_rate` trains the row that stands for unknown items, which new ones are scored by.


# %%
def start():
    keras.utils.set_random_seed(0)
    features = [Categorical("user", dim=8), Categorical("item", dim=8, unknown_rate=0.1)]
    transform = FeatureTransform(features, [BinaryTask("click"), BinaryTask("buy")]).fit(first)
    model = SharedBottom(transform, bottom_units=(16,), tower_units=(8,))
    model.compile(LazyAdam(0.01), metrics=None)
    model.fit(first, batch_size=256, epochs=4, verbose=0)
    return model


# %% [markdown]
# ## One day by hand
#
# `extend` gives a new transform, `extended` a new model. The ids of the first day are where they were, and so are the
# scores of its rows.

# %%
model = start()
tuesday = model.transform.extend(later[0], min_count=2)
print(tuesday.growth[["name", "ids", "new", "waiting", "unknown"]].round(3))
extended = model.extended(tuesday, rows="unknown")
before, after = model.predict(first, verbose=0), extended.predict(first, verbose=0)
print("scores of the first day differ by", max(np.abs(before[t] - after[t]).max() for t in before))
assert all((before[task] == after[task]).all() for task in before)

# %% [markdown]
# A service goes on without a pause: the scorer takes the new model over.

# %%
scorer = make_scorer(model, raw=True)
scorer.take_over(extended)
print(scorer(tuesday.raw_arrays(later[0].head(2)))["click"].ravel().round(3))

# %% [markdown]
# ## All days, three ways
#
# `progressive` predicts a day, measures it, and trains on it. A part of each day's rows is replayed from those before.

# %%
ways = {
    "never updated": progressive(start(), later, train=False),
    "without new ids": progressive(start(), later, batch_size=256),
    "extended": progressive(
        start(), later, extend={}, rows="unknown", replay=ReplayBuffer(4000), ratio=0.5, batch_size=256
    ),
}
for name, progress in ways.items():
    print(name, progress.scores("auc").mean().round(4).to_dict())
draw_days({name: progress.scores("auc") for name, progress in ways.items()}, "days.png")

# %% [markdown]
# The page `docs/concepts/daily_training.md` says what each kind of feature does, and how ids are evicted again.
#
# Next: one click in a hundred (`13_rare_labels.py`).
