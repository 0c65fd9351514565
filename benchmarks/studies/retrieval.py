"""Retrieval on MovieLens: films that a user will like, found among all of them, for users of the test rows.

    python -m benchmarks.studies.retrieval --out benchmarks/results/recommend/retrieval-100k.csv
    python -m benchmarks.studies.retrieval --data movielens_1m --out benchmarks/results/recommend/retrieval-1m.csv

Every method sees the ratings of training alone, and gives each user films that are in none of the user's training or
validation rows; relevant are those of the test rows with a rating of 4 or 5. Positive rows of retrieval are ratings of
4 and 5. `separate` retrieves by one model and ranks by another; `joint` has both tasks in one model. The public
examples of tensorflow-recommenders and of keras-rs (a rating and a retrieval task on one pair of towers) are run on the
same rows, in a process of their own. `example as in X` is that model of this zoo's parts: ids alone, width 32, and the
same optimizer, batch and epochs as X has in its tutorial.

Differences are against `joint, retrieved and ranked`, by a bootstrap of users, in a file beside the rows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, RegressionTask, RetrievalTask, create_model
from mtl_zoo.datasets import load_dataset
from mtl_zoo.recommend import ExactIndex, RankingResult, ReciprocalRank, evaluate_ranking

K, FETCHED = (10, 20), 200
METRICS = ("recall@10", "recall@20", "ndcg@10")
COLUMNS = ("method", "data", "split", "seed", "users", "films", *METRICS, "rmse", "epochs", "seconds")
DIFFERENCES = ("method", "base", "data", "split", "seed", "metric", "value", "low", "high")
BASE = "joint, retrieved and ranked"
USER, ITEM = ("user_id", "gender", "age", "occupation", "zip_region"), ("movie_id", "year", "genres")
Lists = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a data set: to train on, what users have seen, and the rows of test users."""

    train: pd.DataFrame
    seen: pd.DataFrame
    test: pd.DataFrame
    transform: FeatureTransform

    @classmethod
    def of(cls, name: str, split: str, seed: int) -> Rows:
        data = load_dataset(name, split=split, seed=seed)
        parts = {part: data.table(part) for part in ("train", "validation", "test")}
        sides = dict.fromkeys(USER, "user") | dict.fromkeys(ITEM, "item")
        specs = [dataclasses.replace(f, side=sides[f.name]) for f in data.transform.specs]
        transform = FeatureTransform(specs, [BinaryTask("like")]).fit(parts["train"])
        return cls(parts["train"], pd.concat([parts["train"], parts["validation"]]), parts["test"], transform)

    @property
    def films(self) -> pd.DataFrame:
        """Films of training, each once, with what is known of them."""
        return self.train.drop_duplicates("movie_id")[list(ITEM)]

    def people(self, users: np.ndarray) -> pd.DataFrame:
        """What is known of users, a row each."""
        known = pd.concat([self.seen, self.test]).drop_duplicates("user_id").set_index("user_id")
        return known.loc[users].reset_index()[list(USER)]

    def seen_by(self, users: np.ndarray) -> list[np.ndarray]:
        of_user = self.seen.groupby("user_id")["movie_id"].agg(lambda ids: ids.to_numpy())
        return [of_user.get(user, np.zeros(0, "int64")) for user in users]

    def judged(self, recommend: Lists) -> RankingResult:
        films = pd.unique(pd.concat([self.seen, self.test])["movie_id"])
        options = {"user": "user_id", "item": "movie_id", "train": self.seen, "catalogue": films}
        return evaluate_ranking(recommend, self.test, k=K, tasks={"rating": 3.5}, **options)


def best_of(scores: np.ndarray, films: np.ndarray, seen: Sequence[np.ndarray], k: int = max(K)) -> np.ndarray:
    """The k best films of each row of scores that were not seen."""
    place = pd.Index(films)
    scores = np.array(scores, "float64")
    for row, ids in zip(scores, seen, strict=True):
        at = place.get_indexer(pd.Index(ids))
        row[at[at >= 0]] = -np.inf
    return films[np.argsort(-scores, axis=1, kind="stable")[:, :k]]


def popularity(rows: Rows) -> Lists:
    """By how many users liked a film."""
    counts = rows.train[rows.train["like"] == 1]["movie_id"].value_counts()
    films = rows.films["movie_id"].to_numpy()
    scores = counts.reindex(films, fill_value=0).to_numpy()
    return lambda users: best_of(np.tile(scores, (len(users), 1)), films, rows.seen_by(users))


