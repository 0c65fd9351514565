"""What is generated from the catalogue is fresh, and the code on the pages runs."""

import gzip
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import mtl_zoo
from mtl_zoo.benchmark.results import ResultStore

DOCS = Path(__file__).parents[1] / "docs"
FRESH = "run `python docs/generate.py`"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_of_models_is_fresh(generate):
    assert (DOCS / "models" / "index.md").read_text(encoding="utf-8") == generate.index_page(), FRESH
    pages = {path.stem for path in (DOCS / "models").glob("*.md")} - {"index"}
    figures = {path.stem for path in (DOCS / "models" / "figures").iterdir()}
    assert pages == figures == set(mtl_zoo.list_models()), FRESH


def test_the_page_of_results_is_fresh(generate):
    assert (DOCS / "results.md").read_text(encoding="utf-8") == generate.results_page(), FRESH


def result_rows(model, values):
    """Rows of a model on the small suite's data, as the benchmark writes them: {task: AUCs by seed}."""
    return [
        {
            "key": f"{model}{seed}", "dataset": "synthetic_funnel", "variant": "v", "split": split, "model": model,
            "hyperparameters": "{}", "dataset_options": "{}", "parameters": 9, "seed": seed, "best_epoch": 1,
            "train_seconds": 1.0, "examples_per_second": 10.0, "task": task, "metric": "auc", "space": "impressions",
            "observed": 100, "value": value,
        }
        for task, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
        for split in ("validation", "test")
    ]  # fmt: skip


def test_results_are_shown_as_far_as_there_are_rows(generate, tmp_path):
    empty = generate.results_page(tmp_path)
    suites = [path for folder in (generate.SUITES, generate.BALANCING) for path in folder.glob("*.yaml")]
    assert empty.count("No rows yet.") == len(suites) + 1
    assert generate.results_of("mmoe", tmp_path) == []

    plain = tmp_path / "catalogue" / "synthetic_funnel_small.csv"
    for model, value in (("shared_bottom", 0.7), ("mmoe", 0.6), ("ple", 0.8)):
        ResultStore(plain).append(result_rows(model, {"click": [value, value, value]}))
    generate.suites.cache_clear()
    page = generate.results_page(tmp_path)
    assert page.count("No rows yet.") == empty.count("No rows yet.") - 1
    assert "### synthetic_funnel (v)" in page and "| click -0.1000 (every seed) |" in page
    sentence = "Worse than `shared_bottom`: click AUC 0.6000 ± 0.0000 against 0.7000 ± 0.0000 (every seed)."
    assert any(line.endswith(sentence) for line in generate.results_of("mmoe", tmp_path))
    assert not any("Worse than" in line for line in generate.results_of("ple", tmp_path)[4:])
    assert generate.results_of("stem", tmp_path) == []

    packed = plain.with_name(plain.name + ".gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    generate.suites.cache_clear()
    assert generate.results_page(tmp_path) == page


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", mtl_zoo.list_models())
def test_pages_and_pictures_are_fresh(name, generate):
    for path, text in generate.generated([name]).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(DOCS)} is stale: {FRESH}"


@pytest.mark.parametrize("name", mtl_zoo.list_models())
def test_a_page_says_what_a_user_must_know(name, generate):
    info = mtl_zoo.model_info(name)
    for field in ("paper", "reference", "kind", "good_for", "not_for", "fails", "cost"):
        text = getattr(info, field)
        assert text and text == text.strip(" ."), f"{field} of {name} is a short phrase without a full stop: {text!r}"
    doc = generate.sections(inspect.getdoc(info.cls))
    rows = generate.arguments(info.cls, doc.get("Args", ""))
    assert len(rows) == len(info.arguments) + 3
    empty = [row for row in rows if row.endswith("|  |")]
    assert not empty, f"the docstring of {name} leaves out {empty}"
    assert doc["summary"] and "Reference" in doc


