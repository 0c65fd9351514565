"""The reference: a page for each public name, found by walking the package, so that a new name has its page at once.

Public is what stands in the `__all__` of a module without an underscore. A thing that several modules export has one
page, under its shortest name; constants stand on the page of their module.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import sys
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from markdown_text import cell, prose

import mtl_zoo
from mtl_zoo._registry import Registry

API = "generated/api"
HEADINGS = {"mtl_zoo": "What one import gives"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public thing: its shortest name, all its names, and under which names registries have it.

    Args:
        name: The dotted name of its page.
        thing: The class, function, module or constant.
        names: All dotted names, this one first.
        page: The name of its page: its own, unless that differs from another one's in nothing but case.
        registered: `(kind, name)` for each registry that has it, such as `("balancing", "cagrad")`.
    """

    name: str
    thing: Any
    names: tuple[str, ...]
    page: str
    registered: tuple[tuple[str, str], ...] = ()

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def kind(self) -> str:
        kinds = (("class", inspect.isclass), ("function", inspect.isroutine), ("module", inspect.ismodule))
        return next((kind for kind, holds in kinds if holds(self.thing)), "constant")

    @property
    def summary(self) -> str:
        if self.kind == "constant":
            return constant_text(self.thing)
        return (inspect.getdoc(self.thing) or "").partition("\n")[0]

    @property
    def has_example(self) -> bool:
        """Its docstring, or that of a class's own method, has one; a constant or a module needs none."""
        if self.kind in ("constant", "module"):
            return True
        own = vars(self.thing).values() if self.kind == "class" else ()
        docs = [inspect.getdoc(self.thing), *(getattr(thing, "__doc__", None) for thing in own)]
        return any(">>> " in (doc or "") for doc in docs)


def public_modules() -> Iterator[ModuleType]:
    """The package and its modules without an underscore that say what they export."""
    yield mtl_zoo
    for found in pkgutil.walk_packages(mtl_zoo.__path__, "mtl_zoo."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            module = importlib.import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


@functools.cache
def entries() -> dict[str, Entry]:
    """Every public thing once, by its shortest name."""
    found: dict[Any, tuple[Any, list[str]]] = {}
    for module in public_modules():
        for name in module.__all__:
            thing = getattr(module, name)
            # Equal constants are different ones; the same class or function is one thing.
            key = id(thing) if callable(thing) or inspect.ismodule(thing) else (type(thing), name)
            found.setdefault(key, (thing, []))[1].append(f"{module.__name__}.{name}")
    registered = registered_names()
    for _, names in found.values():
        names.sort(key=lambda name: (name.count("."), len(name), name))
    taken = Counter(
        name.lower() for name in {names[0] for _, names in found.values()} | {m.__name__ for m in public_modules()}
    )
    made = {}
    for thing, names in found.values():
        twin = inspect.isclass(thing) and taken[names[0].lower()] > 1
        page = names[0] + "-class" * twin
        made[names[0]] = Entry(names[0], thing, tuple(names), page, tuple(registered.get(id(thing), ())))
    return dict(sorted(made.items()))


def registered_names() -> dict[int, list[tuple[str, str]]]:
    """By the identity of a thing: which kind of thing a registry of the house has it as, and under which name."""
    found: dict[int, list[tuple[str, str]]] = {}
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("mtl_zoo.")]
    registries = {id(r): r for module in modules for r in vars(module).values() if isinstance(r, Registry)}
    for registry in registries.values():
        for name in registry:
            entry = registry[name]
            for thing in (entry, getattr(entry, "cls", None)):
                if thing is not None:
                    found.setdefault(id(thing), []).append((registry.what, name))
    return found


def constant_text(thing: Any) -> str:
    """What a constant holds, in a line."""
    if isinstance(thing, Registry):
        return f"The registry of each {thing.what}: {', '.join(f'`{name}`' for name in thing)}."
    if isinstance(thing, (dict, tuple, list, frozenset, set)):
        return ", ".join(f"`{value}`" for value in thing) + "."
    return f"`{thing!r}`"


