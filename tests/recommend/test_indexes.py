"""What every index must do, walked in the registry: those of tensorflow-recommenders in a process of their own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mtl_zoo._files import DamagedFile
from mtl_zoo.recommend import ExactIndex, FaissIndex, Index, TensorFlowRecommendersIndex, list_indexes
from mtl_zoo.recommend.indexes._base import INDEXES

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(300, 8)).astype("float32")
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERIES = RNG.normal(size=(5, 8)).astype("float32")
NUMBERS = RNG.permutation(10_000)[:300]
IDS = {"numbers": NUMBERS, "texts": np.array([f"item {i}" for i in NUMBERS], dtype=object)}


def best(ids, vectors, queries, k):
    """In float64, of equal scores the first."""
    scores = queries.astype("float64") @ vectors.astype("float64").T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids[order], np.take_along_axis(scores, order, axis=1)


OWN = {
    "exact": [ExactIndex],
    "faiss": [FaissIndex, lambda: FaissIndex("ivf", lists=16, probes=16)],
    "tensorflow_recommenders": [],  # below
}


def test_every_kind_is_tested():
    kinds = [INDEXES[name] for name in list_indexes()]  # an example of a docstring may have entered one
    assert set(OWN) == {cls.kind for cls in kinds if getattr(sys.modules[cls.__module__], cls.__name__, None) is cls}


@pytest.fixture(params=[make for makes in OWN.values() for make in makes], ids=["exact", "hnsw", "ivf"])
def make(request):
    return request.param


@pytest.mark.parametrize("kind", IDS)
def test_ids_and_scores_are_those_of_numpy(make, kind):
    ids, scores = make().build(IDS[kind], VECTORS).query(QUERIES, 20)
    expected, values = best(IDS[kind], VECTORS, QUERIES, 20)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(scores, values, atol=1e-6)
    assert scores.dtype == np.float32 and ids.dtype == IDS[kind].dtype


@pytest.mark.parametrize("kind", IDS)
def test_excluded_items_are_left_out(make, kind):
    names = IDS[kind]
    expected, _ = best(names, VECTORS, QUERIES, 30)
    stranger = "stranger" if kind == "texts" else 99_999
    exclude = [[*row[: 3 * i], stranger] for i, row in enumerate(expected)]
    found, scores = make().build(names, VECTORS).query(QUERIES, 5, exclude)
    for i, row in enumerate(found):
        assert row.tolist() == expected[i, 3 * i : 3 * i + 5].tolist()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_exclude_takes_a_padded_array(make):
    index = make().build(NUMBERS, VECTORS)
    expected, _ = best(NUMBERS, VECTORS, QUERIES, 5)
    found, _ = index.query(QUERIES, 3, np.stack([expected[:, 0], np.full(5, -1)], axis=1))
    np.testing.assert_array_equal(found, expected[:, 1:4])


@pytest.mark.parametrize("kind", IDS)
def test_fewer_than_k_end_in_empty_places(make, kind):
    names = IDS[kind]
    index = make().build(names[:3], VECTORS[:3])
    ids, scores = index.query(QUERIES, 5, [names[:2]] * 5)
    empty = None if kind == "texts" else -1
    assert ids.tolist() == [[names[2], *[empty] * 4]] * 5
    assert np.isneginf(scores[:, 1:]).all() and np.isfinite(scores[:, 0]).all()
    index.remove(names[:3])
    assert len(index) == 0 and index.query(QUERIES, 2)[0].tolist() == [[empty, empty]] * 5
    expected = best(names[3:9], VECTORS[3:9], QUERIES, 2)[0]
    assert index.add(names[3:9], VECTORS[3:9]).query(QUERIES, 2)[0].tolist() == expected.tolist()


def test_items_come_go_and_change(make, tmp_path):
    index = make().build(NUMBERS[:200], VECTORS[:200])
    index.add(NUMBERS[200:], VECTORS[200:])
    gone = np.arange(10, 60)
    index.remove(NUMBERS[gone])
    changed = VECTORS[::-1].copy()
    index.update(NUMBERS[100:110], changed[100:110])
    vectors = VECTORS.copy()
    vectors[100:110] = changed[100:110]
    left = np.delete(np.arange(300), gone)
    expected = best(NUMBERS[left], vectors[left], QUERIES, 20)[0]
    np.testing.assert_array_equal(index.query(QUERIES, 20)[0], expected)
    index.save(tmp_path / "index")
    np.testing.assert_array_equal(Index.load(tmp_path / "index").query(QUERIES, 20)[0], expected)
    index.remove(NUMBERS[60:200])  # more than a quarter: faiss is made anew
    left = np.delete(np.arange(300), np.arange(10, 200))
    np.testing.assert_array_equal(index.query(QUERIES, 20)[0], best(NUMBERS[left], vectors[left], QUERIES, 20)[0])


def test_what_was_given_may_change_afterwards(make):
    vectors = VECTORS.copy()
    index = make().build(NUMBERS, vectors)
    vectors[:] = 0
    np.testing.assert_array_equal(index.query(QUERIES, 3)[0], best(NUMBERS, VECTORS, QUERIES, 3)[0])


@pytest.mark.parametrize("kind", IDS)
def test_it_is_saved_and_loaded(make, kind, tmp_path):
    index = make().build(IDS[kind], VECTORS)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert type(loaded) is type(index) and loaded.get_config() == index.get_config()
    for one, other in zip(index.query(QUERIES, 9), loaded.query(QUERIES, 9), strict=True):
        np.testing.assert_array_equal(one, other)
    index.remove(IDS[kind][:5]).save(tmp_path / "index")
    assert len(type(index).load(tmp_path / "index")) == 295


def test_damaged_folders_end_in_a_named_error(make, tmp_path):
    make().build(NUMBERS, VECTORS).save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        if path.name.startswith("."):
            continue
        content = path.read_bytes()
        for damaged in (b"", content[: len(content) // 2], content[:-1], b"\x93" * len(content)):
            path.write_bytes(damaged)
            with pytest.raises(DamagedFile, match=path.name):
                Index.load(tmp_path)
        path.unlink()
        with pytest.raises((DamagedFile, FileNotFoundError), match=path.name):
            Index.load(tmp_path)
        path.write_bytes(content)
    Index.load(tmp_path)
    about = json.loads((tmp_path / "index.json").read_text())
    for change, said in [
        ({"kind": "oracle"}, "known values"),
        ({"config": {"size": 3}}, "unexpected keyword"),
        ({"items": 299}, "of shape"),
        ({"items": 10**12}, "of shape"),
        ({"width": 9}, "of shape"),
        ({"files": {"../secret": "0"}}, "missing, cut short|lie in its folder"),
        ({"files": {**about["files"], "../secret": "0"}}, "lie in its folder"),
        ({"format": "1"}, "format"),
    ]:
        (tmp_path / "index.json").write_text(json.dumps(about | change))
        with pytest.raises(DamagedFile, match=said):
            Index.load(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(ValueError, match="newer version of mtl_zoo"):
        Index.load(tmp_path)


def test_a_folder_of_something_else_stays(tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="diary"):
        ExactIndex().build(NUMBERS, VECTORS).save(tmp_path)
    with pytest.raises(FileNotFoundError):
        Index.load(tmp_path)
    ExactIndex().build(NUMBERS, VECTORS).save(tmp_path / "exact")
    with pytest.raises(ValueError, match="kind 'faiss'"):
        FaissIndex.load(tmp_path / "exact")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda i: i.build([], np.zeros((0, 8))), "at least one item"),
        (lambda i: i.build([1, 1], VECTORS[:2]), "once. Received twice: .1"),
        (lambda i: i.build([1, -1], VECTORS[:2]), "no -1"),
        (lambda i: i.build(["a", None], VECTORS[:2]), "no missing ones"),
        (lambda i: i.build([1.5, 2.5], VECTORS[:2]), "whole numbers or strings"),
        (lambda i: i.build([1, 2, 3], VECTORS[:2]), "one row an id, 3. Received: 2"),
        (lambda i: i.build([1], VECTORS[0]), "shape .rows, width"),
        (lambda i: i.build([1], [[np.nan] * 8]), "finite"),
        (lambda i: i.build([1], [[1e300] * 8]), "finite"),
        (lambda i: i.query(QUERIES[:, :3], 2), "8 wide"),
        (lambda i: i.query(QUERIES[0], 2), "shape .rows, width"),
        (lambda i: i.query(QUERIES, 0), "`k`"),
        (lambda i: i.query(QUERIES, 2, [[1]]), "one list of ids a row, 5. Received: 1 rows"),
        (lambda i: i.query(QUERIES, 2, 3), "one list of ids a row"),
        (lambda i: i.query(QUERIES, 2, [["a"]] * 5), "`exclude` must be whole numbers"),
        (lambda i: i.add(NUMBERS[:2], VECTORS[:2]), "new items"),
        (lambda i: i.add(["a"], VECTORS[:1]), "`ids` must be whole numbers"),
        (lambda i: i.add([10_001], VECTORS[:1, :3]), "8 wide"),
        (lambda i: i.remove([10_001]), "ids of the index. Received 1"),
        (lambda i: i.remove([NUMBERS[0], NUMBERS[0]]), "once"),
        (lambda i: i.update([10_001], VECTORS[:1]), "ids of the index"),
        (lambda i: i.update(NUMBERS[:1], VECTORS[:1, :3]), "8 wide"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_input_is_named(make, call, said):
    index = make().build(NUMBERS, VECTORS)
    with pytest.raises(ValueError, match=said):
        call(index)
    np.testing.assert_array_equal(index.query(QUERIES, 3)[0], best(NUMBERS, VECTORS, QUERIES, 3)[0])


@pytest.mark.parametrize(
    "call", [lambda i: i.query(QUERIES, 1), lambda i: i.add([1], VECTORS[:1]), lambda i: i.save("x")]
)
def test_it_must_be_built_first(make, call):
    with pytest.raises(ValueError, match="must be built first"):
        call(make())


# The exact one.


def test_equal_scores_come_in_the_order_in_which_items_were_added():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(40, 64)).astype("float32")
    vectors = np.tile(few, (30, 1))[: 1000 + 3]
    queries = rng.normal(size=(7, 64)).astype("float32")
    index = ExactIndex().build(np.arange(1003), vectors)
    scores = queries.astype("float64") @ few.astype("float64").T
    expected = np.argsort(-np.tile(scores, 30)[:, :1003], axis=1, kind="stable")
    np.testing.assert_array_equal(index.query(queries, 200)[0], expected[:, :200])
    np.testing.assert_array_equal(index.query(queries[:1], 200)[0], expected[:1, :200])


def test_scores_of_many_rows_are_held_piece_by_piece(monkeypatch):
    index = ExactIndex().build(NUMBERS, VECTORS)
    whole = index.query(QUERIES, 7)[0]
    monkeypatch.setattr("mtl_zoo.recommend.indexes.exact.rows_at_once", lambda items: 2)
    np.testing.assert_array_equal(index.query(QUERIES, 7)[0], whole)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", IDS)
def test_in_a_graph_it_finds_the_same(kind, tmp_path):
    import tensorflow as tf

    names = IDS[kind]
    index = ExactIndex().build(names, VECTORS)
    module = index.in_graph()
    exclude = best(names, VECTORS, QUERIES, 4)[0]
    padded = np.concatenate([exclude, np.full((5, 1), "" if kind == "texts" else -1, dtype=names.dtype)], axis=1)
    spec = tf.TensorSpec((None, None), tf.string if kind == "texts" else tf.int64)

    @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32), spec])
    def search(queries, exclude):
        ids, scores = module(queries, 298, exclude)
        return {"ids": ids, "scores": scores}

    module.search = search
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    found = loaded.search(tf.constant(QUERIES), tf.constant(padded.tolist(), spec.dtype))
    ids = found["ids"].numpy()
    ids = np.array([[x.decode() or None for x in row] for row in ids], dtype=object) if kind == "texts" else ids
    expected, scores = index.query(QUERIES, 298, exclude)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-5)
    assert (ids[:, -2:] == (None if kind == "texts" else -1)).all()


def test_others_name_the_exact_one_for_a_graph():
    with pytest.raises(ValueError, match=r"ExactIndex\(\)\.build"):
        FaissIndex().build(NUMBERS, VECTORS).in_graph()


# faiss.


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "mtl-zoo\[faiss\]"'):
        FaissIndex()


@pytest.mark.parametrize(
    "options", [{"method": "flat"}, {"neighbours": 1}, {"ef_search": 0}, {"lists": 0}, {"probes": 0}]
)
def test_settings_of_faiss_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FaissIndex(**options)


# tensorflow-recommenders.

TFRS = """
import keras, tensorflow as tf
import numpy as np
from mtl_zoo import BinaryTask, Categorical, create_model
from mtl_zoo.recommend import ExactIndex, Index, TensorFlowRecommendersIndex

