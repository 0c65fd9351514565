"""Pages that are made at each build: tutorials and their notebooks, the gallery of models, `llms.txt`."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import reference
from markdown_text import prose

import mtl_zoo

HERE = Path(__file__).parent
TUTORIALS = HERE.parent / "tutorials"
CELL = re.compile(r"^# %%( \[markdown\])?\n", flags=re.MULTILINE)


def generated_pages() -> dict[str, str]:
    """Path below `docs` -> text, for every page of this module."""
    made = {}
    for path in sorted(TUTORIALS.glob("*.py")):
        cells = read_cells(path.read_text(encoding="utf-8"))
        made[f"generated/tutorials/{path.stem}.md"] = tutorial_page(path.stem, cells)
        made[f"generated/extra/tutorials/{path.stem}.ipynb"] = notebook(cells)
        made[f"generated/extra/tutorials/{path.name}"] = path.read_text(encoding="utf-8")
    made["generated/tutorials/index.md"] = tutorials_page()
    made["generated/gallery.md"] = gallery_page()
    made["generated/extra/llms.txt"] = llms_text()
    return made


def read_cells(text: str) -> list[tuple[str, str]]:
    """A tutorial's cells, in order: ("markdown" or "code", text)."""
    parts = CELL.split(text)[1:]
    cells = []
    for is_prose, cell in zip(parts[::2], parts[1::2], strict=True):
        if is_prose:
            cells.append(("markdown", "\n".join(line[2:] for line in cell.strip().splitlines())))
        else:
            cells.append(("code", cell.strip()))
    return cells


def tutorial_page(name: str, cells: list[tuple[str, str]]) -> str:
    """A tutorial as a page, with itself to download below its title."""
    texts = [on_site(text) if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells]
    title, _, rest = texts[0].partition("\n")
    links = [f'<a href="../../tutorials/{name}.{end}" download>{what}</a>' for end, what in
             (("ipynb", "notebook"), ("py", "Python file"))]  # fmt: skip
    return (
        "\n\n".join([title, f'<p class="download">Download: {" · ".join(links)}</p>', rest.strip(), *texts[1:]]) + "\n"
    )


def on_site(text: str) -> str:
    """Prose of a tutorial, with files that it names as links to their pages, and commands as such."""
    text = re.sub(r"`docs/([\w/]+\.md)`", r"[](../../\1)", text)
    text = re.sub(r"`(\d\d_\w+)\.py`", r"[](\1.md)", text)
    commands = re.compile(r"^(?: {4}(?:python|mtl-zoo) .+\n?)+", flags=re.MULTILINE)
    return commands.sub(lambda found: f"```sh\n{inspect.cleandoc(found.group())}\n```\n", text)


def notebook(cells: list[tuple[str, str]]) -> str:
    """A tutorial as a Jupyter notebook, format 4.5."""
    made = []
    for number, (kind, text) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        made.append({**cell, "execution_count": None, "outputs": []} if kind == "code" else cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def tutorials_page() -> str:
    """The tutorials in order, as the table beside them has them."""
    table = (HERE.parent / "tutorials" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\.py\) \| (.+?) \|$", table, flags=re.MULTILINE)
    lines = [
        "# Tutorials",
        "",
        "Each takes a minute or two, needs no data, and can be downloaded as a notebook or as a Python file.",
        "",
        "| | |",
        "|---|---|",
        *(f"| [{title}]({name}.md) | {text} |" for title, name, text in rows),
        "",
    ]
    return "\n".join([*lines, "```{toctree}", ":hidden:", *(name for _, name, _ in rows), "```", ""])


def gallery_page() -> str:
    """The models with their pictures, the oldest idea first."""
    infos = sorted(map(mtl_zoo.model_info, mtl_zoo.list_models()), key=lambda info: (info.year, info.name))
    lines = [
        "# Models",
        "",
        f"{len(infos)} models, the oldest idea first. Each picture is drawn from the graph of the model itself. "
        "[A table](../models/index.md) has what each one needs, [](../howto/choose_a_model.md) says where to start,"
        " and [](../results.md) how they did at one size.",
        "",
        "::::{container} gallery",
    ]
    for info in infos:
        target, name = f"../models/{info.name}.md", info.cls.__name__
        lines += [
            ":::{container} card",
            f"[![The graph of {name}](../models/figures/{info.name}.svg)]({target})",
            "",
            f"[{name}]({target})",
            "",
            f"*{prose(info.kind)}*. For {prose(info.good_for)}.",
            ":::",
        ]
    return "\n".join([*lines, "::::", "", "```{toctree}", ":hidden:", "../models/index", "```", ""])


def llms_text() -> str:
    """The site for a language model: what there is, a line a page."""
    lines = ["# mtl_zoo", "", "> " + (inspect.getdoc(mtl_zoo) or "").partition(": ")[2], ""]
    lines += ["Install: `pip install mtl-zoo`. Everything below is relative to this file.", ""]
    for title, folder in (("Start", "."), ("How to", "howto"), ("Concepts", "concepts"), ("Models", "models")):
        lines += [f"## {title}", ""]
        for path in sorted((HERE / folder).glob("*.md")):
            heading, first = title_and_first(path.read_text(encoding="utf-8"))
            page = path.relative_to(HERE).with_suffix(".html").as_posix()
            lines.append(f"- [{heading}]({page}): {first}")
        lines.append("")
    lines += ["## Reference", ""]
    for entry in reference.entries().values():
        if entry.kind != "constant":
            lines.append(f"- [{entry.name}]({reference.API}/{entry.page}.html): {entry.summary}")
    return "\n".join(lines) + "\n"


def title_and_first(text: str) -> tuple[str, str]:
    """A page's title and the first sentence of its prose."""
    title = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    prose_lines = re.search(r"^(?![#`|:{<\-!\s])(?:.+\n?)+", text.partition("\n")[2], flags=re.MULTILINE)
    sentence = " ".join(prose_lines.group().split()) if prose_lines else ""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence)
    return (title.group(1) if title else ""), re.split(r"(?<=[.:])\s", plain)[0]
