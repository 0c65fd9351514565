"""The layer against its network in NumPy; low-rank updates, what trains, and what is saved."""

import keras
import numpy as np
import pytest
from keras import ops
from language_folders import bert_folder, bert_hidden, llama_folder, llama_hidden, minilm, roberta_folder

from mtl_zoo import LanguageModel, PromptScorer
from mtl_zoo.language import LanguageEncoder, merge_lora

pytestmark = pytest.mark.tensorflow

IDS = np.array([[2, 9, 7, 3, 0, 0], [2, 30, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0]], "int32")


def encoder(folder, **options):
    return LanguageModel(folder, max_length=9, **options).layer()


def numbers(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return llama_folder(tmp_path_factory.mktemp("llama"))


POOLED = {"mean": lambda h: h.mean(0), "cls": lambda h: h[0], "last": lambda h: h[-1]}


OTHERS = [("bert", "frozen"), ("bert", "full"), ("llama", "frozen"), ("llama", "lora"), ("llama", "full")]


@pytest.mark.parametrize("pooling", list(POOLED))
def test_a_bert_gives_what_its_equations_give(bert, pooling):
    vectors = numbers(encoder(bert, pooling=pooling)(IDS))
    for row, vector in zip(IDS[:2], vectors, strict=False):
        np.testing.assert_allclose(vector, POOLED[pooling](bert_hidden(bert, row[row > 0])), atol=1e-5)
    np.testing.assert_array_equal(vectors[2], 0)


@pytest.mark.parametrize("pooling", list(POOLED))
def test_a_llama_gives_what_its_equations_give(llama, pooling):
    vectors = numbers(encoder(llama, pooling=pooling)(IDS))
    for row, vector in zip(IDS[:2], vectors, strict=False):
        # Ids are one more than in the vocabulary, in which 0 is a token.
        np.testing.assert_allclose(vector, POOLED[pooling](llama_hidden(llama, row[row > 0] - 1)), atol=1e-5)
    np.testing.assert_array_equal(vectors[2], 0)


def test_a_roberta_gives_what_its_equations_give(tmp_path):
    model = LanguageModel(roberta_folder(tmp_path / "roberta"), max_length=9, cache=False)
    texts = ["the film", "", None, "a long text of many words", "Ġ é"]
    lists = model.tokenizer().lists(["" if text is None else text for text in texts], 9)
    start, end = lists[0][0], lists[0][-1]
    assert [len(ids) for ids in lists[1:4]] == [0, 0, 9] and all(ids[0] == start for ids in lists if len(ids))
    assert all(ids[-1] == end for ids in lists if len(ids)) and start != end  # what ends a text that is cut stays
    vectors = model.vectors(texts)
    for ids, vector in zip(lists, vectors, strict=True):
        wanted = bert_hidden(tmp_path / "roberta", ids - 1).mean(0) if len(ids) else np.zeros(8)
        np.testing.assert_allclose(vector, wanted, atol=1e-5)
    lora = encoder(tmp_path / "roberta", mode="lora", rank=2)
    assert len(lora.trainable_weights) == 8 and np.isfinite(numbers(lora(IDS))).all()
    with pytest.raises(ValueError, match="tensorflow-text has no byte pairs"):
        model.feature_encoder().in_graph()
    with pytest.raises(ValueError, match="`max_length` must be at most 158"):
        LanguageModel(tmp_path / "roberta", max_length=159).layer()
    with pytest.raises(ValueError, match="`language_model` must be a decoder"):
        PromptScorer(model, "{title}").predict({"title": ["a"]})


def test_rotations_of_long_contexts(tmp_path):
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    folder = llama_folder(tmp_path, rope_theta=30.0, rope_scaling={"rope_type": "llama3", **scaling})
    row = IDS[0][IDS[0] > 0]
    wanted = llama_hidden(folder, row - 1).mean(0)
    np.testing.assert_allclose(numbers(encoder(folder)(IDS))[0], wanted, atol=1e-5)
    assert np.abs(wanted - llama_hidden(llama_folder(tmp_path, rope_theta=30.0), row - 1).mean(0)).max() > 1e-4


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padding_changes_nothing(family, request):
    layer = encoder(request.getfixturevalue(family))
    wide = np.pad(IDS, [(0, 0), (0, 3)])
    np.testing.assert_allclose(numbers(layer(wide)), numbers(layer(IDS)), atol=1e-6)
    np.testing.assert_allclose(numbers(layer(IDS[1:2])), numbers(layer(IDS))[1:2], atol=1e-6)


def test_unit_length_and_first_layers(bert):
    vectors = numbers(encoder(bert, normalize=True)(IDS))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-6)
    first = encoder(bert, layers=1)
    assert first.architecture["layers"] == 1 and len(first.weights) < len(encoder(bert).weights)
    assert np.isfinite(numbers(first(IDS))).all()


