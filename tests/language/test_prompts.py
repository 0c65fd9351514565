"""Questions about rows: log-odds are those of a direct log-softmax, whatever is batched, padded or shared."""

import numpy as np
import pandas as pd
import pytest
from language_folders import bert_folder, llama_folder, llama_log_probabilities, smollm2

from mtl_zoo import LanguageModel, PromptScorer
from mtl_zoo.language import _decoder

pytestmark = pytest.mark.tensorflow

TABLE = pd.DataFrame(
    {
        "title": ["the film", "a longer title of a film", None, "the film"],
        "price": [1.5, 22.25, 3.0, np.nan],
        "like": [1, 0, 1, 0],
    }
)
TEMPLATE = "Film: {title}, {price:.2f}. Good?"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return llama_folder(tmp_path_factory.mktemp("llama"))


def scorer(folder, template=TEMPLATE, **options):
    return PromptScorer(LanguageModel(folder), template, **options)


def direct(folder, prompt, answer):
    """log p(answer | prompt) from the whole text's log-softmax, in float64."""
    tokenizer = LanguageModel(folder).tokenizer()
    before, after = (tokenizer.plain_ids([text], special=True)[0] for text in (prompt, answer))
    table = llama_log_probabilities(folder, [*before, *after])
    return sum(table[len(before) - 1 + i, token] for i, token in enumerate(after))


ONE, SEVERAL, THREE = (" yes", " no"), (" good", " not"), (" yes", " no", " maybe")


@pytest.mark.extended
@pytest.mark.parametrize(("answers", "tied"), [(ONE, True), (SEVERAL, True), (THREE, False)])
def test_log_probabilities_are_those_of_a_direct_softmax(tmp_path, llama, answers, tied):
    folder = llama if tied else llama_folder(tmp_path, tie_word_embeddings=False)
    asked = scorer(folder, answers=answers, batch_size=3)
    wanted = np.array([[direct(folder, prompt, answer) for answer in answers] for prompt in asked.prompts(TABLE)])
    np.testing.assert_allclose(asked.log_probabilities(TABLE), wanted, atol=2e-5)
    scores = asked.predict(TABLE)
    if len(answers) == 2:
        np.testing.assert_allclose(scores, wanted[:, 0] - wanted[:, 1], atol=4e-5)
    else:
        np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(scores - scores[:, :1], wanted - wanted[:, :1], atol=4e-5)
    assert scores.dtype == np.float32


def test_neither_batches_nor_neighbours_matter(llama):
    together = scorer(llama).predict(TABLE)
    for size in (1, 2):
        np.testing.assert_allclose(scorer(llama, batch_size=size).predict(TABLE), together, atol=1e-5)
    alone = [scorer(llama).predict(TABLE.iloc[[row]])[0] for row in range(4)]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(scorer(llama).predict(TABLE[::-1])[::-1], together, atol=1e-6)
    with pytest.raises(ValueError, match="`table` must have at least one row"):
        scorer(llama).predict(TABLE.iloc[:0])


def test_what_prompts_share_is_computed_once(llama, monkeypatch):
    seen = []
    after = _decoder.Decoder._after
    monkeypatch.setattr(
        _decoder.Decoder,
        "_after",
        lambda self, rests, *rest: seen.append(max(map(len, rests))) or after(self, rests, *rest),
    )
    asked = scorer(llama, examples=2).fit(TABLE, "like")
    asked.predict(TABLE)
    tokenizer = LanguageModel(llama).tokenizer()
    shared, longest = (
        max(map(len, tokenizer.plain_ids(t, special=True))) for t in ([asked._start], asked.prompts(TABLE))
    )
    assert max(seen) <= longest - shared


def test_examples_are_balanced_seeded_and_shown(llama):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"title": [f"t{i}" for i in range(60)], "like": (rng.random(60) < 0.1).astype(float)})
    table.loc[:5, "like"] = np.nan
    asked = scorer(llama, "{title}:", examples=4).fit(table, "like")
    *shots, last = asked.prompts({"title": ["x"]})[0].split("\n\n")
    assert last == "x:" and len(shots) == 4 and sum(shot.endswith(": yes") for shot in shots) == 2
    for shot in shots:
        title, answer = shot.split(":")
        label = table.set_index("title")["like"][title]
        assert answer == {1.0: " yes", 0.0: " no"}[label]
    labels = table["like"].to_numpy()
    assert scorer(llama, "{title}:", examples=4).fit(table, labels).prompts(table) == asked.prompts(table)
    others = {scorer(llama, "{title}:", examples=4, seed=s).fit(table, labels).prompts(table)[0] for s in range(5)}
    assert len(others) > 1
    odd = scorer(llama, "{title}:", examples=3).fit(table, labels).prompts(table)[0].split("\n\n")[:-1]
    assert sum(shot.endswith(": yes") for shot in odd) in (1, 2)


