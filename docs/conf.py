"""Sphinx: prose by hand, pages of models as `generate.py` writes them, all else made at each build."""

import gc
import importlib.util
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import check_site  # noqa: E402
import pages  # noqa: E402
import reference  # noqa: E402
from docutils import nodes  # noqa: E402
from formulas import latex  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.transforms.post_transforms import SphinxPostTransform  # noqa: E402
from sphinx.util import logging  # noqa: E402

import mtl_zoo  # noqa: E402

for folder in ("static", "extra"):  # Sphinx looks for them before anything is made
    (HERE / "generated" / folder).mkdir(parents=True, exist_ok=True)

gc.disable()  # the objects of a build live to its end, and looking through them takes a tenth of its time

project = "mtl_zoo"
author = copyright = "the mtl_zoo authors"
version = release = mtl_zoo.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_parser"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"mtl_zoo {release}"
html_static_path = ["_static", "generated/static"]
html_css_files = ["custom.css"]
html_extra_path = ["generated/extra"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = html_show_sourcelink = False
exclude_patterns = ["_build", "generated/extra", "generated/static"]
default_role = "code"  # docstrings write `name` for code
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_inherit_docstrings = False  # what Keras says of its methods stands in Keras' documentation
napoleon_numpy_docstring = False  # all are written in the style of Google
napoleon_custom_sections = [("Reference", "notes_style"), ("Losses", "notes_style")]
# One file draws all formulas as SVG, without fonts; it comes from a package and is served with the site.
MATHJAX = "sphinx-mathjax-offline"
mathjax_path = "mathjax/tex-svg.js"
NAVIGATION: dict[tuple, str] = {}
mathjax3_config = {"options": {"enableMenu": False}}


def generate(app: Sphinx) -> None:
    """All pages that are made at each build; what did not change is not written, so that Sphinx is quick."""
    made = {**reference.reference(), **pages.generated_pages()}
    folder = HERE / "generated"
    for path in [*folder.rglob("*.md"), *folder.rglob("*.ipynb"), *folder.rglob("*.svg")]:
        if path.relative_to(HERE).as_posix() not in made:
            path.unlink()
    for name, text in made.items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    copy_mathjax(folder / "static" / mathjax_path)


def copy_mathjax(target: Path) -> None:
    """The one file of MathJax that the pages load."""
    spec = importlib.util.find_spec(MATHJAX)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"The documentation needs the package {MATHJAX}: pip install 'mtl-zoo[docs]'")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(spec.origin).parent / "static" / mathjax_path, target)