def item_knn(rows: Rows, shrink: float = 10.0, neighbours: int = 100) -> Lists:
    """The sum of cosines of a film with those that the user liked, over each film's nearest ones."""
    likes = rows.train[rows.train["like"] == 1]
    films, users = rows.films["movie_id"].to_numpy(), pd.unique(likes["user_id"])
    matrix = np.zeros((len(users), len(films)), "float32")
    matrix[pd.Index(users).get_indexer(likes["user_id"]), pd.Index(films).get_indexer(likes["movie_id"])] = 1
    together, counts = matrix.T @ matrix, matrix.sum(axis=0)
    alike = together / (np.sqrt(np.outer(counts, counts)) + shrink)
    np.fill_diagonal(alike, 0)
    nearest = min(neighbours, len(films))
    least = np.partition(alike, -nearest, axis=1)[:, -nearest, None]
    alike[alike < least] = 0
    known = pd.DataFrame(matrix, index=users)

    def recommend(asked: np.ndarray) -> np.ndarray:
        return best_of(known.reindex(asked, fill_value=0).to_numpy() @ alike.T, films, rows.seen_by(asked))

    return recommend


def trained(rows: Rows, tasks: Sequence[Any], args: Any, seed: int) -> Any:
    """A model of the tasks, trained all epochs."""
    import keras

    keras.utils.set_random_seed(seed)
    transform = FeatureTransform(rows.transform.specs, tasks).fit(rows.train)
    model = create_model("shared_bottom", transform, bottom_units=(64, 32), tower_units=(16,))
    model.compile(keras.optimizers.Adam(args.learning_rate), metrics=None)
    model.fit(rows.train, batch_size=args.batch_size, epochs=args.epochs, verbose=0)
    return model


def fetch(rows: Rows, model: Any, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k films that are nearest to each user."""
    index = ExactIndex().build(rows.films["movie_id"], model.item_vectors(rows.films))
    return index.query(model.user_vectors(rows.people(users)), k, rows.seen_by(users))


def scores_of(rows: Rows, model: Any, users: np.ndarray, films: np.ndarray) -> np.ndarray:
    """The probability of a like for each user and film of (users, films)."""
    people = rows.people(users)
    known = rows.films.set_index("movie_id")
    found = []
    for start in range(0, len(users), 100):
        part, wanted = people.iloc[start : start + 100], films[start : start + 100]
        pairs = part.loc[part.index.repeat(films.shape[1])].reset_index(drop=True)
        pairs = pd.concat([pairs, known.loc[wanted.ravel()].reset_index()], axis=1)
        found.append(model.predict(pairs, batch_size=8192, verbose=0)["like"].reshape(wanted.shape))
    return np.concatenate(found)


def retrieved_and_ranked(rows: Rows, retriever: Any, ranker: Any, fused: bool = False) -> Lists:
    """The nearest films in the order of the like's score, or of both orders' ranks."""

    def recommend(users: np.ndarray) -> np.ndarray:
        films, near = fetch(rows, retriever, users, FETCHED)
        like = scores_of(rows, ranker, users, films)
        scores = ReciprocalRank({"like": 1.0, "near": 1.0})({"like": like, "near": near}) if fused else like
        order = np.argsort(-scores, axis=1, kind="stable")[:, : max(K)]
        return np.take_along_axis(films, order, axis=1)

    return recommend


def methods(rows: Rows, args: Any, seed: int) -> dict[str, Lists]:
    """Everything that is compared, save the examples."""
    like, find = BinaryTask("like"), RetrievalTask("find", label="like", item="movie_id", temperature=args.temperature)
    alone, ranker = trained(rows, [find], args, seed), trained(rows, [like], args, seed)
    joint = trained(rows, [like, find], args, seed)
    films = rows.films["movie_id"].to_numpy()

    def rank_all(users: np.ndarray) -> np.ndarray:
        every = np.tile(films, (len(users), 1))
        return best_of(scores_of(rows, ranker, users, every), films, rows.seen_by(users))

    return {
        "popularity": popularity(rows),
        "item-kNN": item_knn(rows),
        "retrieval alone": lambda users: fetch(rows, alone, users, max(K))[0],
        "ranking alone, all films": rank_all,
        "separate, retrieved and ranked": retrieved_and_ranked(rows, alone, ranker),
        "separate, fused": retrieved_and_ranked(rows, alone, ranker, fused=True),
        "joint, retrieval": lambda users: fetch(rows, joint, users, max(K))[0],
        BASE: retrieved_and_ranked(rows, joint, joint),
        "joint, fused": retrieved_and_ranked(rows, joint, joint, fused=True),
    }


# The public example, a rating and a retrieval task on MovieLens-100K: of this zoo, and of its two publishers.


def example(rows: Rows, batch: int, epochs: int, seed: int) -> tuple[Lists, float]:
    """The example of this zoo's parts: its lists, and the RMSE of its ratings."""
    import keras

    keras.utils.set_random_seed(seed)
    features = [Categorical("user_id", dim=32, side="user"), Categorical("movie_id", dim=32, side="item")]
    tasks = [RegressionTask("rating"), RetrievalTask("find", label="watch", tower_units=(32,), temperature=0.1)]
    table = rows.train.assign(watch=1)
    model = create_model("shared_bottom", FeatureTransform(features, tasks).fit(table), bottom_units=(256, 128))
    model.compile(keras.optimizers.Adagrad(0.1), metrics=None)
    model.fit(table, batch_size=batch, epochs=epochs, verbose=0)
    errors = model.predict(rows.test, verbose=0)["rating"][:, 0] - rows.test["rating"]
    return lambda users: fetch(rows, model, users, max(K))[0], float(np.sqrt(np.mean(np.square(errors))))


def example_of_tfrs(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], batch: int, epochs: int, seed: int
) -> dict[str, Any]:
    """The example of tensorflow-recommenders, as its tutorial has it; runs where TF_USE_LEGACY_KERAS=1.

    Returns:
        `users` and `films`: ids, with `user_vectors` and `film_vectors`; `rmse` of the test rows.
    """
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    tf.keras.utils.set_random_seed(seed)
    users, films = np.unique(train["user_id"]), np.unique(train["movie_id"])

    def tower(ids: np.ndarray) -> Any:
        lookup = tf.keras.layers.IntegerLookup(vocabulary=ids)
        return tf.keras.Sequential([lookup, tf.keras.layers.Embedding(len(ids) + 1, 32)])

    class Example(tfrs.Model):
        def __init__(self) -> None:
            super().__init__()
            self.user, self.film = tower(users), tower(films)
            dense = tf.keras.layers.Dense
            self.rating = tf.keras.Sequential([dense(256, "relu"), dense(128, "relu"), dense(1)])
            self.rates = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())
            self.finds = tfrs.tasks.Retrieval()

        def call(self, inputs: Any) -> Any:
            u, v = self.user(inputs["user_id"]), self.film(inputs["movie_id"])
            return u, v, self.rating(tf.concat([u, v], axis=1))

        def compute_loss(self, inputs: Any, training: bool = False) -> Any:
            u, v, rating = self(inputs)
            return self.rates(labels=inputs["rating"][:, None], predictions=rating) + self.finds(u, v)

    model = Example()
    model.compile(optimizer=tf.keras.optimizers.Adagrad(0.1))
    rows = tf.data.Dataset.from_tensor_slices(dict(train)).shuffle(len(train["rating"]), seed=seed).batch(batch)
    model.fit(rows, epochs=epochs, verbose=0)
    errors = model({name: tf.constant(array) for name, array in test.items()})[2].numpy()[:, 0] - test["rating"]
    vectors = {"user_vectors": model.user(users).numpy(), "film_vectors": model.film(films).numpy()}
    return {"users": users, "films": films, **vectors, "rmse": float(np.sqrt(np.mean(np.square(errors))))}


