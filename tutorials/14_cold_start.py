# %% [markdown]
# # Users with a few ratings
#
# A new user has rated five films. The model knows nothing of the user, but these five rows say something: a few
# gradient steps on them make the weights the user's own. Any model can be adapted like that; MAML trains a model *for*
# it. This tutorial trains the same model in both ways, and adapts both to users that training never saw. It takes less
# than a minute.

# %%
import keras
import numpy as np
import pandas as pd

from mtl_zoo import BinaryTask, FeatureTransform, Numeric, RegressionTask, SharedBottom
from mtl_zoo.export import FewShotScorer
from mtl_zoo.features import make_episodes
from mtl_zoo.steps import MAML

rng = np.random.default_rng(0)
ROWS, SUPPORT, QUERY = 15, 5, 10

# %% [markdown]
# ## Users
#
# Each user likes films that are long or short, old or new, to a degree of its own: nothing that is true of all users
# says what one of them likes.


# %%
def ratings(users, first=0):
    user = np.repeat(np.arange(first, first + users), ROWS)
    length, age = rng.normal(size=(2, len(user)))
    taste = rng.normal(size=(users, 2)).repeat(ROWS, axis=0)
    worth = taste[:, 0] * length + taste[:, 1] * age
    stars = worth + 0.3 * rng.normal(size=len(user))
    return pd.DataFrame({"user": user, "length": length, "age": age, "stars": stars, "like": (worth > 0).astype(int)})


train, new = ratings(400), ratings(60, first=1000)
features, tasks = [Numeric("length"), Numeric("age")], [RegressionTask("stars"), BinaryTask("like")]
transform = FeatureTransform(features, tasks).fit(train)


def model_with(step=None):
    keras.utils.set_random_seed(0)
    model = SharedBottom(transform, bottom_units=(32,), tower_units=(16,))
    model.compile(keras.optimizers.Adam(0.005), metrics=None, step=step)
    return model


# %% [markdown]
# ## Two ways to train
#
# The plain model sees rows. The other sees episodes: of each user five rows to adapt to, and ten by which the
# adaptation is judged. Its weights are those from which one step on five rows leads far.

# %%
plain = model_with()
plain.fit(train, batch_size=256, epochs=10, verbose=0)

meta = model_with(MAML(support=SUPPORT, query=QUERY, inner_rate=0.1, inner_steps=2))
rows, labels = transform.encode(train), transform.encode_labels(train)
episodes = make_episodes(rows, labels, train["user"], support=SUPPORT, query=QUERY, episodes=16, seed=0)
history = meta.fit(episodes, epochs=15, verbose=0).history
print("loss of the query rows, by epoch:", np.round(history["loss"], 2))

# %% [markdown]
# ## Users that training never saw
#
# `FewShotScorer` adapts a copy of the weights to the rows at hand, and scores candidates with it. Without rows, scores
# are the model's own. Fine-tuning the plain model by the same steps is the baseline that MAML must beat; the size of
# its steps is the best of three.


# %%
def error(scores_of):
    """Root mean squared error of the stars of each new user's last ten films, after the first five."""
    found = []
    for _, films in new.groupby("user"):
        seen, later = films.head(SUPPORT), films.tail(QUERY)
        found.append((scores_of(later, seen)["stars"].ravel() - later["stars"].to_numpy()) ** 2)
    return float(np.sqrt(np.mean(found)))


tuned = {rate: error(FewShotScorer(plain, rate, inner_steps=2, adapts="dense")) for rate in (0.03, 0.1, 0.3)}
best = min(tuned, key=tuned.get)
found = {
    "not adapted": error(lambda later, seen: plain.predict(later, verbose=0)),
    f"fine-tuned, steps of {best}": tuned[best],
    "MAML": error(FewShotScorer(meta)),
}
print(pd.Series(found, name="RMSE of stars").round(3).to_string())
assert found["MAML"] < found["not adapted"]

# %% [markdown]
# ## In service
#
# The adaptation is part of an export: a SavedModel that takes what a user has rated and what it might see next.

# %%
films = new[new["user"] == 1000]
scorer = FewShotScorer(meta)
scorer.export("few_shot")
print(scorer(films.tail(3), films.head(SUPPORT))["stars"].ravel().round(2))
print(films.tail(3)["stars"].round(2).tolist())

# %% [markdown]
# Reptile, ANIL, first order, and what belongs to the user and what to everybody are told in
# `docs/concepts/cold_start.md`; `benchmarks/studies/cold_users.py` compares them on MovieLens.
