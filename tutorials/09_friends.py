# %% [markdown]
# # Friends
#
# People take over what their friends do, and friends are alike to begin with. This tutorial makes up both: users in
# circles with tastes, a graph of friends, items that spread along it in rounds. Two tasks are learned, whether an item
# is clicked and whether it is adopted, with the graph as one more feature, without it, and with a random graph of the
# same size. It takes less than a minute.

# %%
import keras
import numpy as np
import pandas as pd

from mtl_zoo import BinaryTask, Categorical, EntityTable, FeatureTransform, Neighbours, SharedBottom, evaluate

rng = np.random.default_rng(0)
USERS, ITEMS, CIRCLES, GENRES = 1200, 60, 24, 6

# %% [markdown]
# ## A world with friends
#
# Friends are mostly of the same circle, and a circle has its taste in genres. An item is clicked by taste. It is
# adopted by taste as well, or because friends have adopted it in an earlier round: with probability
# `1 - (1 - p0) * product over those friends of (1 - w)`. What the true probabilities are is kept for the end.

# %%
circle = rng.integers(0, CIRCLES, USERS)
genre = rng.integers(0, GENRES, ITEMS)
taste = rng.normal(0.0, 1.5, (CIRCLES, GENRES))
same = circle[:, None] == circle[None, :]
friends = np.triu(rng.random((USERS, USERS)) < np.where(same, 0.2, 0.002), 1)
friends = friends | friends.T


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_round(number, adopted, rows=16_000):
    """Impressions of a round: what is clicked, and adopted by taste or through friends who did so before."""
    user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    liked = taste[circle[user], genre[item]]
    before = (friends.astype(int) @ adopted)[user, item]
    through = 1 - (1 - sigmoid(liked - 3)) * (1 - 0.15) ** before
    p = {"click": sigmoid(liked - 1), "adopt": through}
    labels = {name: (rng.random(rows) < chance).astype(int) for name, chance in p.items()}
    hidden = {f"p_{name}": chance for name, chance in p.items()}
    adopted = adopted.copy()
    adopted[user[labels["adopt"] == 1], item[labels["adopt"] == 1]] = 1
    names = {"user": [f"u{u}" for u in user], "item": item, "round": number}
    return pd.DataFrame({**names, **labels, **hidden}), adopted


adopted = np.zeros((USERS, ITEMS), int)
rounds = []
for number in range(4):
    table, adopted = one_round(number, adopted)
    rounds.append(table)

# A fifth of the users come in the last round alone: nobody knows them, but their friends may be known.
new = {f"u{u}" for u in rng.permutation(USERS)[: USERS // 5]}
train = pd.concat(rounds[:3])
train = train[~train["user"].isin(new)]
last = rounds[3]
known, fresh = last[~last["user"].isin(new)], last[last["user"].isin(new)]
print(f"{len(train)} training rows, {len(known)} of known users and {len(fresh)} of new ones to test")

# %% [markdown]
# ## The graph as a feature
#
# Edges are a table with `source` and `target`. `Neighbours("friends", of="user")` reads the rows that friends have in
# the users' own embedding table, so it needs no table of its own, and a new user's friends are known although the user
# is not. In training a tenth of the users is read as unknown (`unknown_rate`), so that the model has met such rows.
#
# What is known of items stands in a table of its own, with a row an item; the impressions hold ids alone.

# %%
source, target = np.nonzero(friends)
edges = pd.DataFrame({"source": [f"u{u}" for u in source], "target": [f"u{u}" for u in target]})
strangers = edges.assign(target=rng.permutation(edges["target"]))
items = EntityTable(pd.DataFrame({"item": np.arange(ITEMS), "genre": [f"genre {g}" for g in genre]}), key="item")
tasks = [BinaryTask("click"), BinaryTask("adopt")]


def trained(graph):
    features = [Categorical("user", dim=8, unknown_rate=0.1), Categorical("item", dim=8), Categorical("genre", dim=8)]
    if graph is not None:
        features.append(Neighbours("friends", of="user", edges=graph, length=16, pooling="mean"))
    keras.utils.set_random_seed(0)
    transform = FeatureTransform(features, tasks, entities=items).fit(train)
    model = SharedBottom(transform, bottom_units=(32,), tower_units=(16,))
    model.compile(keras.optimizers.Adam(0.005), metrics=None)
    model.fit(train, batch_size=512, epochs=4, verbose=0)
    return model


models = {"without": trained(None), "friends": trained(edges), "strangers": trained(strangers)}

# %% [markdown]
# ## What it is worth
#
# The same rows, scored by three models and by the true probabilities, which no model can beat but by chance. Strangers
# in place of friends, as many for each user, are the control: what they gain is no knowledge of the graph.

# %%
from mtl_zoo.metrics.exact import auc

results = []
for users, rows in (("known users", known), ("new users", fresh)):
    for name, model in models.items():
        scores = model.predict(rows, batch_size=4096, verbose=0)
        results += [(users, name, t, auc(rows[t].to_numpy(), scores[t].ravel())) for t in ("click", "adopt")]
    results += [(users, "truth", t, auc(rows[t].to_numpy(), rows[f"p_{t}"].to_numpy())) for t in ("click", "adopt")]
table = pd.DataFrame(results, columns=["rows", "graph", "task", "AUC"])
print(table.pivot(index=["rows", "graph"], columns="task", values="AUC").round(3).to_string())

gain = table.set_index(["rows", "graph", "task"])["AUC"]
assert gain["new users", "friends", "click"] > gain["new users", "without", "click"] + 0.05
assert gain["new users", "friends", "click"] > gain["new users", "strangers", "click"] + 0.05

# %% [markdown]
# `evaluate` gives the usual metrics of one model by task.

# %%
print(evaluate(models["friends"], fresh, batch_size=4096).round(3).to_string())

# %% [markdown]
# Edges must be known when the model predicts: a friendship that was made because of what is predicted gives the answer
# away. Other poolings (attention, LightGCN) and what becomes of large graphs are told in `docs/concepts/graphs.md`,
# tables of items and users in `docs/concepts/entities.md`.
#
# Next: a list for each user (`10_recommender.py`).
