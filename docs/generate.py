"""Writes what is generated from the catalogue: `python docs/generate.py` after a change to it.

A page for every model with a picture of its graph, the tables of the models, and the results
that are kept: their tables, and on each model's page how it did beside shared_bottom. The pages are kept in the
repository, where they can be read without building anything; a test compares them with the code and the results.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import keras
import pandas as pd

import mtl_zoo
from mtl_zoo.benchmark.methods import compare_methods, methods_markdown
from mtl_zoo.benchmark.report import comparison, markdown
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.summary import Section, summarise
from mtl_zoo.export.picture import model_svg
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models import ModelInfo, parameter_count

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]  # the studies and the modules beside this one are no part of the package

from formulas import latex, symbol  # noqa: E402
from markdown_text import cell, prose  # noqa: E402

from benchmarks.studies.correlation import correlation_losses, correlation_markdown  # noqa: E402

MODELS = ROOT / "docs" / "models"
SUITES = ROOT / "benchmarks" / "configs" / "catalogue"
BALANCING = ROOT / "benchmarks" / "configs" / "balancing"
RESULTS = ROOT / "benchmarks" / "results"

# What a model needs of the embedded data set.
DATA_OPTIONS = {"middle_action": {"cart": True}, "domain": {"domains": 3}, "sequence": {"history": 10}}
SECTIONS = ("Args", "Raises", "Example", "Reference", "Attributes")
LINKS = {"doi:": "https://doi.org/", "arXiv:": "https://arxiv.org/abs/"}


def models_by_kind() -> str:
    """A short table: the models by what they share, the oldest idea first."""
    by_kind: dict[str, list[ModelInfo]] = {}
    for info in sorted(map(mtl_zoo.model_info, mtl_zoo.list_models()), key=lambda info: (info.year, info.name)):
        by_kind.setdefault(info.kind, []).append(info)
    lines = ["| what is shared | models |", "|---|---|"]
    for kind, models in by_kind.items():
        lines.append(f"| {kind} | {', '.join(f'[`{info.name}`]({info.name}.md)' for info in models)} |")
    return "\n".join(lines)


def generated(names: list[str] | None = None) -> dict[Path, str]:
    """Every generated file of docs/models with its text; with `names` the pages of these models alone."""
    files = {MODELS / "index.md": index_page(), MODELS.parent / "results.md": results_page()} if names is None else {}
    for name in mtl_zoo.list_models() if names is None else names:
        info = mtl_zoo.model_info(name)
        model = example_model(info)
        files[MODELS / f"{name}.md"] = model_page(info, model)
        files[MODELS / "figures" / f"{name}.svg"] = model_svg(model)
    return files


def index_page() -> str:
    lines = [
        "# Table of models",
        "",
        "Generated from the registry. `mtl_zoo.create_model(name, features, tasks)` makes any of them, and "
        "`mtl_zoo.model_info(name)` says what stands here. Those that share alike, the oldest idea first:",
        "",
        models_by_kind(),
        "",
        "## Each model",
        "",
        "| name | what it shares | good for | needs | paper |",
        "|---|---|---|---|---|",
    ]
    for name in mtl_zoo.list_models():
        info = mtl_zoo.model_info(name)
        cells = (f"[{name}]({name}.md)", info.kind, info.good_for, info.needs, info.paper)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    pages = "\n".join(mtl_zoo.list_models())
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", pages, "```", ""])


def data_options(info: ModelInfo) -> dict[str, Any]:
    """Options of the embedded data set that give a model what it needs."""
    return {option: value for need in info.requires for option, value in DATA_OPTIONS.get(need, {}).items()}


def example_code(info: ModelInfo) -> str:
    """The lines that make, train and measure a model on the embedded data set."""
    options = "".join(f", {option}={value!r}" for option, value in data_options(info).items())
    return textwrap.dedent(
        f"""\
        import mtl_zoo

        data = mtl_zoo.load_dataset("synthetic_funnel", size="small"{options})
        model = mtl_zoo.create_model("{info.name}", data.features, data.tasks)
        model.compile("adam")
        model.fit(data.train.batches(1024, shuffle=True), epochs=2)
        print(mtl_zoo.evaluate(model, data.test))
        """
    ).rstrip()


_dataset = functools.cache(mtl_zoo.load_dataset)


def example_model(info: ModelInfo) -> Any:
    """The model of `example_code`."""
    data = _dataset("synthetic_funnel", size="small", **data_options(info))
    return mtl_zoo.create_model(info.name, data.features, data.tasks)


def model_page(info: ModelInfo, model: Any) -> str:
    doc = sections(inspect.getdoc(info.cls) or "")
    lookup = next(layer for layer in model.layers if isinstance(layer, FeatureEmbedding))
    width = sum(vector.shape[-1] for vector in keras.tree.flatten(lookup.output))
    facts = {
        "class": f"`mtl_zoo.{info.cls.__name__}`, in `create_model` and configurations `{info.name}`",
        "what it shares": prose(info.kind),
        "needs": prose(info.needs) or "nothing beyond features and tasks",
        "paper": f"{prose(info.paper)}, {link(info.reference)}",
    }
    lines = [
        f"# {info.cls.__name__}",
        "",
        prose(doc["summary"]),
        "",
        "| | |",
        "|---|---|",
        *(f"| {fact} | {cell(text)} |" for fact, text in facts.items()),
        "",
        f"![The graph of {info.cls.__name__}](figures/{info.name}.svg)",
        "",
        "## What it computes",
        "",
        body(doc["body"], frozenset(inspect.signature(info.cls).parameters)),
        "",
        "## When to use it, and when not",
        "",
        f"* Good for: {prose(info.good_for)}.",
        f"* Not for: {prose(info.not_for)}.",
        f"* What goes wrong: {prose(info.fails)}.",
        "",
        "## What it costs",
        "",
        f"Parameters above the embedding: {prose(info.cost)}.",
        "",
        f"With the defaults, on the data below: {parameter_count(model):,}, for {len(model.tasks)} tasks and "
        f"{len(model.features)} features, whose vectors are {width} wide together.",
        "",
        *results_of(info.name),
        "## Train it",
        "",
        "```python",
        example_code(info),
        "```",
        "",
        "## Arguments",
        "",
        "| argument | default | |",
        "|---|---|---|",
        *arguments(info.cls, doc.get("Args", "")),
        "",
        "## Reference",
        "",
        prose(doc.get("Reference", info.paper)),
        "",
    ]
    return "\n".join(lines)


def kept(path: Path) -> Any:
    """The rows of a file of results, packed or not; None if there is none yet."""
    packed = path.with_name(path.name + ".gz")
    found = [ResultStore(file).read() for file in (path, packed) if file.exists()]
    return next((table for table in found if (table["error"] == "").any()), None)


@functools.cache
def suites(results: Path = RESULTS) -> dict[str, list[Section]]:
    """The sections of each suite of the catalogue, by its name; none where it has no rows yet."""
    tables = {path.stem: kept(results / "catalogue" / f"{path.stem}.csv") for path in sorted(SUITES.glob("*.yaml"))}
    return {name: [] if table is None else summarise(table) for name, table in tables.items()}


def results_of(name: str, results: Path = RESULTS) -> list[str]:
    """How a model did beside shared_bottom, as lines of its page; none without results."""
    found = [
        f"`{suite}`: {prose(sentence)}"
        for suite, own in suites(results).items()
        for section in own
        for sentence in comparison(section, name)
    ]
    if not found:
        return []
    intro = "By suite, at one size, on test rows; [all results](../results.md) say how. "
    note = '"Every seed" means that none reached the worst one of `shared_bottom`.'
    return ["## How it did", "", intro + note, "", *(f"* {sentence}" for sentence in found), ""]


def results_page(results: Path = RESULTS) -> str:
    """The tables of all suites, and of the study of correlations, with what rows there are."""
    lines = [
        "# Results",
        "",
        "Generated from the rows in `benchmarks/results/`. Each table is one suite, which "
        "`python -m benchmarks.run --config benchmarks/configs/catalogue/SUITE.yaml --out FILE.csv` repeats; the file "
        "says which models run, with which sizes and why. All models of a table have as many parameters above the "
        "embedding as its `shared_bottom` (see [](concepts/comparing.md)), the same features, optimizer, learning rate "
        "and rule of stopping, and the same test rows. Speeds are of a shared machine, beside other work: a factor of "
        "two between models means something, a tenth does not.",
        "",
        '"Worse than shared_bottom?" names the tasks on which the mean over seeds is lower, and by how much; "every '
        'seed", that none reached the worst one of `shared_bottom`: with 3 seeds each that happens by luck once in 20 '
        "times, and the table asks many times.",
        "",
    ]
    for name, own in suites(results).items():
        lines += [f"## {name}", "", *(["No rows yet.", ""] if not own else [])]
        lines += ["#" + markdown([section]) for section in own]
    lines += [*balancing_lines(results), "## Loss against the correlation of tasks", "", *study(results)]
    return "\n".join(lines).rstrip() + "\n"


def balancing_lines(results: Path = RESULTS) -> list[str]:
    """The suites of balancing methods."""
    lines = [
        "## Balancing methods against the plain sum and the tuned grid",
        "",
        "Each suite, `benchmarks/configs/balancing/SUITE.yaml`, trains one model with every method. `equal` is the "
        "plain sum; `static_sweep` the best of a grid of static weights (9 points, on census_income 5) by the "
        "validation split, each with the epochs that a method has. The score is the mean over tasks of AUC, or of 1 - "
        "NRMSE, by which epochs are chosen too. Differences are taken seed by seed (a seed draws the first weights "
        "and the order of the rows) on the test split: mean and 95 % t-interval over the seeds, and on how many the "
        "method is above the grid. All methods of a suite are compared with the same few runs of the grid and share "
        "their luck. `epochs` are those trained, of the grid those of all its points; `step` is what a step with two "
        "tasks costs against the plain sum, from `benchmarks/results/balancing/cost.csv`, since the seconds of these "
        "runs, made beside other work, compare nothing.",
        "",
    ]
    costs = step_costs(results)
    for path in sorted(BALANCING.glob("*.yaml")):
        table = kept(results / "balancing" / f"{path.stem}.csv")
        lines += [f"### {path.stem}", ""]
        lines += (
            ["No rows yet.", ""]
            if table is None
            else ["#" + methods_markdown(own, costs) for own in compare_methods(table)]
        )
    return lines


def step_costs(results: Path) -> dict[str, float] | None:
    """What a step with two tasks costs with each method, against the plain sum's."""
    path = results / "balancing" / "cost.csv"
    if not path.exists():
        return None
    rows = pd.read_csv(path)
    rows = rows[rows["num_tasks"] == 2]
    costs = dict(zip(rows["method"], rows["ratio"], strict=True))
    # By the bare name too, where there is none without options.
    return {**{method.partition("(")[0]: ratio for method, ratio in costs.items()}, **costs}


