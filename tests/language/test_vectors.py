"""Vectors of texts on disk: made once, right or not there, whoever is killed and whatever is damaged."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from language_folders import PIECES, bert_folder, bert_hidden, llama_folder, llama_hidden

from mtl_zoo import LanguageModel
from mtl_zoo.language import _encoding
from mtl_zoo.language._vectors import ABOUT, VectorStore, default_cache, text_keys

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert"))


def vector_of(text, width=5):
    return np.random.default_rng(abs(hash(text)) % 2**32).normal(size=width).astype("float32")


def vectors_of(texts):
    return np.stack([vector_of(text) for text in texts])


def test_what_was_added_is_found(tmp_path):
    store = VectorStore(tmp_path, 5, {"model": "m"})
    texts = [f"text {i}" for i in range(50)]
    store.add(text_keys(texts[:20]), vectors_of(texts[:20]))
    store.add(text_keys(texts[20:40]), vectors_of(texts[20:40]))
    for reader in (store, VectorStore(tmp_path, 5, {"model": "m"})):
        found, there = reader.find(text_keys(texts[::-1]))
        np.testing.assert_array_equal(there[::-1], np.arange(50) < 40)
        np.testing.assert_array_equal(found[there], vectors_of(texts[:40][::-1]))
        assert not found[~there].any()
    assert '"model": "m"' in (tmp_path / ABOUT).read_text()


def test_another_run_sees_what_one_wrote(tmp_path):
    one, other = (VectorStore(tmp_path, 5, {}) for _ in range(2))
    one.add(text_keys(["a"]), vectors_of(["a"]))
    assert not other.find(text_keys(["a"]))[1].any()
    other.refresh()
    np.testing.assert_array_equal(other.find(text_keys(["a"]))[0], vectors_of(["a"]))


def test_in_memory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = VectorStore(None, 5, {})
    store.add(text_keys(["a"]), vectors_of(["a"]))
    assert store.find(text_keys(["a", "b"]))[1].tolist() == [True, False] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["magic", "rows", "width", "index", "vector", "end", "empty", "longer"])
def test_a_damaged_part_gives_no_wrong_vector(place, tmp_path, caplog):
    store = VectorStore(tmp_path, 5, {})
    texts = ["a", "b", "c"]
    store.add(text_keys(texts), vectors_of(texts))
    (path,) = tmp_path.glob("*.vectors")
    content = bytearray(path.read_bytes())
    at = {"magic": 0, "rows": 8, "width": 16, "index": 40, "vector": 32 + 3 * 24 + 1}.get(place)
    if at is not None:
        content[at] ^= 1
    content = {"end": content[:-1], "empty": b"", "longer": content + b"x"}.get(place, content)
    path.write_bytes(bytes(content))
    found, there = VectorStore(tmp_path, 5, {}).find(text_keys(texts))
    # One vector of three is lost where its own bytes changed, all of them where the file cannot be trusted.
    assert there.tolist() == ([False, True, True] if place == "vector" else [False] * 3)
    np.testing.assert_array_equal(found, np.where(there[:, None], vectors_of(texts), 0))
    assert place == "vector" or "is left out, and its texts are encoded again" in caplog.text


def test_a_kill_at_any_moment_leaves_no_wrong_vector(tmp_path):
    texts = [f"text {i}" for i in range(400)]
    keys, wanted = text_keys(texts), vectors_of(texts)
    rng, counts = random.Random(0), []
    for _ in range(12):
        child = os.fork()
        if child == 0:  # only files and arrays from here on
            try:
                store = VectorStore(tmp_path, 5, {})
                while True:
                    rows = np.array(rng.sample(range(400), 7))
                    store.add(keys[rows], wanted[rows])
            finally:
                os._exit(1)
        time.sleep(0.002 + 0.03 * rng.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found, there = VectorStore(tmp_path, 5, {}).find(keys)
        np.testing.assert_array_equal(found[there], wanted[there])
        counts.append(int(there.sum()))
    assert counts == sorted(counts) and counts[-1] > 0
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".vectors" and p.name != ABOUT], "leftovers stay"


def test_vectors_are_the_network_of_each_text(bert, tmp_path):
    model = LanguageModel(bert, cache=tmp_path)
    texts = ["good film", None, "the dog", "", "good film", float("nan"), "Café!"]
    vectors = model.vectors(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (7, 8)
    np.testing.assert_array_equal(vectors[[1, 3, 5]], 0)
    np.testing.assert_array_equal(vectors[0], vectors[4])
    ids = [PIECES.index(p) for p in ("[CLS]", "good", "film", "[SEP]")]
    np.testing.assert_allclose(vectors[0], bert_hidden(bert, ids).mean(0), atol=1e-5)
    ids = [PIECES.index(p) for p in ("[CLS]", "cafe", "!", "[SEP]")]
    np.testing.assert_allclose(vectors[6], bert_hidden(bert, ids).mean(0), atol=1e-5)


def test_a_decoder_gives_vectors_too(tmp_path):
    folder = llama_folder(tmp_path / "llama")
    model = LanguageModel(folder, cache=False, pooling="last")
    ids = model.tokenizer().plain_ids(["the film yes"], special=True)[0]
    np.testing.assert_allclose(model.vectors(["the film yes"])[0], llama_hidden(folder, ids)[-1], atol=1e-5)
    with pytest.raises(ValueError, match="`encoder` must be of the BERT family"):
        LanguageModel(folder, mode="lora").feature_encoder().in_graph()


def test_each_distinct_text_is_encoded_once(bert, tmp_path, monkeypatch):
    ran = []
    run = _encoding.TextEncoder.run
    monkeypatch.setattr(_encoding.TextEncoder, "run", lambda self, lists: ran.append(len(lists)) or run(self, lists))
    model = LanguageModel(bert, cache=tmp_path, batch_size=4)
    texts = [f"film {i % 10}" for i in range(100)]
    model.vectors(texts)
    assert sum(ran) == 10 and max(ran) <= 4
    model.vectors([*texts, "film 10"])
    assert sum(ran) == 11
    model.vectors(texts[:3])
    assert sum(ran) == 11


def test_other_settings_have_other_vectors(bert, tmp_path):
    options = [
        {},
        {"pooling": "cls"},
        {"normalize": True},
        {"max_length": 3},
        {"layers": 1},
        {"dtype": "mixed_bfloat16"},
    ]
    models = [LanguageModel(bert, cache=tmp_path, **o) for o in options]
    other = bert_folder(tmp_path / "other", seed=1)
    vocabulary = bert_folder(tmp_path / "vocabulary")
    (vocabulary / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    models += [LanguageModel(other, cache=tmp_path), LanguageModel(vocabulary, cache=tmp_path)]
    assert len({model.vectors_hash() for model in models}) == len(models)
    moved = bert_folder(tmp_path / "moved")
    assert LanguageModel(moved, cache=tmp_path).vectors_hash() == models[0].vectors_hash()
    assert LanguageModel(moved, mode="lora", batch_size=5).vectors_hash() == models[0].vectors_hash()


def test_a_run_that_is_interrupted_keeps_what_it_has(bert, tmp_path, monkeypatch):
    run, calls = _encoding.TextEncoder.run, []

    def stopped(self, lists):
        calls.append(len(lists))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, lists)

    model = LanguageModel(bert, cache=tmp_path, batch_size=4, max_length=50)
    texts = [f"film {i}" for i in range(20)]
    monkeypatch.setattr(_encoding.TextEncoder, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        model.vectors(texts)
    assert VectorStore(model.vectors_folder(), 8, {}).find(text_keys(texts))[1].sum() == 8
    model.vectors(texts)
    assert sum(calls[3:]) == 12


def test_what_another_process_wrote_meanwhile_is_not_encoded(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(_encoding, "FLUSH_SECONDS", -1.0)
    model = LanguageModel(bert, cache=tmp_path, batch_size=1, max_length=40)
    texts = [f"film {i}" for i in range(6)]
    wanted = LanguageModel(bert, cache=False, max_length=40).vectors(texts)
    run, ran = _encoding.TextEncoder.run, []

    def one(self, lists):
        if not ran:  # while this one is at its first batch
            VectorStore(model.vectors_folder(), 8, {}).add(text_keys(texts), wanted)
        ran.append(lists)
        return run(self, lists)

    monkeypatch.setattr(_encoding.TextEncoder, "run", one)
    np.testing.assert_allclose(model.vectors(texts), wanted, atol=1e-6)
    assert len(ran) == 1


def test_a_bar_appears_when_it_takes_long(bert, monkeypatch, capsys):
    model = LanguageModel(bert, cache=False, batch_size=1, max_length=30)
    model.vectors(["a", "b", "c"])
    assert "Encoding texts" not in capsys.readouterr().err
    monkeypatch.setattr("mtl_zoo._progress.QUIET_SECONDS", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    model.vectors(["d", "e", "f"])
    assert "Encoding texts" in capsys.readouterr().err


def test_texts_that_are_none_are_refused(bert):
    with pytest.raises(ValueError, match=r"`texts` must hold strings. Received: \[3, <2 bytes>\]"):
        LanguageModel(bert, cache=False).vectors(["a", 3, b"\xff\xfe"])


def test_hostile_texts_are_encoded(bert):
    model = LanguageModel(bert, cache=False, max_length=12)
    texts = ["\0", "a\0b", "\ud800", "\u202e\u200b", "👩‍👩‍👧", "[SEP] [CLS]", " ", "a film " * 150_000, "\n\t", "中文"]
    vectors = model.vectors(texts)
    assert np.isfinite(vectors).all()
    alone = LanguageModel(bert, cache=False, max_length=12, batch_size=1).vectors(texts[::-1])[::-1]
    np.testing.assert_allclose(vectors, alone, atol=1e-6)
    # What a user writes is text, and not a mark of the model.
    marks = {PIECES.index("[SEP]"), PIECES.index("[CLS]")}
    (ids,) = model.tokenizer().lists(["[SEP] [CLS]"], 12)
    assert not marks & set(ids[1:-1].tolist())


def test_where_vectors_lie(monkeypatch, tmp_path, bert):
    monkeypatch.setenv("MTL_ZOO_CACHE", str(tmp_path / "given"))
    assert default_cache() == tmp_path / "given" / "vectors"
    assert LanguageModel(bert).vectors_folder().parent == tmp_path / "given" / "vectors"
    monkeypatch.delenv("MTL_ZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_cache() == tmp_path / "user" / "mtl_zoo" / "vectors"
    assert LanguageModel(bert, cache=False).vectors_folder() is None


@pytest.mark.slow  # each run imports TensorFlow
def test_a_process_that_is_killed_is_gone_on_with(bert, tmp_path):
    code = textwrap.dedent(f"""
        from mtl_zoo import LanguageModel
        from mtl_zoo.language import _encoding
        _encoding.FLUSH_SECONDS = 0.0
        model = LanguageModel({str(bert)!r}, cache={str(tmp_path)!r}, batch_size=2)
        print("ready", flush=True)
        model.vectors([f"the film number {{i}}" for i in range(3000)])
    """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    texts = [f"the film number {i}" for i in range(3000)]
    wanted = LanguageModel(bert, cache=False, batch_size=64).vectors(texts)
    rng, counts = random.Random(0), []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(3 + 2 * rng.random())
        child.kill()
        child.wait()
        found, there = VectorStore(LanguageModel(bert, cache=tmp_path).vectors_folder(), 8, {}).find(text_keys(texts))
        np.testing.assert_allclose(found[there], wanted[there], atol=1e-6)
        counts.append(int(there.sum()))
    assert counts == sorted(counts) and counts[0] > 0
    np.testing.assert_allclose(LanguageModel(bert, cache=tmp_path).vectors(texts), wanted, atol=1e-6)
