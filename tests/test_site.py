"""The site: a page for every public name, formulas as mathematics, code that runs, and links that lead somewhere."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from impressions import write_impressions
from toys import sample_of

import mtl_zoo
import mtl_zoo_cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOWTO = sorted(path.stem for path in (DOCS / "howto").glob("*.md") if path.stem != "index")
# Public names whose docstring has no example that runs: two read files, one needs a cluster. The list only shrinks.
WITHOUT_EXAMPLE = (
    "mtl_zoo.datasets.movielens.movielens_100k",
    "mtl_zoo.datasets.movielens.movielens_1m",
    "mtl_zoo.recommend.TensorFlowRecommendersIndex",  # tf.keras is another Keras from then on
    "mtl_zoo.service.serve",  # does not end
    "mtl_zoo.training.ParameterServerTrainer",
)


@pytest.fixture(scope="module")
def docs():
    """Loads a module that lies beside the pages."""
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module
    sys.path.remove(str(DOCS))


# === The reference ===


def test_every_public_name_has_a_page(docs):
    reference = docs("reference")
    pages = reference.reference()
    names = {f"{m.__name__}.{name}" for m in reference.public_modules() for name in m.__all__}
    known = {name: entry for entry in reference.entries().values() for name in entry.names}
    assert names == set(known) and {f"mtl_zoo.{name}" for name in mtl_zoo.__all__} <= names
    for name, entry in known.items():
        page = entry.name.rpartition(".")[0] if entry.kind == "constant" else entry.page
        assert f"{reference.API}/{page}.md" in pages, f"{name} has no page"
    lowered = [path.lower() for path in pages]
    assert len(lowered) == len(set(lowered)), "two pages would be one file where case does not count"
    for name in mtl_zoo.list_balancing():
        assert f"balancing `'{name}'`" in "".join(pages.values()), f"the method {name} has no page"


def test_every_public_name_has_a_running_example(docs):
    """tests/test_doctest.py runs them all."""
    entries = docs("reference").entries()
    missing = {name for name, entry in entries.items() if not entry.has_example}
    assert missing == set(WITHOUT_EXAMPLE), (
        f"without an example: {sorted(missing - set(WITHOUT_EXAMPLE))}; "
        f"no longer without: {sorted(set(WITHOUT_EXAMPLE) - missing)}"
    )


def test_a_new_name_is_found_by_itself(docs, monkeypatch):
    reference = docs("reference")

    def brand_new():
        """Does nothing yet."""

    monkeypatch.setattr(mtl_zoo.layers, "brand_new", brand_new, raising=False)
    monkeypatch.setattr(mtl_zoo.layers, "__all__", [*mtl_zoo.layers.__all__, "brand_new"])
    entry = reference.entries.__wrapped__()["mtl_zoo.layers.brand_new"]
    assert entry.kind == "function" and entry.summary == "Does nothing yet." and not entry.has_example
    assert ".. autofunction:: mtl_zoo.layers.brand_new" in reference.page(entry)


# === Formulas ===


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y_k = h_k(f^k(x))", "y_{k}  = h_{k}(f^{k}(x))"),
        ("w <- w - learning_rate g / sqrt(a + epsilon)",
         r"w  \leftarrow w - \mathtt{learning\_rate} g / \sqrt{a + \epsilon }"),
        ("S = sum_(a<b) ||x_a - x_b||^2", r"S  = \sum_{a<b} \|x_{a} - x_{b}\|^{2}"),
        ("loss = o_hat * BCE(r, r_twin)",
         r"\text{loss}  = \hat{o} \cdot  \operatorname{BCE}(r, r_{\text{twin}})"),
        ("R = mean over rows of a_i", r"R  = \text{mean over rows of }a_{i}"),
        ("s_i = <v, tanh(W x_i + b)>", r"s_{i}  = \langle v, \operatorname{tanh}(W x_{i} + b)\rangle "),
        ("d = w_i - w0_i", r"d  = w_{i} - w_{0,i}"),
        ("c* = argmax_c q_c* s_+", r"c^{*}  = \operatorname*{argmax}_{c} q_{c}^{*} s_{+}"),
    ],
)  # fmt: skip
def test_formulas(text, expected, docs):
    found = docs("formulas").latex(text, frozenset({"learning_rate"}))
    assert found.split() == expected.split()


def test_lines_are_aligned_and_code_is_left_alone(docs):
    formulas = docs("formulas")
    assert formulas.latex("a = b\nc = d") == "\\begin{aligned}\na & = b \\\\\nc & = d\n\\end{aligned}"
    assert (
        formulas.latex("super().__init__(plan)") is None
        and formulas.latex("model.fit(rows)") is None
        and formulas.latex("") is None
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [("x", "x"), ("W_k", "W_{k}"), ("f_1 .. f_n", r"f_{1} \ldots  f_{n}"), ("num_experts", None), ("MMoE", None),
     ("Gate()", None), ("gamma_p", r"\gamma_{p}")],
)  # fmt: skip
def test_names_in_prose(code, expected, docs):
    assert docs("formulas").symbol(code) == expected


@pytest.mark.parametrize("name", mtl_zoo.list_models())
def test_pages_of_models_show_mathematics(name):
    text = (DOCS / "models" / f"{name}.md").read_text(encoding="utf-8")
    computed = text.partition("## What it computes")[2].partition("\n## ")[0]
    assert "$$\n" in computed and "```text" not in computed
    assert text.startswith(f"# {mtl_zoo.model_info(name).cls.__name__}\n")


# === Notebooks, llms.txt ===


def test_tutorials_are_notebooks(docs):
    pages = docs("pages")
    made = pages.generated_pages()
    for path in sorted((ROOT / "tutorials").glob("*.py")):
        content = json.loads(made[f"generated/extra/tutorials/{path.stem}.ipynb"])
        assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
        assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
        code = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
        for cell in code:
            compile(cell, path.name, "exec")
            assert cell in path.read_text(encoding="utf-8")
        assert f'href="../../tutorials/{path.stem}.ipynb"' in made[f"generated/tutorials/{path.stem}.md"]
        assert f"]({path.stem}.md)" in made["generated/tutorials/index.md"]


def test_the_summary_for_language_models_names_all_pages(docs):
    text = docs("pages").llms_text()
    assert text.startswith("# mtl_zoo\n\n> ")
    for path in [*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"), *DOCS.glob("concepts/*.md"), *DOCS.glob("models/*.md")]:
        assert f"]({path.relative_to(DOCS).with_suffix('.html').as_posix()}): " in text, path
    assert "[](" not in text


# === Code ===


def blocks_of(path, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture()
def quick(monkeypatch, tmp_path):
    """An empty folder; small models step eagerly, since tracing takes longer than their steps."""
    monkeypatch.chdir(tmp_path)
    compile_ = mtl_zoo.models.MultiTaskModel.compile
    eagerly = lambda self, *args, **kwargs: compile_(self, *args, **{"run_eagerly": True, **kwargs})  # noqa: E731
    monkeypatch.setattr(mtl_zoo.models.MultiTaskModel, "compile", eagerly)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sample_of(HOWTO, ("missing_labels", "ranked_lists", "large_vocabularies")))
def test_the_lines_of_a_job_run(name, request, monkeypatch, tmp_path):
    if name in ("several_machines", "rare_labels"):  # a strategy needs a traced step, and many steps are worth one
        monkeypatch.chdir(tmp_path)
    else:
        request.getfixturevalue("quick")
    code = "\n".join(blocks_of(DOCS / "howto" / f"{name}.md"))
    if name != "rare_labels":  # too few rows cannot be calibrated
        code = code.replace('size="small"', "size=1000")
    assert code, f"{name} has no ```python block"
    exec(compile(code, f"{name}.md", "exec"), {"__name__": name})


@pytest.mark.tensorflow
def test_the_lines_of_the_first_page_run(quick):
    (code,) = blocks_of(DOCS / "index.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 22
    namespace = {}
    exec(compile(code.replace("20_000", "2_000").replace("15_000", "1_500"), "index.md", "exec"), namespace)
    assert namespace["scores"]["click"].shape == (500, 1) and Path("exported", "saved_model.pb").exists()


@pytest.mark.slow  # six trainings
@pytest.mark.tensorflow
def test_the_quick_start_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_impressions(tmp_path / "impressions.csv")
    page = DOCS / "quickstart.md"
    (settings,) = blocks_of(page, "yaml")
    Path("compare.yaml").write_text(settings, encoding="utf-8")
    for command in blocks_of(page, "sh"):
        assert mtl_zoo_cli.main(shlex.split(command)[1:]) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in ("single_task", "shared_bottom", "mmoe"))
    exec(compile("\n".join(blocks_of(page)), page.name, "exec"), {})
    assert Path("model.keras").exists() and Path("exported", "saved_model.pb").exists()


# === The site as built ===


def test_bad_links_are_seen(docs, tmp_path):
    check_site = docs("check_site")
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text('<a href="sub/a.html#here">x</a><img src="data:image/png;base64,">')
    (tmp_path / "sub" / "a.html").write_text(
        '<p id="here"></p><a href="../index.html">x</a><a href="https://x.org">x</a>'
    )
    assert check_site.faults(tmp_path) == []
    (tmp_path / "b.html").write_text(
        '<a href="gone.html">x</a><a href="sub/a.html#gone">x</a><a href="#gone">x</a><script src="https://x.org/a.js">'
    )
    assert [fault.partition(": ")[2] for fault in check_site.faults(tmp_path)] == [
        "gone.html leads to no file",
        "sub/a.html#gone leads to no place there",
        "#gone leads to no place in the page",
        "<script> loads https://x.org/a.js, and a page must load nothing from elsewhere",
    ]


def in_chromium(page):
    """What Chromium makes of a page once its scripts have run."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    done = subprocess.run(["chromium", *options, "--dump-dom", page], capture_output=True, text=True, timeout=300)
    return done.stdout


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_site_is_built_and_searched(docs, tmp_path):
    pytest.importorskip("furo")
    check_site, reference = docs("check_site"), docs("reference")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-b", "html", "-W", "--keep-going", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    entries = [entry for entry in reference.entries().values() if entry.kind != "constant"]
    # A module that is documented as one has its whole name for a title.
    short, whole = (
        set(check_site.not_searchable(tmp_path, names))
        for names in zip(*((e.short, e.name) for e in entries), strict=True)
    )
    lost = [e.name for e in entries if e.short in short and (e.kind != "module" or e.name in whole)]
    assert check_site.faults(tmp_path) == [] and lost == []
    assert (tmp_path / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 1_000_000
    if shutil.which("chromium"):
        assert "mtl_zoo.balancing.CAGrad.html" in in_chromium(f"file://{tmp_path}/search.html?q=CAGrad")
        assert "<mjx-container" in in_chromium(f"file://{tmp_path}/models/mmoe.html")