def test_prose_means_itself(generate):
    assert generate.prose("a * b of `x * y`, $5 and 1 < 2") == r"a \* b of `x * y`, \$5 and 1 \< 2"
    assert generate.prose("* a point") == "* a point"
    assert generate.cell("p(a | b)") == r"p(a \| b)"
    assert generate.body("With x:\n\n    y = x * 2\n    z = y\n\nThen z.") == (
        "With x:\n\n$$\n\\begin{aligned}\ny & = x \\odot  2 \\\\\nz & = y\n\\end{aligned}\n$$\n\nThen z."
    )
    assert generate.link("arXiv:1804.07931") == "[arXiv:1804.07931](https://arxiv.org/abs/1804.07931)"


def code_of(path):
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert blocks, f"{path.name} has no ```python block"
    return "\n".join(blocks)


@pytest.mark.tensorflow
def test_the_lines_that_train_run():
    # On fewer rows than the page's 20,000.
    code = code_of(DOCS / "models" / "shared_bottom.md")
    code = code.replace('size="small"', "size=2000").replace("epochs=2", "verbose=0")
    namespace = {}
    exec(compile(code, "shared_bottom.md", "exec"), namespace)
    assert namespace["model"].model_name == "shared_bottom"


@pytest.mark.tensorflow
def test_the_lines_of_the_concepts_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    model = mtl_zoo.create_model("mmoe", data.features, data.tasks, num_experts=2, expert_units=(4,))
    namespace = {"mtl_zoo": mtl_zoo, "data": data, "model": model}
    content = ("text", "language_models", "vectors_and_images", "numbers", "dates", "entities", "graphs", "histories")
    scores = ("ranking", "retrieval", "recommender", "serving", "formats")
    learning = ("rare_labels", "sources", "daily_training", "cold_start", "biased_logs", "unlabelled")
    for page in ("gates", "comparing", *content, *scores, *learning):
        exec(compile(code_of(DOCS / "concepts" / f"{page}.md"), f"{page}.md", "exec"), namespace)
    assert (tmp_path / "gates.png").exists() and (tmp_path / "diversity.png").exists()
    assert namespace["bottom"].bottom_units[0] == 2 * namespace["bottom"].bottom_units[1]


@pytest.mark.real_data
@pytest.mark.tensorflow
def test_the_lines_of_the_page_on_data_sets_run(data_dir):
    namespace = {"mtl_zoo": mtl_zoo}
    exec(compile(code_of(DOCS / "concepts" / "datasets.md"), "datasets.md", "exec"), namespace)
    data = namespace["data"]
    assert "title" in data.train.inputs and data.variant == "cold_items_split"


def test_the_page_on_data_sets_names_them_all():
    text = (DOCS / "concepts" / "datasets.md").read_text(encoding="utf-8")
    wanted = [name for name in mtl_zoo.datasets.list_datasets() if f"`{name}`" not in text]
    assert not wanted, f"docs/concepts/datasets.md leaves out {wanted}"


@pytest.mark.slow  # a sweep and nine trainings
@pytest.mark.tensorflow
def test_the_lines_of_the_page_on_balancing_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The page registers a method of its own.
    monkeypatch.setattr(
        "mtl_zoo.balancing._registry.BALANCING._entries", dict(mtl_zoo.balancing._registry.BALANCING._entries)
    )
    data = mtl_zoo.load_dataset("synthetic_funnel", size=2000)
    model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(4,), tower_units=(2,))
    code = (
        code_of(DOCS / "concepts" / "balancing.md").replace("epochs=5", "verbose=0").replace("epochs=20", "verbose=0")
    )
    namespace = {"mtl_zoo": mtl_zoo, "data": data, "model": model}
    exec(compile(code.replace("steps=4", "steps=1"), "balancing.md", "exec"), namespace)
    assert (tmp_path / "balancing.png").exists() and (tmp_path / "front.png").exists()
    assert list(namespace["found"].table["name"][-2:]) == ["uncertainty", "pcgrad"]
