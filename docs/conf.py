"""Sphinx: the concepts by hand, pages of models as `generate.py` writes them, the rest from docstrings."""

import inspect
import os
import re
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import mtl_zoo

project = "mtl_zoo"
author = "the mtl_zoo authors"
version = release = mtl_zoo.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_parser"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"mtl_zoo {release}"
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write `name` for code
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"show-inheritance": False}
napoleon_custom_sections = [("Reference", "notes_style"), ("Losses", "notes_style")]


def generate(app) -> None:
    """A page with the public names that are no model; models have pages of their own, which `generate.py` writes."""
    models = {mtl_zoo.model_info(name).cls.__name__ for name in mtl_zoo.list_models()}
    names = sorted(n for n in mtl_zoo.__all__ if n not in models and callable(getattr(mtl_zoo, n)))
    lines = ["# Tasks, features, functions", ""]
    for name in names:
        directive = "autoclass" if inspect.isclass(getattr(mtl_zoo, name)) else "autofunction"
        lines += ["```{eval-rst}", f".. {directive}:: mtl_zoo.{name}", "```", ""]
    path = Path(__file__).parent / "generated" / "api.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def write_tutorials(app) -> None:
    """Each tutorial as a page: its prose as it is, its code in blocks."""
    folder = Path(__file__).parent / "generated" / "tutorials"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((Path(__file__).parents[1] / "tutorials").glob("*.py")):
        parts = re.split(r"^# %%( \[markdown\])?\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        cells = []
        for is_prose, cell in zip(parts[::2], parts[1::2], strict=True):
            prose = "\n".join(line[2:] for line in cell.strip().splitlines())
            cells.append(prose if is_prose else f"```python\n{cell.strip()}\n```")
        (folder / f"{path.stem}.md").write_text("\n\n".join(cells) + "\n", encoding="utf-8")


def escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: stars and bars mean themselves, outside of code, examples and lists."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            bullet, text = re.fullmatch(r"(\s*\* )?(.*)", line).groups()
            parts = re.split(r"(`[^`]*`)", text)
            lines[index] = (bullet or "") + "".join(
                p if p.startswith("`") else re.sub(r"([*|])", r"\\\1", p) for p in parts
            )


def show_arguments(app, what, name, obj, options, signature, return_annotation):
    """Keras classes have a `__new__(*args, **kwargs)`; what they take stands in `__init__`."""
    if what == "class":
        return str(inspect.signature(obj)), None
    return None


def setup(app) -> None:
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon reads the sections
    app.connect("builder-inited", generate)
    app.connect("builder-inited", write_tutorials)
