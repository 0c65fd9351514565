import numpy as np
import pytest
from published import check_same, write

from mtl_zoo.datasets import load_dataset, mind, verify_dataset

NEWS = [f"N{i}" for i in range(40)]


def news(ids):
    rows = [
        (
            n,
            "sports",
            f"sub{int(n[1:]) % 3}",
            f'"Quoted" title of {n}',
            "" if n == "N3" else f"Abstract\u00e9 {n}",
            "https://x",
            "[]",
            "[]",
        )
        for n in ids
    ]
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def behaviors(days, seed, count=60):
    """Impressions of five articles, of which every other one has a click."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        shown = rng.choice(NEWS, 5, replace=False)
        click = [int(j == 0 and i % 2 == 0) for j in range(5)]
        history = " ".join(rng.choice(NEWS, i % 4))
        day = days[i % len(days)]
        time = f"11/{day}/2019 {1 + i % 12}:05:58 {'AM' if i % 3 else 'PM'}"
        rows.append((i, f"U{i % 7}", time, history, " ".join(f"{n}-{c}" for n, c in zip(shown, click, strict=True))))
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


@pytest.fixture
def folder(tmp_path):
    files = {
        "MINDsmall_train/behaviors.tsv": behaviors([9, 13, 14], 0),
        "MINDsmall_train/news.tsv": news(NEWS[:30]),
        "MINDsmall_dev/behaviors.tsv.gz": behaviors([15], 1),
        "MINDsmall_dev/news.tsv": news(NEWS[10:]),
    }
    return write(tmp_path / "mind", files).parent


def test_a_row_is_an_article_of_an_impression(folder):
    data = load_dataset("mind", folder, history=3)
    assert [len(split) for split in data.splits.values()] == [200, 100, 300]
    assert [split.raw["time"].dt.day.unique().tolist() for split in data.splits.values()] == [[9, 13], [14], [15]]
    raw = data.test.raw
    line = behaviors([15], 1).decode().splitlines()[2].split("\t")
    third = raw[raw["impression_id"] == "2"]
    assert [f"{n}-{int(c)}" for n, c in zip(third["news_id"], third["click"], strict=True)] == line[4].split()
    assert (third["history"] == line[3]).all() and (third["hour"] == third["time"].dt.hour).all()
    hours = raw.drop_duplicates("impression_id")["hour"].tolist()
    assert hours[0] == 13 and hours[1] == 2  # 1:05 PM and 2:05 AM
    assert data.train.inputs["history"].shape == (200, 3)
    tables = {f.name: f.table for f in data.features if f.name in ("news_id", "history")}
    assert tables["news_id"] == tables["history"]
    check_same(data, load_dataset("mind", folder, history=3))


def test_texts_of_news(folder):
    articles = load_dataset("mind", folder).entities["news_id"].set_index("news_id")
    assert len(articles) == 40 and articles.loc["N5", "title"] == '"Quoted" title of N5'
    assert articles.loc["N3", "abstract"] == "" and articles.loc["N4", "abstract"] == "Abstracté N4"


def test_negatives_are_drawn_beside_each_click_in_training(folder):
    data = load_dataset("mind", folder, negatives=2)
    counts = data.train.raw.groupby("impression_id")["click"].agg(["sum", "size"])
    assert (counts["size"] == 3).all() and (counts["sum"] == 1).all()
    assert len(data.validation) == 100 and len(data.test) == 300
    assert data.train.raw.equals(load_dataset("mind", folder, negatives=2).train.raw)
    other = load_dataset("mind", folder, negatives=2, seed=1).train.raw
    assert not other["news_id"].equals(data.train.raw["news_id"])


def test_max_rows(folder):
    data = load_dataset("mind", folder, max_rows=9)
    assert [len(split) for split in data.splits.values()] == [
        30,
        15,
        45,
    ] and data.variant == "small,history=20,max_rows=9"


EARLIER = b"0\tU9\t11/8/2019 9:05:58 AM\t\tN1-1\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            EARLIER + b"1\tU1\t11/9/2019 9:05:58 AM\t\tN1-1 N2\n",
            r"must have impressions such as .*Received 1 others .*\['N2'\]",
        ),
        (
            EARLIER + b"1\tU1\t2019-11-09 09:05\t\tN1-1\n",
            "must have times such as 11/11/2019 9:05:58 AM. Received 1 others",
        ),
        (b"1\tU1\tN1-1\n", "`behaviors.tsv` must have 5 columns, impression_id, user_id, .*Received: 3 in"),
        (behaviors([9], 0), "`behaviors.tsv` must have two days or more. Received: 1 in"),
    ],
)
def test_broken_files_are_refused(folder, content, text):
    write(folder / "mind", {"MINDsmall_train/behaviors.tsv": content})
    with pytest.raises(ValueError, match=text):
        load_dataset("mind", folder)


def test_refuses(folder):
    assert len(verify_dataset("mind", folder)) == 2
    with pytest.raises(
        FileNotFoundError, match="Expected: MINDlarge_train/behaviors.tsv, .*Accept the terms at https://msnews"
    ):
        load_dataset("mind", folder, size="large")
    with pytest.raises(ValueError, match="Received: size='tiny'"):
        load_dataset("mind", folder, size="tiny")
    assert mind.SIZES == ("small", "large")