def page(entry: Entry) -> str:
    """The page of a class, function or module."""
    module, _, _ = entry.name.rpartition(".")
    facts = [f"`{entry.name}`", *(f"also `{name}`" for name in entry.names[1:])]
    facts += [f"{kind} `{name!r}`" for kind, name in entry.registered]
    lines = [
        "---",
        "orphan: true",
        "---",
        "",
        f"# {entry.short}",
        "",
        f"[{module}]({module}.md) · " + " · ".join(facts),
    ]
    if ("model", "") in [(kind, "") for kind, _ in entry.registered]:
        name = dict(entry.registered)["model"]
        lines += ["", f"Its picture, its results and when to use it: [{entry.short}](../../models/{name}.md)."]
    return "\n".join([*lines, "", *directive(entry), ""])


def directive(entry: Entry) -> list[str]:
    """What autodoc is asked for."""
    if entry.kind == "module":
        functions = [
            name
            for name, thing in vars(entry.thing).items()
            if inspect.isfunction(thing) and thing.__module__ == entry.thing.__name__ and not name.startswith("_")
        ]
        text = prose((inspect.getdoc(entry.thing) or "").strip())
        lines = [text, "", "```{eval-rst}"]
        lines += [line for name in functions for line in (f".. autofunction:: {entry.name}.{name}", "   :noindex:", "")]
        return [*lines, "```"]
    kind = "autoclass" if entry.kind == "class" else "autofunction"
    members = ["   :members:"] if entry.kind == "class" else []
    return ["```{eval-rst}", f".. {kind}:: {entry.name}", *members, "```"]


def module_page(module: ModuleType, own: list[Entry]) -> str:
    """What a module exports, as a table."""
    name = module.__name__
    doc = (inspect.getdoc(module) or "").strip()
    lines = [f"# {name}", "", prose(doc), "", "| | |", "|---|---|"]
    for entry in own:
        link = f"`{entry.short}`" if entry.kind == "constant" else f"[`{entry.short}`]({entry.page}.md)"
        lines.append(f"| {link} | {cell(entry.summary if entry.kind == 'constant' else prose(entry.summary))} |")
    return "\n".join([*lines, ""])


def index_page(modules: list[tuple[ModuleType, int]], total: int) -> str:
    """The modules, and where else to look."""
    lines = [
        "# Reference",
        "",
        f"Every public name, {total} of them, has a page with its signature, its "
        "arguments and, where it needs no files and no cluster, an example that is run by the tests. The search field "
        "finds them; the {ref}`index <genindex>` lists them.",
        "",
        "| module | | names |",
        "|---|---|---|",
    ]
    for module, count in modules:
        first = (inspect.getdoc(module) or "").partition("\n")[0]
        lines.append(f"| [{module.__name__}]({module.__name__}.md) | {cell(prose(first))} | {count} |")
    pages = "\n".join(module.__name__ for module, _ in modules)
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", pages, "```", ""])


def balancing_page() -> str:
    """The methods of balancing by name, each with its page."""
    from mtl_zoo.balancing._registry import BALANCING

    pages = {id(entry.thing): entry.page for entry in entries().values()}
    lines = [
        "# Balancing methods",
        "",
        "`compile(balancing=NAME)` trains with any of them; [](../concepts/balancing.md) says how to choose one, and "
        "[](../results.md) how they did beside a plain sum of losses.",
        "",
        "| name | class | given at a step | |",
        "|---|---|---|---|",
    ]
    for name in BALANCING:
        cls = BALANCING[name]
        kind = next(base.__name__ for base in cls.__mro__ if base.__module__.startswith("mtl_zoo.balancing.kinds"))
        given = kind.removesuffix("Balancing").lower()
        first = (inspect.getdoc(cls) or "").partition("\n")[0]
        known = pages.get(id(cls))
        link = f"[{cls.__name__}](api/{known}.md)" if known else f"`{cls.__name__}`"
        lines.append(f"| `{name}` | {link} | {given} | {cell(prose(first))} |")
    return "\n".join([*lines, ""])


def reference() -> dict[str, str]:
    """Every page of the reference: its path below `docs` -> its text."""
    made = {f"{API}/{entry.page}.md": page(entry) for entry in entries().values() if entry.kind != "constant"}
    modules = []
    by_thing = {name: entry for entry in entries().values() for name in entry.names}
    for module in public_modules():
        own = sorted(
            (by_thing[f"{module.__name__}.{n}"] for n in module.__all__), key=lambda entry: entry.short.lower()
        )
        made[f"{API}/{module.__name__}.md"] = module_page(module, own)
        modules.append((module, len(own)))
    made[f"{API}/index.md"] = index_page(modules, len({entry.name for entry in by_thing.values()}))
    made["generated/balancing.md"] = balancing_page()
    return made
