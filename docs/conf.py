"""Sphinx: the concepts by hand, a page for every model from its docstring and the registry."""

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

GENERATED = Path(__file__).parent / "generated"


def write_page(path: Path, title: str, names: list[str], module: str = "mtl_zoo") -> None:
    lines = [f"# {title}", ""]
    for name in names:
        directive = "autoclass" if inspect.isclass(getattr(mtl_zoo, name)) else "autofunction"
        lines += ["```{eval-rst}", f".. {directive}:: {module}.{name}", "```", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def generate(app) -> None:
    """A page a model, and one with the other public names."""
    models = {name: mtl_zoo.model_info(name).cls.__name__ for name in mtl_zoo.list_models()}
    for name, class_name in models.items():
        write_page(GENERATED / "models" / f"{name}.md", name, [class_name])
    others = [n for n in mtl_zoo.__all__ if n not in models.values() and callable(getattr(mtl_zoo, n))]
    write_page(GENERATED / "api.md", "Tasks, features, functions", sorted(others))


def escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: stars and bars mean themselves, outside of code and examples."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            lines[index] = "".join(p if p.startswith("`") else re.sub(r"([*|])", r"\\\1", p) for p in parts)


def show_arguments(app, what, name, obj, options, signature, return_annotation):
    """Keras classes have a `__new__(*args, **kwargs)`; what they take stands in `__init__`."""
    if what == "class":
        return str(inspect.signature(obj)), None
    return None


def setup(app) -> None:
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon reads the sections
    app.connect("builder-inited", generate)
