"""Folders of language models: what is read of them, and what is refused by name."""

import json
import pickle

import numpy as np
import pytest
from language_folders import PIECES, bert_folder, bert_tensors, llama_folder, load, write

from mtl_zoo import LanguageModel
from mtl_zoo._files import DamagedFile
from mtl_zoo.language._folder import Tensors, open_folder


def test_a_specification_reads_nothing(tmp_path):
    model = LanguageModel(tmp_path / "nowhere", mode="lora")
    assert model == LanguageModel(str(tmp_path / "nowhere"), mode="lora") and hash(model)
    with pytest.raises(FileNotFoundError, match="which is no folder"):
        model.folder()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "half"}, "`mode` must be one of"),
        ({"rank": 0}, "`rank` must be a whole number >= 1"),
        ({"alpha": 0}, "`alpha` must be a finite number and > 0"),
        ({"pooling": "max"}, "`pooling` must be one of"),
        ({"max_length": 2}, "`max_length` must be a whole number >= 3"),
        ({"layers": 0}, "`layers` must be a whole number >= 1"),
        ({"dtype": "int8"}, "`dtype` must be one of"),
        ({"dropout": 1.0}, "`dropout` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"cache": True}, "`cache` must be a folder, False or None"),
        ({"keep": "half"}, "`keep` must be one of"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LanguageModel("folder", **options)
    with pytest.raises(ValueError, match="`path` must be a folder"):
        LanguageModel("")


def test_a_pickle_is_refused_and_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    folder = bert_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"pytorch_model.bin alone.*can run any code"):
        LanguageModel(folder).vectors(["a"])
    assert not (tmp_path / "opened").exists()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="must hold model.safetensors"):
        LanguageModel(folder).vectors(["a"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named(name, tmp_path):
    folder = bert_folder(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        LanguageModel(folder, cache=False).vectors(["a"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 3, 40, 0.9])
def test_a_file_that_is_cut_short_is_named(name, kept, tmp_path):
    folder = bert_folder(tmp_path / "model")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(DamagedFile, match=name):
        Tensors(open_folder(folder).weight_files)


def test_a_vocabulary_that_is_none_is_named(tmp_path):
    folder = bert_folder(tmp_path / "model")
    (folder / "vocab.txt").write_bytes(b"\xff\xfe[PAD]\n")
    with pytest.raises(DamagedFile, match="vocab.txt"):
        LanguageModel(folder).tokenizer()
    (folder / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DamagedFile, match=r"vocab.txt.*must hold \['\[UNK\]', '\[CLS\]', '\[SEP\]'\]"):
        LanguageModel(folder).tokenizer()
    (folder / "vocab.txt").write_text("\n".join([*PIECES[:-1], "a"]))
    with pytest.raises(DamagedFile, match=r"must hold a piece once. Received twice: \['a'\]"):
        LanguageModel(folder).tokenizer()
    (folder / "vocab.txt").write_text("\n".join([*PIECES, "more"]))
    with pytest.raises(DamagedFile, match=f"at most the {len(PIECES)} ids of the weights"):
        LanguageModel(folder).tokenizer()
    llama = llama_folder(tmp_path / "llama")
    (llama / "tokenizer.json").write_text('{"model": {"type": "?"}}')
    with pytest.raises(DamagedFile, match="tokenizer.json"):
        LanguageModel(llama).tokenizer()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "`model_type` must be one of"),
        ({"hidden_act": "tanh"}, "`hidden_act` must be one that a bert"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type`"),
        ({"num_attention_heads": 3}, "3 heads do not divide its width 8"),
        ({"num_hidden_layers": "2"}, "its layers is '2'"),
        ({"vocab_size": None}, "its vocabulary is None"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(changes, message, tmp_path):
    folder = bert_folder(tmp_path / "model")
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as refused:
        open_folder(folder)
    assert "config.json" in str(refused.value)


def test_what_a_llama_may_not_have(tmp_path):
    folder = llama_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    scaled = {"rope_scaling": {"type": "linear", "factor": 2.0}}
    for changes in ({"attention_bias": True}, {"mlp_bias": True}, {"head_dim": 8}, scaled):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(ValueError, match="config.json"):
            open_folder(folder)


def test_a_wrong_shape_and_a_missing_tensor_are_named(tmp_path):
    folder = bert_folder(tmp_path / "model")
    config, tensors = load(folder)
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    name = "encoder.layer.1.output.dense.weight"
    write(folder, config, {**tensors, name: tensors[name][:, :-1].copy()})
    with pytest.raises(DamagedFile, match=rf"{name}' must have the shape \(8, 12\).*shape \(8, 11\) in .*model.saf"):
        LanguageModel(folder, max_length=9).layer()
    del tensors[name]
    write(folder, config, tensors)
    with pytest.raises(DamagedFile, match=f"must hold the tensor '{name}'"):
        LanguageModel(folder, max_length=9).layer()


def test_options_that_the_folder_does_not_bear_are_refused(tmp_path):
    folder = bert_folder(tmp_path / "model")
    with pytest.raises(ValueError, match="`layers` must be at most 2"):
        LanguageModel(folder, max_length=9, layers=3).layer()
    with pytest.raises(ValueError, match="`max_length` must be at most 160"):
        LanguageModel(folder, max_length=161).layer()


def test_weights_in_several_files_under_other_names(tmp_path):
    from safetensors.numpy import save_file

    whole = bert_folder(tmp_path / "whole")
    config, _ = load(whole)
    tensors = bert_tensors(config, np.random.default_rng(0))
    old = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    parts = bert_folder(tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    names = sorted(old)
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: old[name] for name in names if files[name] == file}, parts / file)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    one, other = (LanguageModel(f, cache=False, max_length=9).vectors(["a film"]) for f in (whole, parts))
    np.testing.assert_array_equal(one, other)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(DamagedFile, match="must lie in its folder"):
        _ = open_folder(parts).weight_files


def test_a_hash_follows_every_byte_of_the_weights(tmp_path):
    folder = bert_folder(tmp_path / "model")
    before = open_folder(folder).weights_hash()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert open_folder(folder).weights_hash() != before


def test_half_precision_is_read(tmp_path):
    folder = bert_folder(tmp_path / "model")
    config, tensors = load(folder)
    write(folder, config, {name: tensor.astype(np.float16) for name, tensor in tensors.items()})
    read = Tensors([folder / "model.safetensors"]).read("embeddings.LayerNorm.bias", (8,))
    np.testing.assert_allclose(read, tensors["embeddings.LayerNorm.bias"], atol=1e-3)
    assert read.dtype == np.float32


def test_brain_floats_are_read(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    folder = bert_folder(tmp_path / "model")
    config, tensors = load(folder)
    write(folder, config, {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()})
    read = Tensors([folder / "model.safetensors"]).read("embeddings.LayerNorm.bias", (8,))
    np.testing.assert_allclose(read, tensors["embeddings.LayerNorm.bias"], atol=1e-2)
