"""More training rows from the ones there are: texts said in other words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import check_columns, read_table

Rewrite = Callable[[list[str]], Sequence[str]]
_WORD = re.compile(r"\w+")


class Synonyms:
    """Replaces words of a text by others of a lexicon: a `rewrite` of `augment_texts`.

    Args:
        lexicon: By word, in small letters, what may stand in its place.
        rate: The probability with which a word of the lexicon is replaced.
        seed: Of what is drawn.

    Raises:
        ValueError: The lexicon is empty, or a word has no synonym; `rate` is not in (0, 1].

    A word that is written with a capital keeps it. The same seed gives the same texts in the same order of calls.

    Example:

    >>> from mtl_zoo.features import Synonyms
    >>> Synonyms({"good": ["great"]}, rate=1.0)(["Good film", "bad"])
    ['Great film', 'bad']

    Reference: Wei and Zou, EMNLP 2019, arXiv:1901.11196.
    """

    def __init__(self, lexicon: Mapping[str, Sequence[str]], rate: float = 0.2, seed: int = 0) -> None:
        self.lexicon = {word.lower(): [str(other) for other in others] for word, others in lexicon.items()}
        empty = [word for word, others in self.lexicon.items() if not others]
        if empty or not self.lexicon:
            raise ValueError(f"`lexicon` must hold words, each with synonyms. Received without: {empty}")
        if any(isinstance(others, str) for others in lexicon.values()):
            raise ValueError("`lexicon` must hold a list of words for each word. Received: a string")
        self.rate = check.check_number("rate", rate, above=0, maximum=1)
        self._random = np.random.default_rng(check.check_int("seed", seed, minimum=0))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        return [_WORD.sub(self._replace, text) for text in texts]

    def _replace(self, found: re.Match[str]) -> str:
        word = found.group()
        others = self.lexicon.get(word.lower())
        if others is None or self._random.random() >= self.rate:
            return word
        other = others[self._random.integers(len(others))]
        return other[:1].upper() + other[1:] if word[:1].isupper() else other


def augment_texts(
    table: Any, column: str, rewrite: Rewrite, *, share: float = 1.0, batch_size: int = 64, seed: int = 0
) -> pd.DataFrame:
    """The rows of a training table, and behind them copies of some whose text is said in other words.

    Each different text is rewritten once, whatever the number of its rows. Copies have the labels of their rows; rows
    whose text is missing or blank, or comes back unchanged, get none. Training rows only: a copy in a validation or
    test table counts its row twice.

    Args:
        table: The training table.
        column: Its column of texts.
        rewrite: From a list of texts to as many: `Synonyms`, a translation there and back, a summary or a paraphrase
            by a model or a service of yours.
        share: The probability with which a row is copied.
        batch_size: Texts that `rewrite` is given at once.
        seed: Of the rows that are drawn.

    Returns:
        A DataFrame with the columns of `table`. The rows of `table` come first, in their order, then the copies.

    Raises:
        ValueError: The column is not there; `rewrite` gives another number of texts.
        TypeError: `rewrite` is no callable, or gives what is no string.

    Example:

    >>> from mtl_zoo.features import Synonyms, augment_texts
    >>> table = {"review": ["good film", "bad", None], "like": [1, 0, 0]}
    >>> augment_texts(table, "review", Synonyms({"good": ["great"]}, rate=1.0))["review"].tolist()[3:]
    ['great film']
    """
    if not callable(rewrite):
        raise TypeError(f"`rewrite` must take a list of texts. Received: rewrite={rewrite!r}")
    check.check_number("share", share, above=0, maximum=1)
    check.check_int("batch_size", batch_size)
    frame = read_table(table)
    check_columns(frame, [column])
    texts = frame[column]
    written = texts.map(lambda text: isinstance(text, str) and bool(text.strip())).to_numpy(dtype=bool)
    drawn = np.random.default_rng(check.check_int("seed", seed, minimum=0)).random(len(frame)) < share
    rows = np.flatnonzero(written & drawn)
    different = list(dict.fromkeys(texts.iloc[rows]))
    said: dict[str, str] = {}
    for start in range(0, len(different), batch_size):
        given = different[start : start + batch_size]
        said |= zip(given, _checked(rewrite(list(given)), given), strict=True)
    copies = frame.iloc[rows].assign(**{column: [said[text] for text in texts.iloc[rows]]})
    changed = copies[column].to_numpy() != texts.iloc[rows].to_numpy()
    return pd.concat([frame, copies[changed]], ignore_index=True)


def _checked(found: Any, given: Sequence[str]) -> list[str]:
    found = list(found)
    if len(found) != len(given):
        raise ValueError(f"`rewrite` must give as many texts as it gets. Received: {len(found)} for {len(given)}")
    for text, before in zip(found, given, strict=True):
        if not isinstance(text, str):
            raise TypeError(f"`rewrite` must give strings. Received: {text!r} for {before[:80]!r}")
    return found