model = create_model("shared_bottom", [Categorical("item", size=9)], [BinaryTask("click")])
rng = np.random.default_rng(0)
vectors, queries = rng.normal(size=(100, 8)), rng.normal(size=(5, 8))
for make in (TensorFlowRecommendersIndex, lambda: TensorFlowRecommendersIndex("streaming", batch_size=7)):
    for ids in (np.arange(100) * 3, np.array([f"i{n}" for n in range(100)], dtype=object)):
        exact, ours = ExactIndex().build(ids, vectors), make().build(ids, vectors)
        for index in (exact, ours):
            index.remove(ids[:10]).add(ids[:5], -vectors[:5]).update(ids[20:25], vectors[:5])
        seen = exact.query(queries, 4)[0]
        ours.save("FOLDER/index")
        for one in (ours, Index.load("FOLDER/index")):
            for given, expected in zip(one.query(queries, 94, seen), exact.query(queries, 94, seen)):
                scores = given.dtype == "float32"
                assert np.allclose(given, expected, atol=1e-5) if scores else (given == expected).all()
# Keras 3 goes on beside it.
model.compile("auto")
model.fit({"item": np.arange(2, 9)}, {"click": np.arange(7) % 2}, verbose=0)
assert keras.__version__.startswith("3.") and tf.keras.layers.Layer.__module__.startswith("tf_keras")
print("beside each other")
"""


@pytest.mark.extended
@pytest.mark.tensorflow
@pytest.mark.parametrize("variable", [None, pytest.param("1", marks=pytest.mark.slow)])
def test_tensorflow_recommenders_beside_keras_3(variable, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment |= {} if variable is None else {"TF_USE_LEGACY_KERAS": variable}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    code = TFRS.replace("FOLDER", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert "beside each other" in done.stdout, done.stderr[-3000:]


@pytest.mark.tensorflow
def test_where_tf_keras_is_keras_3_already_the_variable_is_named(monkeypatch):
    import tensorflow as tf

    assert tf.keras.__version__.startswith("3.")
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    with pytest.raises(ImportError, match="TF_USE_LEGACY_KERAS=1 before the program starts"):
        TensorFlowRecommendersIndex()


def test_whole_numbers_are_that_in_arrays_of_objects_too(tmp_path):
    """They were taken for strings, until the index was saved and loaded."""
    index = ExactIndex().build(np.array([7, 8], object), np.eye(2))
    assert index.ids.dtype == "int64"
    assert index.query(np.eye(2), 2, exclude=[[7], [8]])[0].tolist() == [[8, -1], [7, -1]]
    for many in (np.array([2**63, 1], object), [2**64, 1]):
        with pytest.raises(ValueError, match="below 2\\^63"):
            ExactIndex().build(many, np.eye(2))
