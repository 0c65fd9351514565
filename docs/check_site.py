"""Looks at the pages as built: every link inside leads somewhere, and nothing is loaded from elsewhere.

`python docs/check_site.py docs/_build/html` prints what is wrong; a build reports the same as warnings.
"""

from __future__ import annotations

import functools
import html
import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

TAG = re.compile(r"<(\w+)\b([^<>]*)>")
ATTRIBUTE = re.compile(r"\b(href|src)=\"([^\"]*)\"")
LOADED = ("script", "img", "link", "iframe", "source")


def faults(folder: Path) -> list[str]:
    """One line for each link that leads nowhere, and for each file that a page loads from another server."""
    found = {}
    for path in sorted(folder.rglob("*.html")):
        if "_static" in path.parts:
            continue
        name = path.relative_to(folder).as_posix()
        for tag, rest in TAG.findall(path.read_text(encoding="utf-8")):
            for attribute, raw in ATTRIBUTE.findall(rest):
                fault = _fault(folder, path, tag, attribute, html.unescape(raw), rest)
                if fault:
                    found.setdefault(f"{name}: {fault}")
    return list(found)


def _fault(folder: Path, path: Path, tag: str, attribute: str, address: str, rest: str) -> str:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        loaded = tag in LOADED and not re.search(r"rel=\"(canonical|license|author|next|prev)", rest)
        return f"<{tag}> loads {address}, and a page must load nothing from elsewhere" if loaded else ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return f"{attribute} {address} leads to no file"
    fragment = unquote(parts.fragment)
    if fragment and target.suffix == ".html" and fragment not in _ids(target):
        return f"{attribute} {address} leads to no place in the page"
    return ""


@functools.cache
def _ids(path: Path) -> frozenset[str]:
    return frozenset(map(html.unescape, re.findall(r"\bid=\"([^\"]*)\"", path.read_text(encoding="utf-8"))))


def not_searchable(folder: Path, names: list[str]) -> list[str]:
    """Those of the names that the search field would not find by a title."""
    index = json.loads(re.sub(r"^Search.setIndex\(|\)$", "", (folder / "searchindex.js").read_text(encoding="utf-8").strip()))
    titles = {title for title in index["alltitles"]}
    return [name for name in names if name not in titles]


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    print("\n".join(wrong) or "Every link leads somewhere.")
    sys.exit(bool(wrong))
