"""Looks at the pages as built: every link inside leads somewhere, and nothing is loaded from elsewhere.

`python docs/check_site.py docs/_build/html` prints what is wrong; a build reports the same as warnings.
"""

from __future__ import annotations

import functools
import html
import json
import posixpath
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

TAG = re.compile(r"<(\w+)\b([^<>]*)>")
ATTRIBUTE = re.compile(r"(?<![\w-])(href|src)=\"([^\"]*)\"")
METADATA = re.compile(r"rel=\"(?:canonical|license|author|next|prev|search|index)\"")
LOADED = ("script", "img", "link", "iframe", "source")


def faults(folder: Path) -> list[str]:
    """One line for each link that leads nowhere, and for each file that a page loads from another server."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pages = sorted(name for name in files if name.endswith(".html") and not name.startswith("_static/"))
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in pages}
    ids = {name: set(re.findall(r"\bid=\"([^\"]*)\"", text)) for name, text in texts.items()}

    @functools.cache
    def fault(room: str, address: str) -> str:
        """Of an address as the pages of a folder write it; the navigation is the same on all of them."""
        parts = urlsplit(html.unescape(address))
        target = posixpath.normpath(posixpath.join(room, unquote(parts.path)))
        if target not in files and f"{target}/index.html" not in files:
            return f"{address} leads to no file"
        fragment = html.escape(unquote(parts.fragment))
        return "" if not fragment or fragment in ids.get(target, {fragment}) else f"{address} leads to no place there"

    found: dict[str, None] = {}
    for name, text in texts.items():
        for tag, rest in TAG.findall(text):
            for _, address in ATTRIBUTE.findall(rest):
                if re.match(r"[a-z]+:|//", address):
                    elsewhere = tag in LOADED and not address.startswith("data:") and not METADATA.search(rest)
                    wrong = f"<{tag}> loads {address}, and a page must load nothing from elsewhere" if elsewhere else ""
                elif address.startswith("#"):
                    wrong = "" if address[1:] in ids[name] | {"", "top"} else f"{address} leads to no place in the page"
                else:
                    wrong = fault(posixpath.dirname(name), address)
                if wrong:
                    found.setdefault(f"{name}: {wrong}")
    return list(found)


def not_searchable(folder: Path, names: list[str]) -> list[str]:
    """Those of the names that the search field would not find by a title."""
    index = json.loads(
        re.sub(r"^Search.setIndex\(|\)$", "", (folder / "searchindex.js").read_text(encoding="utf-8").strip())
    )
    titles = set(index["alltitles"])
    return [name for name in names if name not in titles]


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    sys.stdout.write(("\n".join(wrong) or "Every link leads somewhere.") + "\n")
    sys.exit(bool(wrong))