def test_a_projection_follows(bert):
    layer = LanguageModel(bert, mode="lora", max_length=9).layer(units=3)
    assert layer(IDS).shape == (3, 3) and layer.compute_output_shape((None, 9)) == (None, 3)
    plain = numbers(encoder(bert)(IDS))
    wanted = plain @ numbers(layer.projection.kernel) + numbers(layer.projection.bias)
    np.testing.assert_allclose(numbers(layer(IDS)), wanted, atol=1e-5)


def test_only_what_trains_is_trainable(bert, llama):
    for folder, blocks in ((bert, 2), (llama, 2)):
        assert encoder(folder).trainable_weights == []
        lora = encoder(folder, mode="lora", rank=3)
        assert len(lora.trainable_weights) == 4 * blocks
        full = encoder(folder, mode="full")
        assert len(full.trainable_weights) == len(encoder(folder).weights)
    # (inputs + outputs) * rank for queries and for values, whose heads are fewer in this decoder.
    assert sum(int(np.prod(w.shape)) for w in lora.trainable_weights) == 2 * 3 * ((16 + 16) + (16 + 8))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_update_is_the_formula(family, request):
    layer = encoder(request.getfixturevalue(family), mode="lora", rank=2, alpha=6)
    np.testing.assert_array_equal(numbers(layer(IDS)), numbers(encoder(request.getfixturevalue(family))(IDS)))
    down, up, dense = layer.updates[0]
    up.assign(np.random.default_rng(0).normal(size=up.shape))
    x = np.random.default_rng(1).normal(size=(2, 5, down.shape[0])).astype("float32")
    kernel = numbers(dense.kernel).reshape(down.shape[0], -1) + 6 / 2 * numbers(down) @ numbers(up)
    bias = 0 if dense.bias is None else numbers(dense.bias).reshape(-1)
    np.testing.assert_allclose(numbers(dense(x)).reshape(2, 5, -1), x @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_merged_updates_give_the_same(family, request):
    layer = encoder(request.getfixturevalue(family), mode="lora")
    for _, up, _ in layer.updates:
        up.assign(np.random.default_rng(0).normal(0, 0.1, up.shape))
    before = numbers(layer(IDS))
    assert np.abs(before - numbers(encoder(request.getfixturevalue(family))(IDS))).max() > 1e-3
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layer])
    assert merge_lora(model) == 1
    np.testing.assert_allclose(numbers(layer(IDS)), before, atol=1e-5)
    assert all(not numbers(up).any() for _, up, _ in layer.updates)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_learned_prompt_is_the_decoder_behind_its_rows(llama, pooling):
    layer = encoder(llama, mode="prompt", prompt_length=3, pooling=pooling)
    (rows,) = layer.trainable_weights
    table = numbers(layer.network.get_layer("token_embedding").embeddings)
    assert rows.shape == (3, 16) and all((table == row).all(axis=1).any() for row in numbers(rows))
    rows.assign(np.random.default_rng(0).normal(size=rows.shape))
    vectors = numbers(layer(IDS))
    for row, vector in zip(IDS[:2], vectors, strict=False):
        hidden = llama_hidden(llama, row[row > 0] - 1, before=numbers(rows))[3:]
        np.testing.assert_allclose(vector, POOLED[pooling](hidden), atol=2e-5)
    np.testing.assert_array_equal(vectors[2], 0)
    np.testing.assert_allclose(numbers(layer(IDS[1:2])), vectors[1:2], atol=1e-5)


@pytest.mark.extended
def test_a_learned_prompt_trains_alone_and_is_saved(llama, tmp_path):
    x, y = batches()
    model = classifier(encoder(llama, mode="prompt", prompt_length=3, layers=1))
    before = [numbers(w) for w in model.layers[0].network.weights]
    losses = model.fit(x, y, epochs=8, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0] and len(model.layers[0].trainable_weights) == 1
    for weight, old in zip(model.layers[0].network.weights, before, strict=True):
        np.testing.assert_array_equal(numbers(weight), old)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].prompt_length == 3
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for one in (model, loaded):
        one.fit(x, y, epochs=1, verbose=0, shuffle=False)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_prompts_of_encoders_and_too_long_ones_are_refused(bert, llama):
    with pytest.raises(ValueError, match="a learned prompt stands in front of a decoder"):
        encoder(bert, mode="prompt")
    with pytest.raises(ValueError, match="a learned prompt stands in front of a decoder"):
        LanguageModel(bert, mode="prompt").feature_encoder()
    with pytest.raises(ValueError, match="`max_length` must be at most 16"):
        LanguageModel(llama, mode="prompt", prompt_length=240, max_length=17).layer()
    with pytest.raises(ValueError, match="`prompt_length` must be"):
        LanguageModel(llama, mode="prompt", prompt_length=0)