def study(results: Path = RESULTS) -> list[str]:
    table = kept(results / "correlation" / "study.csv")
    lines = [
        "The MMoE paper's experiment on `synthetic_regression`: shared-bottom's loss falls as the tasks' correlation "
        "rises, and MMoE's varies less. Here both models, at the paper's sizes, are trained on the same data sets; the "
        "intervals come from a paired bootstrap of the seeds (`python -m benchmarks.studies.correlation --help`).",
        "",
    ]
    if table is None:
        return [*lines, "No rows yet."]
    losses = correlation_losses(table)
    picture = results / "correlation" / "study.png"
    if picture.exists():
        lines += [f"![Loss by correlation](../{picture.relative_to(ROOT)})", ""]
    return lines + [correlation_markdown(own) for _, own in losses.groupby("setting", sort=False)]


def sections(doc: str) -> dict[str, str]:
    """The parts of a docstring: `summary`, `body`, and those of `SECTIONS` that it has."""
    summary, _, rest = doc.partition("\n")
    found = {"summary": summary.strip(), "body": ""}
    current = "body"
    for line in rest.splitlines():
        heading = re.match(rf"({'|'.join(SECTIONS)}):\s*(.*)$", line)
        if heading:
            current, line = heading.groups()
            found[current] = ""
        found[current] += line + "\n"
    return {part: text.strip("\n") for part, text in found.items()}


