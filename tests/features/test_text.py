"""Text: tokens of any script and any bytes, learned from the training rows, the same in tables and in graphs."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, FeatureTransform, Text
from mtl_zoo.features import TableStream, open_cache, write_cache
from mtl_zoo.features._pieces import BYTES_PER_TOKEN, Pieces, learn_pieces
from mtl_zoo.features.cache import transform_hash
from mtl_zoo.features.spec import as_features
from mtl_zoo.features.text import encoder_names
from mtl_zoo.layers.text import TEXT_ENCODERS

pytestmark = pytest.mark.tensorflow
CLICK = BinaryTask("click")
WORDS = ("the", "a", "good", "bad", "film", "story", "acting", "was", "is", "very", "unbelievable", "boring", "!", ",")
RNG = np.random.default_rng(0)
REVIEWS = [" ".join(RNG.choice(WORDS, RNG.integers(1, 12))) for _ in range(40)]
HOSTILE = [
    "", " \t\n", "\x00", "a\x00film", "naïve CAFÉ", "cafe\u0301", "好的电影 映画 영화", "фильм хороший",
    "\u0641\u064a\u0644\u0645 \u062c\u064a\u062f", "\U0001f600\U0001f468\u200d\U0001f469", "[PAD] [UNK] ##a",
    "\ufeffgood", "good\u200bfilm", "\ufb01lm \u2460", "x" * 300, "<br/><br />", "don't", "12,345.67", "\x7f\x1b[31m",
]  # fmt: skip


def table_of(texts, name="review"):
    return pd.DataFrame({name: pd.Series(texts, dtype=object), "click": np.arange(len(texts)) % 2})


def fitted(texts=REVIEWS, name="review", **arguments):
    feature = Text(name, **{"dim": 4, "max_length": 8, "vocabulary_size": 120, **arguments})
    return FeatureTransform(feature, CLICK).fit(table_of(texts, name))


def test_the_names_of_encoders_are_those_of_layers():
    assert {"mean", *TEXT_ENCODERS} == set(encoder_names())


def test_pieces_are_found_again_and_padding_is_0():
    transform = fitted()
    pieces = transform.values_of("review")
    assert len(pieces) <= 120 and len(set(pieces)) == len(pieces) and {"film", "good", "the"} <= set(pieces)
    ids = transform.encode(table_of(["Good film!", None, "zzz"]))["review"]
    assert [pieces[i - 2] for i in ids[0, :3]] == ["good", "film", "!"]
    assert not ids[0, 3:].any() and not ids[1].any()
    assert ids[2].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]  # a word that no pieces make
    assert transform.features[0].num_ids == len(pieces) + 2
    assert transform.unseen == {}


def test_the_same_rows_give_the_same_pieces_in_any_order():
    pieces = learn_pieces(lambda: REVIEWS, 60, True)
    assert learn_pieces(lambda: REVIEWS[::-1], 60, True) == pieces


@pytest.mark.slow
def test_another_process_learns_the_same_pieces():
    pieces = learn_pieces(lambda: REVIEWS, 60, True)
    code = f"from mtl_zoo.features._pieces import learn_pieces; print(learn_pieces(lambda: {REVIEWS!r}, 60, True))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(pieces)


def test_as_many_pieces_as_were_asked_for():
    assert len(learn_pieces(lambda: REVIEWS, 40, True)) == 40
    assert learn_pieces(lambda: ["x"], 1, True) == ("x",)
    assert learn_pieces(lambda: ["ab ab"], 9, True) == ("a", "b", "##a", "##b", "ab")
    # Characters of other scripts are words of their own, and none of their pieces go on within a word.
    assert learn_pieces(lambda: ["你好 世界", "你好"], 9, True) == ("世", "你", "好", "界")
    # Rare ones leave room for words.
    pieces = learn_pieces(lambda: [*REVIEWS, "qwxz" * 9], 24, True)
    assert any(len(piece.removeprefix("##")) > 1 for piece in pieces) and len(pieces) == 24


def test_a_handful_of_texts_is_enough():
    transform = FeatureTransform(Text("review"), CLICK).fit(table_of(["ok", None]))
    ids = transform.encode(table_of(["ok", "OK", ""]))["review"]
    assert (ids[0] == ids[1]).all() and ids[0].any() and not ids[2].any()


@pytest.mark.parametrize("lowercase", [True, False])
def test_texts_of_any_script_are_the_same_in_a_graph(lowercase):
    transform = fitted([*REVIEWS, *HOSTILE], lowercase=lowercase, vocabulary_size=200)
    table = table_of([*HOSTILE, *REVIEWS, None])
    ids = transform.encode(table)["review"]
    in_graph = transform.encode_in_graph(transform.raw_arrays(table))["review"].numpy()
    np.testing.assert_array_equal(in_graph, ids)
    blank = [not text.strip(" \t\n\x00\x7f\x1b") for text in HOSTILE]
    np.testing.assert_array_equal(ids[: len(HOSTILE)].any(axis=1), ~np.array(blank))
    upper, lower = transform.encode(table_of(["FILM", "film"]))["review"]
    assert (upper == lower).all() == lowercase


def test_a_graph_leaves_out_bytes_that_are_no_text():
    import tensorflow as tf

    transform = fitted()
    raw = tf.constant([b"good \xff\xfefilm", b"\xed\xa0\x80good film", b"good film\xc3"])
    ids = transform.encode_in_graph({"review": raw})["review"].numpy()
    np.testing.assert_array_equal(ids, np.repeat(transform.encode(table_of(["good film"]))["review"], 3, axis=0))
    assert transform.encode_in_graph({"review": tf.constant([], tf.string)})["review"].shape == (0, 8)


def test_long_texts_are_cut_first_and_by_one_rule():
    transform = fitted()
    word = "good film "
    megabyte = word * 100_000
    most = 8 * BYTES_PER_TOKEN
    texts = [megabyte, word * 5, "é" * 10**6, "x" * (most - 1) + "好", " " * most + "film", " " * (most - 4) + "film"]
    table = table_of(texts)
    ids = transform.encode(table)["review"]
    np.testing.assert_array_equal(transform.encode_in_graph(transform.raw_arrays(table))["review"].numpy(), ids)
    np.testing.assert_array_equal(ids[0], ids[1])  # the first tokens are kept
    assert not ids[4].any() and ids[5].any()  # nothing within what is read
    again = fitted([*REVIEWS, megabyte])  # of which the learner sees no more either
    assert again.features[0].num_ids <= 122


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, 2, 3], "`review` must hold strings, for feature 'review'. Received: whole numbers"),
        ([1.5, None], "`review` must hold strings, for feature 'review'. Received: numbers"),
        ([["a"], ["b"]], "`review` must hold strings, for feature 'review'. Received: lists of strings"),
        ([b"a", b"b"], r"`review` must hold strings.*Received: bytes. Convert it: table\[column\].str.decode"),
        (["a", "\ud800b"], "`review` must hold text without lone surrogates.*Received: 1 of 2 rows with"),
        (["", " ", None], "`review` must hold a text to fit feature 'review'. Received: 3 rows, all missing or blank"),
        (["\x00", None], "`review` must hold a text.*Received: 1 texts without a character that can be read"),
    ],
)
def test_what_is_no_text_is_refused_by_name(cells, message):
    with pytest.raises(ValueError, match=message):
        FeatureTransform(Text("review"), CLICK).fit(pd.DataFrame({"review": pd.Series(cells, dtype=object)}))


def test_a_fitted_transform_refuses_surrogates_and_other_types():
    transform = fitted()
    with pytest.raises(ValueError, match="`review` must hold text without lone surrogates.*1 of 2 rows"):
        transform.encode(table_of(["good", "\udcff"]))
    with pytest.raises(ValueError, match="`review` must hold strings, as in the table"):
        transform.encode(table_of([1, 2]))
    assert not transform.encode(table_of([None, None]))["review"].any()


@pytest.mark.parametrize("dtype", ["object", "string", "str", "string[pyarrow]", "category"])
def test_columns_of_any_string_type(dtype):
    table = table_of(["good film", None, "bad", "good film"])
    expected = fitted().encode(table)["review"]
    table["review"] = table["review"].astype(dtype)
    np.testing.assert_array_equal(fitted().encode(table)["review"], expected)
    transform = FeatureTransform(Text("review", vocabulary_size=9), CLICK).fit(table)
    assert transform.describe()[["distinct", "missing"]].values.tolist() == [[2, 1]]


def test_a_given_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\ngood\nfilm\n##s\n", encoding="utf-8")
    transform = fitted(vocabulary=str(path))
    assert transform.values_of("review") == ("[CLS]", "good", "film", "##s")
    assert transform.encode(table_of(["good films [CLS] bad"]))["review"].tolist() == [[3, 4, 5, 1, 1, 1, 1, 0]]
    assert Text("x", vocabulary=path).vocabulary == Text("x", vocabulary=["[CLS]", "good", "film", "##s"]).vocabulary
    transform.save(tmp_path / "transform")
    path.unlink()
    loaded = FeatureTransform.load(tmp_path / "transform")
    assert loaded.specs[0].vocabulary == transform.specs[0].vocabulary  # fitted again, it reads by the same pieces
    assert FeatureTransform(loaded.specs, CLICK).fit(table_of(["other"])).values_of("review")[1] == "good"


def test_texts_share_pieces_by_key():
    features = [Text("title", max_length=3, key="words", dim=4), Text("body", max_length=8, key="words", dim=4)]
    table = pd.DataFrame({"title": ["good film"] * 2, "body": ["bad story", "bad story bad"], "click": [0, 1]})
    transform = FeatureTransform(features, CLICK).fit(table)
    title, body = transform.features
    assert title.num_ids == body.num_ids and transform.values_of("title") == transform.values_of("body")
    swapped = table.rename(columns={"title": "body", "body": "title"})
    np.testing.assert_array_equal(transform.encode(table)["title"], transform.encode(swapped)["body"][:, :3])
    for argument, ours, others in [("dim", 4, 8), ("encoder", "cnn", "mean"), ("dropout_tokens", 0.1, 0.0)]:
        pair = [Text("a", key="k", **{argument: others}), Text("b", key="k", **{argument: ours})]
        with pytest.raises(ValueError, match=f"`{argument}` must be the same for features that share the text 'k'"):
            as_features(pair)
    for argument, value in [("vocabulary_size", 9), ("lowercase", False)]:
        pair = [Text("title", key="k"), Text("body", key="k", **{argument: value})]
        with pytest.raises(ValueError, match=f"`{argument}` must be the same for features that share the text 'k'"):
            FeatureTransform(pair).fit(table)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder": "bert"}, ValueError, "`encoder` must be one of the known values. Received: encoder='bert'"),
        (
            {"encoder": 3},
            TypeError,
            "`encoder` must be one of 'mean', 'attention'.*, a Keras layer or a LanguageModel. Received",
        ),
        ({"dim": 0}, ValueError, "`dim` must be a whole number >= 1"),
        ({"max_length": 0}, ValueError, "`max_length` must be a whole number >= 1"),
        ({"vocabulary_size": 0}, ValueError, "`vocabulary_size` must be a whole number >= 1"),
        ({"dropout_tokens": 1.0}, ValueError, "`dropout_tokens` must be a finite number and >= 0"),
        ({"lowercase": "no"}, ValueError, "`lowercase` must be True or False. Received: lowercase='no'"),
        ({"vocabulary": ["a", "a"]}, ValueError, "`vocabulary` must hold different pieces.*1 twice: \\['a'\\]"),
        ({"vocabulary": []}, ValueError, "`vocabulary` must hold different pieces, at least one"),
        ({"vocabulary": ["a", ""]}, ValueError, "`vocabulary` must hold strings that are not empty"),
        ({"vocabulary": ["\ud800"]}, ValueError, "`vocabulary` must hold strings that are not empty"),
        ({"vocabulary": 3}, ValueError, "`vocabulary` must be a file or a list of pieces. Received: vocabulary=3"),
        ({"vocabulary": "gone.txt"}, FileNotFoundError, "gone.txt"),
        ({"key": "a b"}, ValueError, "`key` may hold letters"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Text("review", **arguments)


def test_files_and_caches_hold_ids(tmp_path):
    transform, table = fitted(), table_of(REVIEWS)
    ids = transform.encode(table)["review"]
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet", row_group_size=7)
    for name in ("rows.csv", "rows.parquet"):
        stream = TableStream(tmp_path / name, transform)
        batches = [inputs["review"].numpy() for inputs, _ in stream.batches(batch_size=9)]
        np.testing.assert_array_equal(np.concatenate(batches), ids)
    write_cache(stream.batches(batch_size=9), tmp_path / "cache", transform=transform)
    np.testing.assert_array_equal(open_cache(tmp_path / "cache", transform=transform).inputs["review"], ids)
    other = fitted(REVIEWS[::2])
    assert transform_hash(other) != transform_hash(transform) == transform_hash(fitted())
    with pytest.raises(ValueError, match="`transform` must be the one that encoded the data"):
        open_cache(tmp_path / "cache", transform=other)


def test_copies_read_the_same(tmp_path):
    transform, table = fitted(), table_of(REVIEWS)
    ids = transform.encode(table)["review"]
    for copied in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform)), transform.frozen()):
        np.testing.assert_array_equal(copied.encode(table)["review"], ids)
    state = Pieces(("a",), True)
    assert pickle.loads(pickle.dumps(state)).pieces == ("a",)
