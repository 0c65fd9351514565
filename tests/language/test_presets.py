"""Names of published models: fetched only where a name asks for it, and never as a pickle."""

import fnmatch
from types import SimpleNamespace

import numpy as np
import pytest
from language_folders import PIECES, bert_folder

from mtl_zoo import LanguageModel
from mtl_zoo.language import _backbones, _presets

pytestmark = pytest.mark.tensorflow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ZOO_CACHE", str(tmp_path / "cache"))


def test_a_path_downloads_nothing(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("something was downloaded")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(_backbones.hub().models.Backbone, "from_preset", refuse)
    folder = bert_folder(tmp_path / "bert")
    for path in (folder, tmp_path / "gone", "models/gone", "gone"):
        assert _presets.resolve(str(path)).name == str(path).rsplit("/", 1)[-1]


def test_hugging_face_is_asked_for_files_that_are_read(tmp_path, monkeypatch):
    import huggingface_hub

    folder, asked = bert_folder(tmp_path / "bert"), []

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    fetched = LanguageModel("hf://owner/model", cache=False).vectors(["good film"])
    np.testing.assert_array_equal(fetched, LanguageModel(folder, cache=False).vectors(["good film"]))
    ((name, patterns), *_) = asked
    assert name == "owner/model"
    for file in ("config.json", "model.safetensors", "model-00001-of-00002.safetensors", "vocab.txt", "tokenizer.json"):
        assert any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
    for file in ("pytorch_model.bin", "model.pt", "training_args.bin", "weights.pkl", "model.ckpt", "run.py"):
        assert not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def test_a_preset_of_keras_is_written_once_as_a_folder(monkeypatch):
    import keras

    hub = _backbones.hub()
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 4, "intermediate_dim": 6, "max_sequence_length": 16}
    backbone = hub.models.BertBackbone(vocabulary_size=len(PIECES), **options)
    tokenizer = SimpleNamespace(get_vocabulary=lambda: list(PIECES), lowercase=True)
    asked = []
    monkeypatch.setattr(hub.models.Backbone, "from_preset", lambda name: asked.append(name) or backbone)
    monkeypatch.setattr(hub.models.Tokenizer, "from_preset", lambda name: tokenizer)
    name = next(iter(hub.models.BertBackbone.presets))
    for _ in range(2):
        vectors = LanguageModel(name, cache=False, max_length=8).vectors(["good film"])
    assert asked == [name]
    ids = np.array([[PIECES.index(piece) for piece in ("[CLS]", "good", "film", "[SEP]")]])
    inputs = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": np.ones_like(ids)}
    wanted = keras.ops.convert_to_numpy(backbone(inputs)["sequence_output"]).mean(axis=1)
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)

    monkeypatch.setattr(hub.models.Backbone, "from_preset", lambda name: keras.Sequential())
    with pytest.raises(ValueError, match="`path` must name a preset of the BERT family"):
        _presets.resolve("kaggle://keras/gemma/keras/gemma_2b_en")
