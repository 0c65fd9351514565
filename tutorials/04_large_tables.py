# %% [markdown]
# # Many ids, many rows
#
# Real tables have millions of ids and more rows than memory. Two things keep that quick: a step that costs what its
# *batch* costs, not what the embedding tables weigh; and input that comes from files, a window at a time. This
# tutorial shows both on files that it writes itself. It takes about a minute.

# %%
import time
from pathlib import Path

import numpy as np
import pandas as pd

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
from mtl_zoo.features import TableStream, open_cache, write_cache

# %% [markdown]
# ## Files
#
# Four Parquet files with 40,000 rows each. Item ids follow Zipf's law, as ids do: a few are everywhere, most are
# rare.

# %%
rng = np.random.default_rng(0)
quality = rng.normal(0.0, 1.0, 200_000)


def draw(rows):
    item, user = rng.zipf(1.3, rows) % 200_000, rng.integers(0, 5_000, rows)
    hour = rng.uniform(0.0, 24.0, rows)
    click = rng.random(rows) < 1 / (1 + np.exp(1.5 - quality[item] - np.cos(hour / 24 * 2 * np.pi)))
    return pd.DataFrame({"user": user, "item": item, "hour": hour, "click": click.astype(int)})


folder = Path("impressions")
folder.mkdir(exist_ok=True)
for part in range(4):
    draw(40_000).to_parquet(folder / f"part-{part}.parquet", row_group_size=10_000)
test = draw(20_000)

# %% [markdown]
# ## Vocabularies of a bounded size
#
# `max_ids` keeps the most frequent ids of the training rows, each with a row of its own in the embedding table; all
# others share one. The transform is fitted on what fits into memory: a file will do, since a value that it lacks
# counts as unknown later.

# %%
features = [
    Categorical("user", dim=8),
    Categorical("item", dim=8, max_ids=2_000),
    Numeric("hour"),
]
transform = FeatureTransform(features, BinaryTask("click")).fit(pd.read_parquet(folder / "part-0.parquet"))
print(transform.describe().to_string(index=False))

# %% [markdown]
# ## Training from files
#
# `TableStream` reads row groups in a shuffled order, and shuffles rows within a window. The same seed gives the same
# order, whatever the number of threads, and `memory_bound` says what it may take at most, however large the files
# are.

# %%
stream = TableStream(folder, transform, shuffle_rows=20_000)
print(f"{stream.rows:,} rows, at most {stream.memory_bound / 1e6:.0f} MB in memory")

model = mtl_zoo.SharedBottom(transform, bottom_units=(32,))
model.compile("auto")
started = time.perf_counter()
model.fit(stream.batches(1024, shuffle=True, seed=0), epochs=2, verbose=0)
print(f"from files: {time.perf_counter() - started:.1f} s")
print(mtl_zoo.evaluate(model, test).query("metric == 'auc'").to_string(index=False))

# %% [markdown]
# Reading and encoding can be done once: `write_cache` keeps the encoded batches on disk, and `open_cache` maps them
# into memory, where they take no more of it than the system can spare. It refuses a cache that another transform has
# encoded.

# %%
write_cache(stream.batches(4096), "encoded", transform=transform)
cached = open_cache("encoded", transform=transform)
started = time.perf_counter()
model.fit(cached.batches(1024, shuffle=True, seed=1), epochs=1, verbose=0)
print(f"an epoch from the cache: {time.perf_counter() - started:.1f} s")

# %% [markdown]
# ## What a step costs
#
# `compile("auto")` means `LazyAdam`: it reads and writes those rows of the tables that the batch has read. Keras' own
# Adam walks the whole table, and its two moments, at every step. The larger the table, the larger the difference;
# here is a table of a million ids.

# %%
wide = [Categorical("item", size=1_000_000, dim=16)]
x = {"item": rng.integers(2, 1_000_002, 10 * 1024).astype("int32")}
y = {"click": rng.integers(0, 2, 10 * 1024).astype("float32")}


def seconds_per_step(optimizer):
    model = mtl_zoo.SharedBottom(wide, BinaryTask("click"), bottom_units=(32,))
    model.compile(optimizer, metrics=None)
    model.fit(x, y, batch_size=1024, verbose=0)  # traces, and touches the memory for the first time
    started = time.perf_counter()
    model.fit(x, y, batch_size=1024, verbose=0)
    return (time.perf_counter() - started) / 10


lazy, whole = seconds_per_step("auto"), seconds_per_step("adam")
print(f"a step: {1000 * lazy:.1f} ms by row, {1000 * whole:.1f} ms over the whole table")

# %% [markdown]
# One difference to know: the moments of a row that a batch leaves out do not decay, and it does not drift on them.
# `docs/concepts/speed.md` has what that changes (nothing on census data, better figures on MovieLens), further
# settings (`shards=`, learning rates by part, `l2=`), and figures of whole models.
#
# Next: several devices, and training that survives being killed (`05_several_devices.py`).
