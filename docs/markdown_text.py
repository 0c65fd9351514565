"""Plain text of docstrings as Markdown."""

from __future__ import annotations

import re


def prose(text: str) -> str:
    """Docstrings are plain text with `code`: signs that Markdown reads mean themselves, outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"(?<!^)[*$<]|(?<=\s)_", r"\\\g<0>", p) for p in parts)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