def classifier(layer, eagerly=True):
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=eagerly)
    return model


def batches():
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 60, (8, 6)).astype("int32")
    ids[:, 0], ids[::2, 4:] = 2, 0
    return ids, rng.normal(size=(8, 1)).astype("float32")


@pytest.mark.parametrize(
    ("family", "mode"),
    [("bert", "lora"), *(pytest.param(*one, marks=pytest.mark.slow) for one in OTHERS)],
)
def test_a_saved_model_is_the_same_and_goes_on_training(mode, family, request, tmp_path):
    x, y = batches()
    model = classifier(encoder(request.getfixturevalue(family), mode=mode, rank=2, layers=1))
    frozen = numbers(model.layers[0].network.layers[1].weights[0])
    model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [v.shape for v in loaded.trainable_variables] == [v.shape for v in model.trainable_variables]
    # Slots of Adam for what trains alone: two a weight, and a step counter and rate.
    assert len(loaded.optimizer.variables) == 2 * len(model.trainable_variables) + 2
    for one in (model, loaded):
        one.fit(x, y, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    if mode == "lora":
        assert all(numbers(up).any() for _, up, _ in loaded.layers[0].updates)
    if mode != "full":
        np.testing.assert_array_equal(numbers(loaded.layers[0].network.layers[1].weights[0]), frozen)


def test_a_saved_model_holds_the_network_once(bert, tmp_path):
    layer = encoder(bert, mode="lora", rank=2)
    model = classifier(layer)
    model.save_weights(tmp_path / "weights.weights.h5")
    import h5py

    sizes = []
    with h5py.File(tmp_path / "weights.weights.h5") as file:
        file["layers"].visititems(lambda name, thing: sizes.append(thing.size if hasattr(thing, "size") else 0))
    assert sum(sizes) == sum(int(np.prod(w.shape)) for w in model.weights)


def test_a_layer_from_its_config_is_built_without_a_folder(bert):
    layer = encoder(bert, mode="lora", rank=2)
    again = LanguageEncoder.from_config(layer.get_config())
    again.build((None, 6))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(numbers(again(IDS)), numbers(layer(IDS)))


@pytest.mark.extended
@pytest.mark.parametrize(("family", "eagerly"), [("bert", True), pytest.param("llama", False, marks=pytest.mark.slow)])
def test_computing_again_gives_the_same_gradients(family, eagerly, request):
    x, y = batches()
    folder = request.getfixturevalue(family)
    plain, again = (classifier(encoder(folder, mode="full", checkpointing=c, layers=1), eagerly) for c in (False, True))
    blocks = [layer for layer in again.layers[0].network.layers if layer.name.startswith("transformer_layer")]
    assert len(blocks) == 1 and "call" in vars(blocks[0])
    again.set_weights(plain.get_weights())
    for model in (plain, again):
        model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    for one, other in zip(plain.weights, again.weights, strict=True):
        np.testing.assert_allclose(numbers(one), numbers(other), atol=2e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near(bert, dtype):
    vectors = numbers(ops.cast(encoder(bert, dtype=dtype, mode="lora")(IDS), "float32"))
    np.testing.assert_allclose(vectors, numbers(encoder(bert)(IDS)), atol=0.1)


def test_wrong_options_of_the_layer_are_refused(bert):
    architecture = LanguageModel(bert).known_architecture
    for options, message in (
        ({"mode": "half"}, "`mode` must be one of"),
        ({"pooling": "max"}, "`pooling` must be one of"),
        ({"rank": 0}, "`rank` must be"),
        ({"alpha": -1}, "`alpha` must be"),
        ({"dropout": 1}, "`dropout` must be"),
        ({"units": 0}, "`units` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            LanguageEncoder(architecture, **options)


@pytest.mark.slow
def test_minilm_gives_what_its_equations_give():
    folder = minilm()
    texts = ["A movie about a dog that saves a town.", "Café au lait, 中文", "", "the quick brown fox " * 20]
    model = LanguageModel(folder, cache=False, max_length=64)
    lists = model.tokenizer().lists(texts, 64)
    from language_folders import load

    config, _ = load(folder)
    assert config["num_hidden_layers"] == 6
    vectors = model.vectors(texts)
    for ids, vector in zip(lists, vectors, strict=True):
        wanted = bert_hidden(folder, ids).mean(0) if len(ids) else np.zeros(384)
        np.testing.assert_allclose(vector, wanted, atol=1e-4)
