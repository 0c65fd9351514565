"""Two sources of rows, a transform of both and models on it, for the tests of joint sources."""

import keras
import numpy as np
import pandas as pd

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, JointSources, Numeric, RegressionTask
from mtl_zoo.options import MLP

TASKS = [BinaryTask("like"), RegressionTask("stars"), BinaryTask("buy")]
FEATURES = [Categorical("user", dim=3), Categorical("film", dim=3), Numeric("age"), Categorical("word", dim=2)]
DOMAIN = Categorical("domain", column="source", dim=2)


def tables(ratings=40, reviews=15, seed=0):
    """Both have users and what they buy; the first alone has films, ages and likes, the second words and stars."""
    rng = np.random.default_rng(seed)
    first = {"user": rng.integers(0, 9, ratings), "film": rng.integers(0, 6, ratings), "age": rng.normal(size=ratings)}
    first |= {"like": rng.integers(0, 2, ratings), "buy": rng.integers(0, 2, ratings)}
    second = {"user": rng.integers(5, 14, reviews), "word": rng.choice(["good", "bad"], reviews)}
    second |= {"stars": rng.normal(size=reviews), "buy": rng.integers(0, 2, reviews)}
    return {"ratings": pd.DataFrame(first), "reviews": pd.DataFrame(second)}


def fitted(sources=None, features=(*FEATURES, DOMAIN), tasks=TASKS):
    return FeatureTransform(list(features), tasks).fit(JointSources(tables()) if sources is None else sources)


def make_model(transform, name="shared_bottom", eager=True, seed=0, **options):
    keras.utils.set_random_seed(seed)
    small = {"bottom_units": MLP((6,), dropout=0.3), "tower_units": (4,)} if name == "shared_bottom" else {}
    model = mtl_zoo.create_model(name, transform, **small)
    model.compile("adam", run_eagerly=eager, **options)
    return model
