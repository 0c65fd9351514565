# %% [markdown]
# # Reviews as features
#
# What people write says more than what they tick. This tutorial reads the text of reviews as a feature beside the
# ids: words become pieces, pieces vectors, and an encoder makes one vector of them. Two things are predicted, whether
# a drug worked and the stars it got, and three encoders are compared with a model that does not read. The exported
# model takes raw strings. It takes about a minute.

# %%
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import (
    BinaryTask,
    Categorical,
    FeatureTransform,
    RegressionTask,
    SharedBottom,
    Text,
    evaluate,
    export_serving,
)

# %% [markdown]
# ## Reviews
#
# Where `MTL_ZOO_DATA` names a folder with Druglib's reviews (UCI 461), those are read: 3,107 for training, and 1,036 to
# test. Else some are made up, in the same columns.


# %%
def made_up(rows, rng):
    """Reviews of 40 drugs: what is felt decides the words and the stars, and whether they are negated."""
    good, bad = ["relief", "calm", "great", "better sleep"], ["nausea", "pain", "a rash", "headaches"]
    filler = "I took it for a while and my doctor said to go on with the dose every day".split()
    drug, mood = rng.integers(0, 40, rows), rng.normal(0.0, 1.0, rows)
    texts = []
    for feeling in mood + 0.3 * np.sin(drug):
        words = list(rng.choice(filler, rng.integers(5, 15)))
        for _ in range(3):
            is_good = rng.random() < 1 / (1 + np.exp(-2 * feeling))
            negated = rng.random() < 0.3
            word = rng.choice(bad if is_good == negated else good)
            words.insert(rng.integers(len(words) + 1), f"no {word}" if negated else str(word))
        texts.append(" ".join(words))
    stars = np.clip(np.round(5.5 + 2 * mood + 0.6 * np.sin(drug) + rng.normal(0, 1, rows)), 1, 10)
    return pd.DataFrame({"drug": [f"drug {d}" for d in drug], "review": texts, "stars": stars})


def druglib(path):
    table = pd.read_csv(path)
    parts = ["benefitsReview", "sideEffectsReview", "commentsReview"]
    review = table[parts].fillna("").agg(" ".join, axis=1)
    return pd.DataFrame({"drug": table["urlDrugName"], "review": review, "stars": table["rating"].astype(float)})


folder = Path(os.environ.get("MTL_ZOO_DATA", "none")) / "druglib"
if folder.exists():
    train, test = druglib(folder / "druglib_train.csv.gz"), druglib(folder / "druglib_test.csv.gz")
else:
    rng = np.random.default_rng(0)
    train, test = made_up(3000, rng), made_up(1000, rng)
for part in (train, test):
    part["works"] = (part["stars"] >= 8).astype(int)
print(train.head(3).to_string(index=False, max_colwidth=60))

# %% [markdown]
# ## With and without the text
#
# `Text("review")` learns up to 4,000 pieces of words from the training rows and keeps the first 64 of each review. The
# encoder is a word: `"mean"` takes the mean of the pieces' vectors, `"attention"` weighs them, `"cnn"` reads phrases.
# `dropout_tokens` reads some of the pieces as unknown in training, so that a model does not learn reviews by heart.

# %%
tasks = [BinaryTask("works"), RegressionTask("stars")]
drug = Categorical("drug", dim=8, unknown_rate=0.1)
found, models = {}, {}
for encoder in (None, "mean", "attention", "cnn"):
    text = Text("review", encoder or "mean", dim=16, max_length=64, vocabulary_size=4000, dropout_tokens=0.2)
    transform = FeatureTransform([drug, text] if encoder else [drug], tasks).fit(train)
    model = SharedBottom(transform, bottom_units=(32,), tower_units=())
    model.compile("auto")
    model.fit(train, batch_size=128, epochs=5, verbose=0)
    table = evaluate(model, test).set_index(["task", "metric"])["value"]
    name = encoder or "no text"
    models[name], found[name] = model, {"works, AUC": table["works", "auc"], "stars, RMSE": table["stars", "rmse"]}
print(pd.DataFrame(found).T.round(3).to_string())
assert found["mean"]["works, AUC"] > found["no text"]["works, AUC"]

# %% [markdown]
# The drug alone says little; what is written says most of it. With a few thousand reviews the order of the encoders
# changes with the settings and the seed: try the mean first, which costs next to nothing, and keep another one only if
# it wins on your validation rows.
#
# ## What the model sees
#
# Small letters, pieces that go on within a word behind `##`, and 0 where a text ends. Missing, empty and blank texts
# are one state, a vector of zeros.

# %%
model = models["mean"]
pieces = model.transform.values_of("review")
sample = pd.DataFrame({"drug": ["enalapril"], "review": ["No side-effects, UNBELIEVABLE relief!"]})
ids = model.transform.encode(sample)["review"][0]
print([pieces[i - 2] if i > 1 else "?" for i in ids if i])
blank = sample.assign(review=[None])
print("a score without a text:", float(model.predict(blank, verbose=0)["works"][0, 0]))

# %% [markdown]
# ## Serving strings
#
# The exported model holds the tokenizer and takes the columns as they are. Its graph uses an operation of
# `tensorflow_text`: a process that serves it imports that, and nothing of this package.

# %%
export_serving(model, "exported", overwrite=True)
program = """
import tensorflow as tf
import tensorflow_text

served = tf.saved_model.load("exported")
texts = ["It worked wonders, no pain at all", "Terrible nausea and headaches, I stopped", ""]
scores = served.score({"drug": tf.constant(["enalapril"] * 3), "review": tf.constant(texts)})
print(dict(zip(texts, scores["works"].numpy()[:, 0].round(3).tolist())))
"""
done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
print(done.stdout.strip())

# %% [markdown]
# What the encoders compute, how texts become ids and what goes wrong is told in `docs/concepts/text.md`.
#
# Next: a pretrained network in place of one that is learned from these reviews alone
# (`08_language_model.py`).