def body(text: str, arguments: frozenset[str] = frozenset()) -> str:
    """Prose, with indented blocks as formulas; a name such as `W_k` in the prose is mathematics, too."""
    parts, block = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("    ") or (not line.strip() and block):
            block.append(line)
            continue
        parts += displayed(block, arguments)
        block = []
        parts.append(re.sub(r"`([^`]*)`", inline, prose(line)))
    return "\n".join([*parts, *displayed(block, arguments)]).strip("\n")


def inline(code: re.Match[str]) -> str:
    mathematics = symbol(code[1])
    return code[0] if mathematics is None else f"${mathematics.strip()}$"


def displayed(block: list[str], arguments: frozenset[str]) -> list[str]:
    text = textwrap.dedent("\n".join(block)).strip("\n")
    formula = latex(text, arguments) if text else None
    if formula is not None:
        return ["$$", *formula.splitlines(), "$$", ""]
    return ["```text", *text.splitlines(), "```", ""] if text else []


def link(reference: str) -> str:
    for prefix, address in LINKS.items():
        if re.fullmatch(rf"{prefix}\S+", reference):
            return f"[{reference}]({address}{reference.removeprefix(prefix)})"
    return prose(reference)


def arguments(cls: type, text: str) -> list[str]:
    described = {}
    entries = re.findall(r"^([\w, ]+):((?:.*\n?)(?:[ ]+.*\n?)*)", textwrap.dedent(text), flags=re.MULTILINE)
    for names, meaning in entries:
        for name in names.split(","):
            described[name.strip()] = " ".join(meaning.split())
    rows = []
    for name, parameter in inspect.signature(cls).parameters.items():
        default = "" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        rows.append(f"| `{name}` | {default} | {cell(prose(described.get(name, '')))} |")
    return rows


def main() -> None:
    files = generated()
    for path in [*MODELS.glob("*.md"), *MODELS.glob("figures/*.svg")]:
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
