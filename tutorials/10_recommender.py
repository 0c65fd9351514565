# %% [markdown]
# # From a model to a recommender
#
# A model scores rows; a recommender takes a user and gives a list. This tutorial makes up films and people with tastes,
# trains one model for two tasks and for retrieval, and puts a recommender round it: candidates, scores, fusion,
# diversity, reasons. It shows a list before and after diversity, lets recent events change it, adds a film that the
# model has never seen, and measures what diversity costs. It takes less than a minute.

# %%
import keras
import numpy as np
import pandas as pd

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, RetrievalTask, Sequence, SharedBottom
from mtl_zoo.recommend import MMR, ExactIndex, Powers, Recommender, evaluate_ranking

rng = np.random.default_rng(0)
USERS, FILMS = 400, 300
GENRES = np.array(["comedy", "crime", "drama", "musical", "science", "war"])

# %% [markdown]
# ## Films, people, and what they watch
#
# A film has one or two genres, a user likes some genres more than others. A user watches by taste, by how well known a
# film is, and more of what is like the last films; what is watched is liked by taste alone. Each row knows the last
# films that the user watched before it.

# %%
films = pd.DataFrame({"film": np.arange(FILMS), "title": [f"Film {number}" for number in range(FILMS)]})
films["genres"] = [sorted(rng.choice(GENRES, rng.integers(1, 3), replace=False).tolist()) for _ in range(FILMS)]
holds = np.array([[genre in found for genre in GENRES] for found in films["genres"]]) * 1.0
taste = rng.normal(0.0, 1.5, (USERS, len(GENRES)))
known = rng.normal(0.0, 0.5, FILMS)
liking = taste @ (holds / holds.sum(axis=1, keepdims=True)).T

rows = []
for user in range(USERS):
    shown = rng.choice(FILMS, 60, replace=False)
    liked = rng.random(60) < 1 / (1 + np.exp(0.5 - 1.5 * liking[user, shown]))
    before: list[int] = []
    for film, like in zip(shown.tolist(), liked, strict=True):
        again = holds[before[-5:]].mean(axis=0) @ holds[film] if before else 0.0
        watch = rng.random() < 1 / (1 + np.exp(2.5 - liking[user, film] - known[film] - 4 * again))
        rows.append((user, film, before[-5:], int(watch), float(like) if watch else np.nan))
        before = [*before, film] if watch else before
table = pd.DataFrame(rows, columns=["user", "film", "recent", "watch", "like"]).merge(films, on="film")
is_test = table.groupby("user").cumcount() >= 48
train, test = table[~is_test], table[is_test]
print(f"{len(train)} training rows, {len(test)} test rows; {train['watch'].mean():.0%} watched")

# %% [markdown]
# ## One model
#
# `side` says whose a feature is: the recommender takes the user's columns from the request and the item's from the
# catalogue. `RetrievalTask` learns two towers beside the two tasks, on the same embedding, so that candidates can be
# found by an index.

# %%
features = [
    Categorical("user", side="user", dim=16),
    Sequence("recent", key="film", length=5, pooling="mean", side="user", dim=16),
    Categorical("film", side="item", dim=16, unknown_rate=0.05),
    Sequence("genres", length=2, pooling="mean", side="item", dim=16),
]
tasks = [BinaryTask("watch"), BinaryTask("like"), RetrievalTask("fetch", label="watch", item="film")]
keras.utils.set_random_seed(0)
model = SharedBottom(FeatureTransform(features, tasks).fit(train), bottom_units=(64,), tower_units=(32,))
model.compile(keras.optimizers.Adam(0.005), metrics=None)
model.fit(train, batch_size=256, epochs=8, verbose=0)

# %% [markdown]
# ## A recommender
#
# The index gives the 100 nearest films; all tasks score them; the fusion makes one score of `watch` and `like`, here
# their product; MMR reorders the best by the films' genres. What a user has been shown before is left out.

