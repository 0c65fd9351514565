"""Writes what is generated into the pages that hold it: `python docs/generate.py` after a change to the catalogue."""

import re
from pathlib import Path

from mtl_zoo.models._registry import catalogue_markdown

README = Path(__file__).parents[1] / "README.md"


def readme_with_catalogue(text: str) -> str:
    """The README with the table of models between its two marks made anew."""
    block = f"<!-- models:begin -->\n{catalogue_markdown()}\n<!-- models:end -->"
    return re.sub(r"<!-- models:begin -->.*?<!-- models:end -->", lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(readme_with_catalogue(README.read_text(encoding="utf-8")), encoding="utf-8")
