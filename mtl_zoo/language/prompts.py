"""Rows of a table as questions to a decoder: log-odds of the answers, without training."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import read_table
from mtl_zoo.language._decoder import Decoder, decoder_of
from mtl_zoo.language.model import LanguageModel


class PromptScorer:
    """A pretrained decoder that is asked a question about each row: zero-shot, or after a few examples.

    With the answers a_0 (of label 1) and a_1 (of label 0), the score of a row is

        log p(a_0 | prompt) - log p(a_1 | prompt)

    where the prompt is the template with the row's values, after `examples` of the training rows and their answers. The
    probability of an answer is the product of those of its tokens. It may be the baseline of a study, a feature or a
    teacher of a smaller model; no weight is trained.

    Args:
        language_model: A `LanguageModel` of the Llama family; its `mode`, `pooling` and `max_length` are not read.
        template: A text with names of columns in braces, such as `"Film: {title}. Would a child like it? Answer:"`;
            `{price:.2f}` formats a number. It should not end in a blank, since most vocabularies put it before a word.
        answers: Two texts, or more for a task of several classes, in the order of the classes.
        examples: How many training rows stand before the question, as even over the answers as can be; they are drawn
            by `fit`. Default: 0.
        separator: What stands between examples. Default: two line ends.
        missing: What stands for a missing value. Default: "unknown".
        seed: Of the drawing of examples. Default: 0.
        batch_size: Rows at a time. Default: 16.

    Raises:
        TypeError: `language_model` is no `LanguageModel`.
        ValueError: A template without a column, fewer than two answers, an empty one or one twice.

    Example:

    >>> from mtl_zoo import LanguageModel, PromptScorer
    >>> scorer = PromptScorer(LanguageModel("models/SmolLM2-135M"), "Film: {title}. Would a child like it? Answer:")
    >>> scorer.prompts({"title": ["Bambi", None]})
    ['Film: Bambi. Would a child like it? Answer:', 'Film: unknown. Would a child like it? Answer:']

    Reference: Brown et al., arXiv:2005.14165.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        template: str,
        answers: Sequence[str] = (" yes", " no"),
        examples: int = 0,
        *,
        separator: str = "\n\n",
        missing: str = "unknown",
        seed: int = 0,
        batch_size: int = 16,
    ) -> None:
        if not isinstance(language_model, LanguageModel):
            raise TypeError(f"`language_model` must be a LanguageModel. Received: {language_model!r}")
        self.language_model = language_model
        self.template = template
        self._parts = _parts_of(template)
        self.answers = tuple(answers)
        _check_answers(answers, self.answers)
        self.examples = check.check_int("examples", examples, minimum=0)
        self.separator, self.missing = separator, missing
        self.seed = check.check_int("seed", seed, minimum=0)
        self.batch_size = check.check_int("batch_size", batch_size)
        self._start: str | None = None if self.examples else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads."""
        return tuple(dict.fromkeys(name for _, name, _ in self._parts if name is not None))

    def fit(self, table: Any, labels: Any) -> PromptScorer:
        """Draws the examples from training rows; trains nothing.

        Args:
            table: The training table.
            labels: The name of its column of labels, or an array: 1 and 0 for two answers, otherwise 0, 1, 2, ... NaN
                where not observed.

        Raises:
            ValueError: An answer has too few rows, a label is none of these, or a column is missing.
        """
        frame = read_table(table)
        if isinstance(labels, str):
            self._require([labels], frame)
            labels = frame[labels]
        given = pd.Series(np.asarray(labels))
        numbers = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
        if len(numbers) != len(frame):
            raise ValueError(f"`labels` must have a label a row. Received: {len(numbers)} for {len(frame)} rows")
        odd = given.notna().to_numpy() & ~np.isin(numbers, np.arange(len(self.answers)))
        if odd.any():
            raise ValueError(
                f"`labels` must be 0 .. {len(self.answers) - 1}, or NaN. Received: {check.sample_values(given[odd])}"
            )
        rows = self._drawn(numbers)
        texts = [
            self._rendered(frame.iloc[[row]])[0] + self.answers[self._answer_of(int(numbers[row]))] for row in rows
        ]
        self._start = "".join(text + self.separator for text in texts)
        return self

    def _answer_of(self, label: int) -> int:
        return 1 - label if len(self.answers) == 2 else label

    def _drawn(self, numbers: np.ndarray) -> list[int]:
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(self.answers))
        drawn: list[int] = []
        for place, label in enumerate(order):
            wanted = self.examples // len(order) + (place < self.examples % len(order))
            rows = np.flatnonzero(numbers == label)
            if len(rows) < wanted:
                raise ValueError(
                    f"`labels` must hold {wanted} rows of label {label} for {self.examples} examples. "
                    f"Received: {len(rows)}"
                )
            drawn += rng.choice(rows, wanted, replace=False).tolist()
        return [drawn[i] for i in rng.permutation(len(drawn))]

    def prompts(self, table: Any) -> list[str]:
        """The whole text that the decoder is given for each row.

        Raises:
            ValueError: The table lacks a column of the template, or `fit` was not called for examples.
        """
        if self._start is None:
            raise ValueError(f"`fit` must be called first, to draw {self.examples} examples. Received: none drawn")
        return [self._start + text for text in self._rendered(read_table(table))]

    def _require(self, names: Sequence[str], frame: pd.DataFrame) -> None:
        lacking = [name for name in names if name not in frame.columns]
        if lacking:
            raise ValueError(
                f"`table` must have the columns {list(names)}. Received without: {lacking}. "
                f"Columns: {check.sample_values(frame.columns, 20)}"
            )

    def _rendered(self, frame: pd.DataFrame) -> list[str]:
        self._require(self.columns, frame)
        cells = {name: frame[name].tolist() for name in self.columns}
        texts = []
        for row in range(len(frame)):
            pieces = []
            for literal, name, spec in self._parts:
                pieces.append(literal)
                if name is not None:
                    pieces.append(self._shown(cells[name][row], spec))
            texts.append("".join(pieces))
        return texts

    def _shown(self, value: Any, spec: str) -> str:
        if isinstance(value, list | tuple | np.ndarray):
            return ", ".join(self._shown(one, spec) for one in value) or self.missing
        return self.missing if pd.isna(value) or value == "" else format(value, spec)

    def log_probabilities(self, table: Any) -> np.ndarray:
        """float32 (rows, answers): log p(answer | prompt) of each answer. Rows of one prompt are asked once.

        Raises:
            ValueError: As for `prompts`; the model is no decoder; a prompt is longer than it can read.
        """
        rows, texts = pd.factorize(np.array(self.prompts(table), dtype=object))
        decoder = self._decoder()
        answers = decoder.tokenizer.plain_ids(self.answers, special=False)
        prompts = decoder.tokenizer.plain_ids(texts.tolist(), special=True)
        lengths = np.array([len(prompt) for prompt in prompts])
        room = decoder.positions - max(len(answer) for answer in answers)
        if lengths.max() > room:
            raise ValueError(
                f"`template` must give prompts of at most {room} tokens for {self.language_model.path!r}. Received: "
                f"{int((lengths > room)[rows].sum())} longer ones, of up to {lengths.max()} tokens. Use fewer "
                "examples, or shorten the texts of the table."
            )
        return decoder.answer_log_probabilities(prompts, answers, self.batch_size)[rows]

    def _decoder(self) -> Decoder:
        return decoder_of(self.language_model, self.language_model.folder().weights_hash())

    def predict(self, table: Any) -> np.ndarray:
        """float32 (rows,) log-odds of two answers; (rows, answers) log-probabilities, normalised over them, of more.

        Raises:
            ValueError: As for `log_probabilities`.
        """
        found = self.log_probabilities(table)
        if len(self.answers) == 2:
            return found[:, 0] - found[:, 1]
        return found - np.logaddexp.reduce(found, axis=1, keepdims=True)

    def probabilities(self, table: Any) -> np.ndarray:
        """float32 (rows,) probability of the first of two answers, or (rows, answers) of more: what a teacher gives.

        They are the decoder's, among these answers, and not the rates of a label.

        Raises:
            ValueError: As for `log_probabilities`.
        """
        found = self.log_probabilities(table)
        shares = np.exp(found - np.logaddexp.reduce(found, axis=1, keepdims=True))
        return shares[:, 0] if len(self.answers) == 2 else shares


def _parts_of(template: Any) -> list[tuple[str, str | None, str]]:
    """(text, column after it, format) of each part of a template."""
    if not isinstance(template, str):
        raise ValueError(f"`template` must be a text with columns in braces. Received: template={template!r}")
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"`template` must have a name between every two braces. Received: {error}") from error
    parts: list[tuple[str, str | None, str]] = []
    for literal, name, spec, conversion in parsed:
        if name == "" or conversion or "{" in (spec or ""):
            raise ValueError(
                "`template` must have the name of a column between braces, and a format after a colon at most. "
                f"Received: template={template!r}"
            )
        parts.append((literal, name, spec or ""))
    if not any(name is not None for _, name, _ in parts):
        raise ValueError(f"`template` must name a column in braces. Received: template={template!r}")
    return parts


def _check_answers(given: Any, answers: tuple[str, ...]) -> None:
    texts = not isinstance(given, str) and all(isinstance(answer, str) and answer for answer in answers)
    if not texts or len(answers) < 2 or len(set(answers)) < len(answers):
        raise ValueError(f"`answers` must be at least two different texts. Received: answers={given!r}")
