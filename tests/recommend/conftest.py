import pytest
from recommended import WEIGHTS, make_model, make_tables

from mtl_zoo.recommend import Recommender


@pytest.fixture(scope="module")
def tables():
    return make_tables()


@pytest.fixture(scope="module")
def model(tables):
    return make_model(tables[2])


@pytest.fixture(scope="module")
def recommender(model, tables):
    users, items, _ = tables
    return Recommender(model, items, users=users, sides={"hour": "user"}, fusion=WEIGHTS)
