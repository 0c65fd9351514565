"""Users, items and a model of both, for the tests of the recommender."""

import numpy as np
import pandas as pd

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, Sequence, SharedBottom

ITEMS, USERS = 40, 12
WEIGHTS = {"click": 1.0, "buy": 0.5}


def make_tables():
    rng = np.random.default_rng(0)
    users = pd.DataFrame({"user_id": np.arange(USERS), "age": rng.uniform(18, 80, USERS)})
    items = pd.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(ITEMS)],
            "genre": rng.choice(list("abcd"), ITEMS),
            "price": rng.random(ITEMS),
            "tags": [list(rng.choice(list("xyzw"), 2, replace=False)) for _ in range(ITEMS)],
        }
    )
    rows = users.sample(400, replace=True, random_state=0).reset_index(drop=True)
    shown = items.sample(400, replace=True, random_state=1).drop(columns="tags").reset_index(drop=True)
    rows = rows.join(shown)
    rows["history"] = [list(rng.choice(items["item_id"], 3)) for _ in range(400)]
    rows["hour"] = rng.integers(0, 24, 400)
    return users, items, rows.assign(click=rng.integers(0, 2, 400), buy=rng.integers(0, 2, 400))


def spread(model):
    """Weights far enough from zero that scores differ well beyond rounding."""
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    return model


def make_model(rows, *more, **transform):
    features = [
        Categorical("user_id", side="user", dim=4),
        Numeric("age", side="user"),
        Sequence("history", key="item_id", length=4, pooling="mean", side="user", dim=4),
        Categorical("hour", dim=4),
        Categorical("item_id", side="item", dim=4),
        Categorical("genre", side="item", dim=4),
        Numeric("price", side="item"),
    ]
    tasks = [BinaryTask("click"), BinaryTask("buy"), *more]
    fitted = FeatureTransform(features, tasks, **transform).fit(rows)
    return spread(SharedBottom(fitted, bottom_units=(8,), tower_units=(4,)))


ANN = {"user_id": 3, "history": ["i3", "i5"], "hour": 4}


def predicted(model, tables, user):
    """Fused and single scores of every item, by `predict` on rows that are written out."""
    users, items, _ = tables
    row = {"age": users["age"][user["user_id"]], **user} if user["user_id"] in users["user_id"] else user
    frame = items.drop(columns="tags").assign(**{name: [value] * len(items) for name, value in row.items()})
    scores = {name: values[:, 0] for name, values in model.predict(frame, verbose=0).items()}
    return sum(WEIGHTS[name] * scores[name].astype("float64") for name in WEIGHTS), scores
