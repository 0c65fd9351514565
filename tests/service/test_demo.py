"""The demo page: what it is told, what it may load, and what it does in a browser."""

import json
import re
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from browser import browser, missing
from service_case import served

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, RegressionTask, Sequence, SharedBottom
from mtl_zoo.recommend import MMR, Borda, Recommender, WeightedSum
from mtl_zoo.service import demo

pytestmark = pytest.mark.tensorflow
GENRES = ("crime", "drama", "comedy", "war")


@pytest.fixture(scope="module")
def recommender():
    rng = np.random.default_rng(0)
    films = pd.DataFrame({"film": np.arange(60), "title": [f"The {w} of <b>{n}</b>" for n, w in enumerate("ab" * 30)]})
    films["genres"] = [list(rng.choice(GENRES, rng.integers(1, 3), replace=False)) for _ in range(60)]
    users = pd.DataFrame({"user": np.arange(9) + 100, "age": rng.integers(18, 80, 9).astype(float)})
    users.loc[3, "age"] = np.nan
    users["seen"] = [rng.choice(60, 3).tolist() for _ in range(9)]
    rows = users.sample(300, replace=True, random_state=0).reset_index(drop=True)
    rows = rows.join(films.sample(300, replace=True, random_state=1).reset_index(drop=True))
    rows = rows.assign(like=rng.integers(0, 2, 300), rating=rng.uniform(1, 5, 300))
    features = [
        Categorical("user", side="user", dim=4),
        Numeric("age", side="user", missing="mean"),
        Sequence("seen", key="film", length=4, pooling="mean", side="user", dim=4),
        Categorical("film", side="item", dim=4),
        Sequence("genres", length=3, pooling="mean", side="item", dim=4),
    ]
    tasks = [BinaryTask("like"), RegressionTask("rating")]
    model = SharedBottom(FeatureTransform(features, tasks).fit(rows), bottom_units=(8,), tower_units=(4,))
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    model.fit_tasks({name: rows[name].to_numpy("float32") for name in ("like", "rating")})
    fusion = WeightedSum({"like": 2, "rating": 0.3})
    return Recommender(
        model, films, item="film", user="user", users=users, fusion=fusion, rerank=MMR("genres", 0.6), candidates=40
    )


def test_the_page_is_told_plain_values(recommender):
    told = json.loads(json.dumps(demo.described(recommender), allow_nan=False))
    assert told["tasks"] == ["like", "rating"] and told["weights"] == {"like": 2.0, "rating": 0.3}
    assert told["users"][3] == {"user": 103, "age": None, "seen": recommender.users["seen"][3]}
    assert told["columns"] == ["user", "age", "seen"] and told["diversity"] == 0.4 and not told["is_text"]
    assert told["items"]["1"] == "The b of <b>1</b>" and len(told["items"]) == 60
    other = Recommender(recommender.model, recommender.items, item="film", user="user", fusion=Borda({"like": 1}))
    told = demo.described(other)
    assert told["users"] == [] and told["diversity"] is None and told["weights"] == {"like": 1.0, "rating": 0.0}


def test_the_page_loads_nothing_from_elsewhere():
    text, headers = demo.page()
    assert not re.findall(r"(?:src|href)\s*=|@import|url\(|https?:|innerHTML|eval\(", text)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "connect-src 'self'" in policy
    assert resources.files("mtl_zoo.service").joinpath("demo.html").is_file()


ORDER = "return [...document.querySelectorAll('#list li')].map(line => Number(line.dataset.item))"
SLIDE = (
    "const found = document.getElementById(arguments[0]); "
    "if (found.type === 'checkbox') found.checked = arguments[1]; else found.value = arguments[1]; "
    "found.dispatchEvent(new Event('input', {bubbles: true}))"
)
WIDTH = "return [document.documentElement.scrollWidth, window.innerWidth]"


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")
def test_the_page_in_a_browser(recommender, tmp_path):
    pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
    recommender.save(tmp_path / "films" / "1")

    def order(user, **arguments):
        return recommender.recommend(user, 10, **arguments)["item"].tolist()

    with served(tmp_path / "films", demo=True, deadline=60.0) as client, browser() as page:
        page.size(1400, 900)
        page.open(f"http://127.0.0.1:{client.port}/")
        page.until(ORDER, order({"user": 100}))
        titles = page.run("return [...document.querySelectorAll('#list .title')].map(e => e.textContent)")
        first = order({"user": 100})[0]
        assert titles[0] == f"The {'ab'[first % 2]} of <b>{first}</b>"
        shown = page.run("return document.querySelectorAll('#list li .score').length")
        assert shown == 20 and page.run("return document.querySelector('#list .small').textContent").count("mean") == 1
        page.picture(tmp_path / "page-1400.png")

        # What counts, and back to the recommender's own order.
        page.run(SLIDE, "weight-like", "0")
        page.run(SLIDE, "weight-rating", "1")
        moved = order({"user": 100}, fusion={"like": 0, "rating": 1})
        assert moved != order({"user": 100})
        page.until(ORDER, moved)
        assert page.run("return document.querySelectorAll('.moved').length") > 0
        page.run("document.getElementById('own').click()")
        page.until(ORDER, order({"user": 100}))
        # Diversity off, on, and all of it.
        page.run(SLIDE, "is-diverse", False)
        plain = order({"user": 100}, diversity=0)
        assert plain != order({"user": 100})
        page.until(ORDER, plain)
        page.run(SLIDE, "is-diverse", True)
        page.run(SLIDE, "diversity", "0.9")
        page.until(ORDER, order({"user": 100}, diversity=0.9))
        # Another user, and one that no one knows, with events of their own.
        page.run(SLIDE, "diversity", "0.4")
        page.run(SLIDE, "user", "105")
        page.until(ORDER, order({"user": 105}))
        page.run(SLIDE, "user", "7")
        page.until("return document.getElementById('status').className", "error")
        assert "`users` must have the columns" in page.run("return document.getElementById('status').textContent")
        fill = "const found = document.querySelector(`[data-column=${arguments[0]}]`); found.value = arguments[1]; "
        fill += "found.dispatchEvent(new Event('input', {bubbles: true}))"
        page.run(fill, "age", "30")
        page.run(fill, "seen", "[5, 6]")
        page.until(ORDER, order({"user": 7, "age": 30, "seen": [5, 6]}))
        page.run(fill, "seen", "[31]")
        page.until(ORDER, order({"user": 7, "age": 30, "seen": [31]}))

        page.size(400, 800)
        scrolled, inner = page.run(WIDTH)
        assert inner == 400 and scrolled <= inner
        page.picture(tmp_path / "page-400.png")
        # The refused request of the unknown user aside, the console is silent.
        assert [text for text in page.complaints() if "/recommend" not in text and "favicon" not in text] == []