# %%
recent = {user: part["film"].tolist()[-5:] for user, part in train[train["watch"] == 1].groupby("user")}
users = pd.DataFrame({"user": np.arange(USERS), "recent": [recent.get(user, []) for user in range(USERS)]})
recommender = Recommender(
    model,
    films,
    item="film",
    user="user",
    users=users,
    index=ExactIndex(),
    fusion=Powers({"watch": 1, "like": 1}),
    rerank=MMR("genres", trade_off=0.6),
    candidates=100,
    exclude=train,
)


def show(title, shown):
    listed = shown.merge(films, left_on="item", right_on="film")
    listed["genres"] = [", ".join(genres) for genres in listed["genres"]]
    print(f"\n{title}\n{listed[['rank', 'title', 'genres', 'score', 'watch', 'like']].round(3).to_string(index=False)}")


show("user 3, in the order of the fused score", recommender.recommend([3], k=8, diversity=0))
show("user 3, diverse", recommender.recommend([3], k=8))


# %% [markdown]
# How alike the films of a list are says the number of genres in it, and `intra_list_diversity` for all users.


# %%
def genres_of(shown):
    return len({genre for film in shown["item"] for genre in films["genres"][film]})


plain, diverse = (recommender.recommend(np.arange(USERS), k=8, diversity=how) for how in (0, 0.4))
by_user = [shown.groupby("user").apply(genres_of, include_groups=False).mean() for shown in (plain, diverse)]
print(f"genres in a list of 8: {by_user[0]:.2f} without and {by_user[1]:.2f} with diversity")
assert by_user[1] > by_user[0]

# %% [markdown]
# ## Why is it there?
#
# `reasons` says which task raised an item's score above the user's other candidates, and which feature did.

# %%
print(recommender.reasons([3], k=5)[["rank", "item", "score", "reason"]].to_string(index=False))

# %% [markdown]
# ## What the user did a moment ago
#
# The request's row counts, not the table's: recent events change the scores, and the list, at once. Nothing is trained.

# %%
then = recommender.recommend([3], k=10, diversity=0)
now = recommender.recommend({"user": 3, "recent": [10, 20, 30, 40, 50]}, k=10, diversity=0)
same = len(set(then["item"]) & set(now["item"]))
print(f"after five other films, {same} of the first 10 are still there")
assert now["score"].tolist() != then["score"].tolist()

# %% [markdown]
# ## A new film
#
# Items come, change and go without training. The model knows nothing of this film's id, but it knows its genres.

# %%
best = GENRES[np.argmax(taste[3])]
recommender.add_items(pd.DataFrame({"film": [FILMS], "title": ["The new one"], "genres": [[best]]}))
place = recommender.recommend([3], k=100, diversity=0).set_index("item")["rank"].get(FILMS)
print(f"the new film, of user 3's favourite genre, {best}, is at place {place}")
recommender.remove_items([FILMS])

# %% [markdown]
# ## What is it worth?
#
# `evaluate_ranking` takes a recommender as it is and judges its lists on test rows, of the whole catalogue. The popular
# films are what it must beat.

# %%
popular = train.groupby("film")["watch"].sum().sort_values(ascending=False).index.to_numpy()
judged = {"tasks": ["watch", "like"], "k": 10, "user": "user", "item": "film", "train": train}
found = evaluate_ranking(recommender, test, **judged, catalogue=films["film"])
base = evaluate_ranking(lambda asked: np.tile(popular, (len(asked), 1)), test, **judged, catalogue=films["film"])
for task in ("watch", "like"):
    values = [result.value("ndcg@10", task) for result in (found, base)]
    print(f"NDCG@10 of {task}: {values[0]:.3f}, of the popular films {values[1]:.3f}")

# %% [markdown]
# ## A folder
#
# All of it is a folder, and `mtl-zoo serve FOLDER --demo` serves it, with a page in the browser on which weights of
# tasks can be moved. `recommender.export(folder)` writes one SavedModel for servers that know nothing of this package.

# %%
recommender.save("films/1")
again = Recommender.load("films/1")
assert again.recommend([3])["item"].tolist() == recommender.recommend([3])["item"].tolist()
print("the loaded recommender gives the same list")

# %% [markdown]
# All options are told in `docs/concepts/recommender.md`; fusions and their tuning in `docs/concepts/ranking.md`.
#
# Next: tables that know different things (`11_several_sources.py`).
