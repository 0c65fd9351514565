# %% [markdown]
# # From scores to a ranked list
#
# A recommender answers a question: which ten of a thousand candidates does this user see? This tutorial trains a
# small model, ranks candidates with it, makes one score of two tasks, and exports the model for a server that knows
# nothing of this package. It takes half a minute.

# %%
import time

import numpy as np
import pandas as pd
import tensorflow as tf

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric

# %% [markdown]
# ## A model on a table of its own columns
#
# Users come from cities, items have a kind and a price; an order follows a click.

# %%
rng = np.random.default_rng(0)
rows = 20_000
cities, kinds = np.array(["Lima", "Oslo", "Pune"]), np.array(["book", "film", "game", "tool"])
table = pd.DataFrame(
    {
        "city": rng.choice(cities, rows),
        "age": rng.integers(18, 80, rows),
        "kind": rng.choice(kinds, rows),
        "price": rng.lognormal(3.0, 0.7, rows).round(2),
    }
)
taste = rng.normal(0.0, 1.0, (len(cities), len(kinds)))
likes = taste[np.searchsorted(cities, table["city"]), np.searchsorted(kinds, table["kind"])]
click = rng.random(rows) < 1 / (1 + np.exp(1.5 - likes + 0.02 * (table["age"] - 40)))
order = click & (rng.random(rows) < 1 / (1 + np.exp(0.05 * (table["price"] - 20))))
table["click"], table["order"] = click.astype(int), order.astype(int)

features = [Categorical("city"), Numeric("age"), Categorical("kind"), Numeric("price")]
tasks = [BinaryTask("click"), BinaryTask("order", sample_space="click")]
transform = FeatureTransform(features, tasks).fit(table)
model = mtl_zoo.MMoE(transform, num_experts=4, expert_units=(32,))
model.compile("auto")
model.fit(table, batch_size=256, epochs=5, verbose=0)

# %% [markdown]
# ## One user, a thousand candidates
#
# `make_scorer` compiles the model once for 1 to 10,000 rows. With `raw=True` it takes columns as the table has them
# and encodes them inside. `rank` is told the user's columns once, whatever the number of candidates. Scores come in
# the order of the candidates.

# %%
scorer = mtl_zoo.make_scorer(model, raw=True)
candidates = {"kind": rng.choice(kinds, 1000), "price": rng.lognormal(3.0, 0.7, 1000).round(2)}
user = {"city": "Oslo", "age": 30}
scores = scorer.rank(user, candidates)

times = []
for _ in range(50):
    started = time.perf_counter()
    scorer.rank(user, candidates)
    times.append(time.perf_counter() - started)
print(f"{len(candidates['price'])} candidates in {1000 * np.median(times):.1f} ms")

# %% [markdown]
# ## One score of several
#
# An order happens if there is a click, and then an order: their product is the chance of one, and times the price
# what is earned. Which score a list should follow is a decision about the business, and one that a model with two
# tasks leaves open until here: nothing is trained anew.

# %%
frame = pd.DataFrame(candidates)
frame["click"] = scores["click"][:, 0]
frame["ordered"] = frame["click"] * scores["order"][:, 0]
frame["revenue"] = frame["ordered"] * frame["price"]
for score in ("click", "ordered", "revenue"):
    top = frame.nlargest(10, score)
    print(f"top ten by {score}: {top['click'].sum():.2f} clicks, {top['revenue'].sum():.2f} earned")

# %% [markdown]
# A product is only worth what its factors are as *probabilities*, not as an order: look at `pcoc` of `evaluate`
# before you multiply.
#
# ## Export
#
# A SavedModel holds the model and the encoding. It takes raw columns by name, so that the server needs TensorFlow and
# nothing else, and there is no second implementation of the features that could differ.

# %%
mtl_zoo.export_serving(model, "exported", overwrite=True)
served = tf.saved_model.load("exported")
signature = served.signatures["serving_default"]
print({name: (spec.dtype.name, tuple(spec.shape)) for name, spec in signature.structured_input_signature[1].items()})
raw = {"city": np.repeat("Oslo", 1000), "age": np.repeat(30, 1000), **candidates}
answer = served.score({name: tf.constant(values) for name, values in transform.raw_arrays(pd.DataFrame(raw)).items()})
assert np.allclose(answer["order"], scores["order"], atol=1e-6)
print("the exported model gives the same scores")

# %% [markdown]
# How long a large model takes on one core, in the median and at the 99th percentile, is measured by
# `python -m benchmarks.studies.latency` in a clone.
#
# Next: what people write as a feature (`07_reviews_as_features.py`).