def example_of_keras_rs(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], batch: int, epochs: int, seed: int
) -> dict[str, Any]:
    """The example of keras-rs, as its tutorial has it: sums of cross entropies, and ratings as shares of their range.

    Returns:
        The same as `example_of_tfrs`.
    """
    import keras
    import keras_rs
    from keras import ops

    keras.utils.set_random_seed(seed)
    users, films = np.unique(train["user_id"]), np.unique(train["movie_id"])
    # Ids that are not in training have the embedding of place 0, which is never trained.
    place = {"user_id": pd.Index(users), "movie_id": pd.Index(films)}

    def inputs_of(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: index.get_indexer(pd.Index(part[name])) + 1 for name, index in place.items()}

    class Example(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.user = keras.layers.Embedding(len(users) + 1, 32)
            self.film = keras.layers.Embedding(len(films) + 1, 32)
            dense = keras.layers.Dense
            self.rating = keras.Sequential([dense(256, "relu"), dense(128, "relu"), dense(1)])
            self.rates = keras.losses.MeanSquaredError()
            self.finds = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")

        def call(self, inputs: Any) -> Any:
            u, v = self.user(inputs["user_id"]), self.film(inputs["movie_id"])
            return {"user": u, "film": v, "rating": self.rating(ops.concatenate([u, v], axis=1))}

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            scores = ops.matmul(y_pred["user"], ops.transpose(y_pred["film"]))
            rows = ops.shape(scores)[0]
            return self.finds(ops.eye(rows), scores) + self.rates(ops.expand_dims(y, -1), y_pred["rating"])

    model = Example()
    model.compile(optimizer=keras.optimizers.Adagrad(0.1))
    shares = (train["rating"] - 1) / 4
    model.fit(inputs_of(train), shares.astype("float32"), batch_size=batch, epochs=epochs, verbose=0)
    errors = 4 * model.predict(inputs_of(test), verbose=0)["rating"][:, 0] + 1 - test["rating"]
    # Its own layer ranks all films; that gives the same order as its vectors in an index.
    u, v = (np.asarray(layer.embeddings)[1:] for layer in (model.user, model.film))
    nearest = keras_rs.layers.BruteForceRetrieval(v, k=5, return_scores=False)
    if not np.array_equal(np.asarray(nearest(u[:20])), np.argsort(-u[:20] @ v.T, axis=1)[:, :5]):
        raise ValueError("keras-rs' own retrieval layer orders films in another way than their vectors do.")
    about = {"users": users, "films": films, "user_vectors": u, "film_vectors": v}
    return {**about, "rmse": float(np.sqrt(np.mean(np.square(errors))))}


def lists_of(rows: Rows, found: Mapping[str, Any]) -> Lists:
    """Lists by the vectors of a publisher's example; unknown users get popular films."""
    index = ExactIndex().build(found["films"], found["film_vectors"])
    vectors = pd.DataFrame(found["user_vectors"], index=found["users"])
    popular = popularity(rows)

    def recommend(users: np.ndarray) -> np.ndarray:
        known = np.isin(users, found["users"])
        lists = popular(users)
        lists[known] = index.query(vectors.loc[users[known]].to_numpy(), max(K), rows.seen_by(users[known]))[0]
        return lists

    return recommend


# The examples of the publishers, with the batch and epochs of their tutorials, and what must be set to run them.
EXAMPLES: dict[str, tuple[Any, int, int, dict[str, str]]] = {
    "tensorflow-recommenders": (example_of_tfrs, 8192, 3, {"TF_USE_LEGACY_KERAS": "1"}),
    "keras-rs": (example_of_keras_rs, 1000, 5, {}),
}


def examples(rows: Rows, seed: int) -> dict[str, tuple[Lists, float, int]]:
    """Both publishers' examples, and ours beside each: lists, RMSE, epochs."""
    columns = ("user_id", "movie_id", "rating")
    parts = [
        {n: t[n].to_numpy("float32" if n == "rating" else "int64") for n in columns} for t in (rows.train, rows.test)
    ]
    made: dict[str, tuple[Lists, float, int]] = {}
    for name, (function, batch, epochs, environment) in EXAMPLES.items():
        found, _ = frame.run(function, *parts, batch, epochs, seed, environ=environment)
        made[f"example as in {name}"] = (*example(rows, batch, epochs, seed), epochs)
        made[f"example of {name}"] = (lists_of(rows, found), found["rmse"], epochs)
    return made


def run_seed(args: Any, seed: int, kept: frame.Rows) -> dict[str, RankingResult]:
    """Judges every method of a seed, enters its row, and gives the results."""
    rows = Rows.of(args.data, args.split, seed)
    about = {"data": args.data, "split": args.split, "seed": seed, "films": len(rows.films), "epochs": args.epochs}
    results = {}
    made: dict[str, tuple[Any, ...]] = {n: (lists, None, args.epochs) for n, lists in methods(rows, args, seed).items()}
    made |= {} if args.no_examples else examples(rows, seed)
    for name, (lists, rmse, epochs) in made.items():
        started = time.perf_counter()
        results[name] = result = rows.judged(lists)
        values = {metric: round(result.value(metric), 5) for metric in METRICS}
        of = {"method": name, **about, "users": len(result.by_user["user"].unique()), **values}
        error = {} if rmse is None else {"rmse": round(rmse, 5), "epochs": epochs}
        kept.add({**of, **error, "seconds": round(time.perf_counter() - started, 1)})
    return results


def differences(results: Mapping[str, RankingResult], seed: int, resamples: int) -> list[dict[str, Any]]:
    """Rows of every method against `BASE`, with a 95 % interval over users."""
    found = []
    for name, result in results.items():
        for metric in METRICS if name != BASE else ():
            gap = result.difference(results[BASE], metric, resamples=resamples, seed=seed)
            numbers = {key: round(getattr(gap, key), 5) for key in ("value", "low", "high")}
            found.append({"method": name, "base": BASE, "seed": seed, "metric": metric, **numbers})
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"data": "movielens_100k", "split": "user", "seeds": 3, "epochs": 10, "batch_size": 1024}
    options |= {"learning_rate": 1e-3, "temperature": 0.1, "resamples": 1000}
    args = frame.parser(__doc__ or "", {**options, "no_examples": False}).parse_args(arguments)
    kept = frame.Rows(args.out, COLUMNS)
    apart = frame.Rows(args.out.with_name(f"{args.out.stem}-differences.csv"), DIFFERENCES)
    for seed in range(args.seeds):
        if not kept.has(data=args.data, split=args.split, seed=seed):
            for row in differences(run_seed(args, seed, kept), seed, args.resamples):
                apart.add({"data": args.data, "split": args.split, **row})
    frame.show(kept.read(), ("method", "seed", "users", *METRICS, "rmse"), "films that users will like")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
