# %% [markdown]
# # A language model inside a multi-task model
#
# A pretrained network reads the text of a row before the model does. This tutorial puts one into a model with two
# tasks: frozen, its vectors made once; then with low-rank updates that are trained along. The trained model is exported
# and takes raw strings. Lastly rows become questions to a decoder.
#
# It needs `pip install mtl-zoo[text]`. So that it runs anywhere in about a minute, without a download, the network is
# tiny and *random*: it is written to a folder in the layout of Hugging Face first, and knows no language. Name the
# folder of a real one (all-MiniLM-L6-v2) in its place, and nothing else changes.

# %%
import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from safetensors.numpy import save_file

from mtl_zoo import (
    BinaryTask,
    Categorical,
    FeatureTransform,
    LanguageModel,
    PromptScorer,
    SharedBottom,
    Text,
    evaluate,
    export_serving,
)
from mtl_zoo.language import merge_lora

# %% [markdown]
# ## A tiny folder
#
# This part is what you would not write: a BERT with two layers of width 32, whose vocabulary is nineteen pieces.

# %%
rng = np.random.default_rng(0)
good, bad = ["lovely", "moving", "clever", "funny"], ["dull", "slow", "loud", "silly"]
filler = ["the", "film", "was", "and", "a", "plot", "cast"]


def random(*shape):
    return rng.normal(0, 0.25, shape).astype("float32")


def write(folder, config, tensors):
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "config.json").write_text(json.dumps(config))
    save_file(tensors, Path(folder, "model.safetensors"))


pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *good, *bad, *filler]
config = {"model_type": "bert", "vocab_size": len(pieces), "num_hidden_layers": 2, "num_attention_heads": 4}
config |= {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 32}
tensors = {
    "embeddings.word_embeddings.weight": 4 * random(len(pieces), 32),
    "embeddings.position_embeddings.weight": random(32, 32),
    "embeddings.token_type_embeddings.weight": random(2, 32),
}
norms = ["embeddings.LayerNorm"]
for i in range(2):
    stem = f"encoder.layer.{i}"
    sizes = {f"attention.self.{part}": (32, 32) for part in ("query", "key", "value")}
    sizes |= {"attention.output.dense": (32, 32), "intermediate.dense": (64, 32), "output.dense": (32, 64)}
    for name, (outputs, inputs) in sizes.items():
        tensors[f"{stem}.{name}.weight"], tensors[f"{stem}.{name}.bias"] = random(outputs, inputs), random(outputs)
    norms += [f"{stem}.attention.output.LayerNorm", f"{stem}.output.LayerNorm"]
for name in norms:
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(32, "float32"), np.zeros(32, "float32")
write("tiny_bert", config, tensors)
Path("tiny_bert", "vocab.txt").write_text("\n".join(pieces) + "\n")

# %% [markdown]
# ## A table with texts
#
# What a user likes follows from the words of the review; whether it is shared follows from it in part.

# %%
rows = 3000
mood = rng.normal(0, 1, rows)
texts = [" ".join(rng.permutation([*rng.choice(filler, 4), *rng.choice(good if m > 0 else bad, 2)])) for m in mood]
table = pd.DataFrame({"user": rng.integers(0, 200, rows), "review": texts})
table["like"] = (mood + rng.normal(0, 0.7, rows) > 0).astype(int)
table["share"] = (mood + rng.normal(0, 2.0, rows) > 1).astype(int)
train, test = table[:2400], table[2400:]
tasks = [BinaryTask("like"), BinaryTask("share")]


def fitted(encoder, epochs=3, **rates):
    features = [Categorical("user", dim=4)] + ([Text("review", encoder, dim=8)] if encoder else [])
    transform = FeatureTransform(features, tasks).fit(train)
    model = SharedBottom(transform, bottom_units=(16,), tower_units=())
    model.compile({"embeddings": 1e-2, "dense": 1e-2, **rates})
    model.fit(train, batch_size=128, epochs=epochs, verbose=0)
    auc = evaluate(model, test).query("metric == 'auc'").set_index("task")["value"]
    print(f"like {auc['like']:.3f}  share {auc['share']:.3f}")
    return model


# %% [markdown]
# ## Without text, and frozen
#
# Without the text there is little to go by. A frozen model is part of the transform: each distinct review becomes a
# vector once, in a folder of vectors that later runs read, and training sees vectors alone. Even a random network keeps
# words apart.

# %%
fitted(None)
frozen = LanguageModel("tiny_bert", max_length=16, cache="vectors")
model = fitted(frozen)
print(f"{frozen.vectors(['lovely cast', None]).shape} vectors, kept in {frozen.vectors_folder().parent}")

# %% [markdown]
# ## Trained along, with low-rank updates
#
# With `mode="lora"` the network is a layer of the model, and its queries and values get updates of rank 4: they alone
# are trained, and have a learning rate of their own, that of `encoders`. A saved model is self-contained.

# %%
model = fitted(LanguageModel("tiny_bert", mode="lora", rank=4, max_length=16), encoders=1e-3)
trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
print(f"{trained:,} of {model.count_params():,} weights are trained")
model.save("model.keras")
again = keras.saving.load_model("model.keras")
difference = np.abs(again.predict(test, verbose=0)["like"] - model.predict(test, verbose=0)["like"]).max()
print("difference once loaded:", difference)

# %% [markdown]
# ## Served
#
# `merge_lora` adds the updates to the weights. The export takes raw strings; a process that serves it imports
# tensorflow_text, whose operations cut the words.

# %%
merge_lora(model)
export_serving(model, "served")
served = tf.saved_model.load("served")
scores = served.score(
    {"user": tf.constant([3, 3, 3]), "review": tf.constant(["lovely and funny", "dull and slow", ""])}
)
print("like:", scores["like"].numpy().round(2).ravel())

# %% [markdown]
# ## Asked by prompt
#
# A decoder answers a question about each row, after examples of the training rows if you like. Prompts can be looked at
# before there is one.

# %%
asked = PromptScorer(LanguageModel("models/SmolLM2-135M"), "Review: {review}. Liked it?", examples=2, seed=1)
print(asked.fit(train, "like").prompts(test)[0])

# %% [markdown]
# `asked.predict(test)` gives log-odds of " yes" against " no" once the folder holds a decoder.
# What is read, kept and refused is told in `docs/concepts/language_models.md`.
#
# Next: what friends tell of each other (`09_friends.py`).