def as_mathematics(app, what, name, obj, options, lines: list[str]) -> None:
    """An indented block of a docstring, before its sections, is a formula; what is none is shown as it stands."""
    try:
        arguments = frozenset(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        arguments = frozenset()
    made: list[str] = []
    at = 0
    while at < len(lines):
        if re.match(r"(Args|Raises|Returns|Example|Attributes|Losses)\b.*:$", lines[at]):
            break
        block = []
        if lines[at].startswith("    ") and (not made or not made[-1].strip()):
            before = next((line for line in reversed(made) if line.strip()), "")
            while at + len(block) < len(lines) and (lines[at + len(block)].startswith("    ") or (
                    not lines[at + len(block)].strip() and lines[at + len(block) + 1 : at + len(block) + 2]
                    and lines[at + len(block) + 1].startswith("    "))):  # fmt: skip
                block.append(lines[at + len(block)])
            if not re.match(r"\s*([*-]|\(\w\)) ", before) or before.endswith(":"):
                text = [line[4:] for line in block]
                formula = latex("\n".join(text), arguments)
                kind, text = (".. math::", formula.splitlines()) if formula else ("::", text)
                made += [kind, "", *(f"    {line}" for line in text), ""]
                at += len(block)
                continue
        made.append(lines[at])
        at += 1
    rest = lines[at:]
    for index, line in enumerate(rest):
        if re.match(r"Example,.*:$", line) and re.match(r" {4}(?!>>>)", "".join(rest[index + 2 : index + 3])):
            rest[index] += ":"  # code that no test runs
    lines[:] = made + rest


def escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: stars and bars mean themselves, outside of code, examples and lists.

    Nor is what stands before a colon in the line on a property, or on what is returned, a type: hints tell these.
    """
    formula = False
    for index, line in enumerate(lines):
        formula = line in (".. math::", "::") or (formula and (not line.strip() or line.startswith("    ")))
        if not formula and not line.lstrip().startswith((">>>", "...")):
            bullet, text = re.fullmatch(r"(\s*\* )?(.*)", line).groups()
            parts = re.split(r"(`[^`]*`)", text)
            lines[index] = (bullet or "") + "".join(
                p if p.startswith("`") else re.sub(r"([*|])", r"\\\1", p) for p in parts
            )
    if what in ("property", "attribute", "data") and lines and ": " in lines[0]:
        lines[0] = f": {lines[0]}"
    for index, line in enumerate(lines[:-1]):
        if line in ("Returns:", "Yields:") and ":" in lines[index + 1]:
            indented = re.fullmatch(r"(\s*)(.*)", lines[index + 1])
            lines[index + 1] = f"{indented[1]}: {indented[2]}"


def show_arguments(app, what, name, obj, options, signature, return_annotation):
    """Names and defaults; types stand with the arguments. (Keras classes have a `__new__(*args, **kwargs)`.)"""
    if what not in ("class", "function", "method", "exception"):
        return None
    try:
        found = inspect.signature(obj)
    except (TypeError, ValueError):
        return None
    bare = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=bare[what == "method" and bool(bare) and bare[0].name == "self" :],
                             return_annotation=found.empty)), None  # fmt: skip


class LinkNames(SphinxPostTransform):
    """`MMoE` in code, anywhere on the site, leads to its page in the reference."""

    default_priority = 600

    def run(self, **kwargs) -> None:
        pages_of = link_targets()
        own = self.env.current_document.docname
        for node in list(self.document.findall(nodes.literal)):
            target = pages_of.get(node.astext().removesuffix("()").removeprefix("mtl_zoo."))
            inside = isinstance(node.parent, (nodes.reference, nodes.title, nodes.term))
            if target is None or inside or target == own:
                continue
            link = nodes.reference("", "", internal=True, refuri=self.app.builder.get_relative_uri(own, target))
            node.replace_self(link)
            link += node


def link_targets() -> dict[str, str]:
    """Names that mean one thing wherever they stand: classes, and functions with an underscore."""
    found: dict[str, str] = {}
    for entry in reference.entries().values():
        if entry.kind == "class" or (entry.kind == "function" and "_" in entry.short):
            for name in (entry.short, *(name.removeprefix("mtl_zoo.") for name in entry.names)):
                found[name] = "" if name in found else f"{reference.API}/{entry.page}"
    return {name: target for name, target in found.items() if target}


def share_navigation(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Pages of the reference stand in no table of contents: for all of them the navigation is the same, made once."""
    if pagename.startswith(f"{reference.API}/mtl_zoo") and context.get("meta") and "orphan" in context["meta"]:
        make = context["toctree"]

        def once(**options) -> str:
            key = tuple(sorted(options.items()))
            if key not in NAVIGATION:
                NAVIGATION[key] = make(**options)
            return NAVIGATION[key]

        context["toctree"] = once


def finish(app: Sphinx, error: Exception | None) -> None:
    """Links, and what is loaded from elsewhere, are looked at in the pages as built; a fault is a warning."""
    if error is None and app.builder.name == "html":
        for fault in check_site.faults(Path(app.outdir)):
            logging.getLogger(__name__).warning(fault)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("autodoc-process-docstring", as_mathematics, priority=50)
    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon reads the sections
    app.connect("builder-inited", generate)
    app.connect("html-page-context", share_navigation, priority=100)  # before the theme asks for it
    app.connect("build-finished", finish)
    app.add_post_transform(LinkNames)
