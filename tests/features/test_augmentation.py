"""Texts said in other words: labels stay, each text is asked for once, what is unchanged is no new row."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.features import Synonyms, augment_texts

TABLE = pd.DataFrame(
    {"review": ["good film", "bad one", None, "good film", "  ", "so so"], "like": [1, 0, 1, 1, 0, 0], "id": range(6)}
)


def upper(texts):
    return [text.upper() for text in texts]


def test_rows_come_first_and_copies_keep_their_labels():
    found = augment_texts(TABLE, "review", upper)
    pd.testing.assert_frame_equal(found.iloc[:6], TABLE)
    assert found.iloc[6:]["review"].tolist() == ["GOOD FILM", "BAD ONE", "GOOD FILM", "SO SO"]
    assert found.iloc[6:]["like"].tolist() == [1, 0, 1, 0] and found.iloc[6:]["id"].tolist() == [0, 1, 3, 5]


def test_each_text_is_rewritten_once_in_batches():
    calls = []

    def counted(texts):
        calls.append(list(texts))
        return upper(texts)

    augment_texts(TABLE, "review", counted, batch_size=2)
    assert calls == [["good film", "bad one"], ["so so"]]


def test_what_comes_back_unchanged_is_no_new_row():
    found = augment_texts(TABLE, "review", Synonyms({"good": ["fine"]}, rate=1.0))
    assert found.iloc[6:]["review"].tolist() == ["fine film", "fine film"]
    pd.testing.assert_frame_equal(augment_texts(TABLE, "review", list), TABLE)


def test_a_share_of_the_rows_by_seed():
    table = pd.DataFrame({"review": [f"text {i}" for i in range(2000)]})
    first, again, other = (augment_texts(table, "review", upper, share=0.3, seed=seed) for seed in (1, 1, 2))
    assert abs(len(first) - 2600) < 70
    pd.testing.assert_frame_equal(first, again)
    assert first["review"].tolist() != other["review"].tolist()


def test_synonyms_are_drawn_by_word_and_keep_capitals():
    lexicon = {"Good": ["great", "fine"], "film": ["movie"]}
    words = " ".join(["good"] * 4000)
    found = Synonyms(lexicon, rate=0.25, seed=3)([words])[0].split()
    counts = {word: found.count(word) / 4000 for word in set(found)}
    assert counts == pytest.approx({"good": 0.75, "great": 0.125, "fine": 0.125}, abs=0.02)
    assert Synonyms(lexicon, rate=1.0)(["Film, filmed: FILM!"]) == ["Movie, filmed: Movie!"]
    assert Synonyms(lexicon, seed=5)([words]) == Synonyms(lexicon, seed=5)([words])
    assert Synonyms(lexicon)([]) == []


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"column": "text"}, ValueError, "text"),
        ({"rewrite": "upper"}, TypeError, "`rewrite` must take a list of texts"),
        ({"rewrite": lambda texts: texts[1:]}, ValueError, "`rewrite` must give as many texts as it gets.*2 for 3"),
        ({"rewrite": lambda texts: [1] * len(texts)}, TypeError, "`rewrite` must give strings. Received: 1 for 'good"),
        ({"share": 0.0}, ValueError, "share"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    given = {"column": "review", "rewrite": upper, **arguments}
    with pytest.raises(error, match=message):
        augment_texts(TABLE, **given)


@pytest.mark.parametrize("lexicon", [{}, {"good": []}, {"good": "fine"}])
def test_a_lexicon_needs_synonyms(lexicon):
    with pytest.raises(ValueError, match="`lexicon` must hold"):
        Synonyms(lexicon)


def test_rows_of_other_types_pass():
    table = {"review": np.array(["a", "b"], object), "x": np.arange(2)}
    assert augment_texts(table, "review", upper)["x"].tolist() == [0, 1, 0, 1]