def test_classes_of_a_task_of_several(llama):
    table = pd.DataFrame({"title": ["a", "b", "c"], "kind": [0, 1, 2]})
    asked = scorer(llama, "{title}:", answers=(" low", " mid", " high"), examples=3).fit(table, "kind")
    assert sorted(asked.prompts({"title": ["x"]})[0].split("\n\n")[:-1]) == ["a: low", "b: mid", "c: high"]


def test_how_cells_are_written(llama):
    asked = scorer(llama, "{{}} {title} {tags} {n}", missing="nothing")
    table = {"title": ["x", ""], "tags": [["a", "b"], []], "n": [3, 4]}
    assert asked.prompts(table) == ["{} x a, b 3", "{} nothing nothing 4"]
    assert asked.columns == ("title", "tags", "n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"template": 3}, "`template` must be a text"),
        ({"template": "no column"}, "`template` must name a column"),
        ({"template": "{}"}, "`template` must have the name of a column"),
        ({"template": "{title!r}"}, "`template` must have the name of a column"),
        ({"template": "{title"}, "`template` must have a name between every two braces"),
        ({"answers": " yes"}, "`answers` must be at least two different texts"),
        ({"answers": (" yes",)}, "`answers` must be at least two different texts"),
        ({"answers": (" yes", " yes")}, "`answers` must be at least two different texts"),
        ({"answers": (" yes", "")}, "`answers` must be at least two different texts"),
        ({"examples": -1}, "`examples` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PromptScorer(LanguageModel("m"), **{"template": "{title}", **arguments})
    with pytest.raises(TypeError, match="`language_model` must be a LanguageModel"):
        PromptScorer("m", "{title}")


def test_what_a_table_lacks_is_named(llama, tmp_path):
    with pytest.raises(ValueError, match=r"Received without: \['price'\]"):
        scorer(llama).predict(TABLE[["title"]])
    with pytest.raises(ValueError, match=r"without: \['title.__class__'\]"):
        scorer(llama, "{title.__class__}").prompts(TABLE)
    with pytest.raises(ValueError, match="`fit` must be called first, to draw 2 examples"):
        scorer(llama, examples=2).predict(TABLE)
    with pytest.raises(ValueError, match=r"Received without: \['gone'\]"):
        scorer(llama, examples=2).fit(TABLE, "gone")
    with pytest.raises(ValueError, match=r"must hold 3 rows of label \d for 6 examples. Received: 2"):
        scorer(llama, examples=6).fit(TABLE, "like")
    with pytest.raises(ValueError, match=r"`labels` must be 0 .. 1, or NaN. Received: \[2\]"):
        scorer(llama, examples=2).fit(TABLE, [0, 1, 2, 1])
    with pytest.raises(ValueError, match=r"`labels` must be 0 .. 1, or NaN. Received: \['yes'"):
        scorer(llama, examples=2).fit(TABLE, [0, 1, "yes", None])
    with pytest.raises(ValueError, match="`labels` must have a label a row. Received: 2 for 4"):
        scorer(llama, examples=2).fit(TABLE, [0, 1])
    with pytest.raises(ValueError, match="1 longer ones, of up to"):
        scorer(llama, "{title}").predict({"title": ["a", "long " * 300]})
    with pytest.raises(ValueError, match="`language_model` must be a decoder"):
        scorer(bert_folder(tmp_path / "bert"), "{title}").predict(TABLE)


@pytest.fixture(scope="module")
def smollm(tmp_path_factory):
    return smollm2(tmp_path_factory.mktemp("smollm2"))


@pytest.mark.slow
def test_a_real_decoder_knows_a_capital(smollm):
    asked = scorer(smollm, "The capital of {country} is", answers=(" Paris", " Rome", " Madrid"))
    best = asked.predict({"country": ["France", "Italy", "Spain"]}).argmax(axis=1)
    assert best.tolist() == [0, 1, 2]
    decoder = asked._decoder()
    ids = decoder.tokenizer.plain_ids(["The capital of France is"], special=True)
    log_probabilities = decoder._after(ids, [], decoder._cached([]))[0, 0]
    assert decoder.tokenizer.plain_ids([" Paris"], special=False)[0] == [log_probabilities.argmax()]
