"""Pieces of words: learned from texts, kept with a transform, and applied in pandas and in a graph by one function."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo import _validation as check
from mtl_zoo._files import name_within
from mtl_zoo.features._states import State, register_state
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID

PADDING, UNKNOWN, INSIDE = "[PAD]", "[UNK]", "##"
# Of a text no more bytes are read for each token that is kept: long texts cost what they may tell.
BYTES_PER_TOKEN = 64
_CHUNK = 4096
# Pieces that occur once say nothing of other texts.
_MIN_COUNT = 2


@register_state("pieces")
@dataclasses.dataclass(frozen=True, eq=False)
class Pieces(State):
    """The pieces of words that ids 2, 3, ... stand for, and whether texts are read in small letters.

    Args:
        pieces: In the order of their ids; those that go on within a word start with `##`.
        lowercase: Texts are brought to small letters without accents first.
    """

    pieces: tuple[str, ...]
    lowercase: bool

    is_large = True

    @property
    def num_ids(self) -> int:
        return FIRST_ID + len(self.pieces)

    @functools.cached_property
    def tokenizer(self) -> Any:
        import tensorflow as tf
        import tensorflow_text

        with tf.init_scope():
            return tensorflow_text.FastBertTokenizer(
                [PADDING, UNKNOWN, *self.pieces],
                suffix_indicator=INSIDE,
                unknown_token=UNKNOWN,
                token_out_type=tf.int32,
                lower_case_nfd_strip_accents=self.lowercase,
            )

    def ids_in_graph(self, texts: Any, length: int) -> Any:
        """int32 (n, length) of a tensor of strings, whatever bytes they hold: the first tokens, padded with 0."""
        import tensorflow as tf

        texts = tf.strings.substr(texts, 0, BYTES_PER_TOKEN * length)
        # Bytes that are no UTF-8, and those of a character that was cut in two, are left out.
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", "ignore", replace_control_characters=False)
        return self.tokenizer.tokenize(texts).to_tensor(MISSING_ID, shape=[None, length])

    def ids(self, texts: np.ndarray, length: int) -> np.ndarray:
        """int32 (n, length) of strings without lone surrogates."""
        import tensorflow as tf

        ids = np.zeros((len(texts), length), np.int32)
        for start in range(0, len(texts), _CHUNK):
            chunk = [_cut(text, length) for text in texts[start : start + _CHUNK]]
            ids[start : start + _CHUNK] = self.ids_in_graph(tf.constant(chunk, tf.string), length).numpy()
        return ids

    def warm_up(self) -> None:
        _ = self.tokenizer

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        table = pa.table({"piece": pa.array(self.pieces, pa.string())})
        pq.write_table(table, folder / f"{stem}.parquet", write_page_checksum=True)
        return {"file": f"{stem}.parquet", "lowercase": self.lowercase}

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> Pieces:
        path = name_within(folder, config["file"], "a transform")
        table = pq.read_table(path, page_checksum_verification=True)
        return cls(tuple(table["piece"].to_pylist()), bool(config["lowercase"]))

    def identity(self) -> Any:
        return [type(self).__name__, self.lowercase, list(self.pieces)]

    def __getstate__(self) -> dict[str, Any]:
        """Copies make their own tokenizer, which cannot be pickled."""
        return {"pieces": self.pieces, "lowercase": self.lowercase}


def _cut(text: str, length: int) -> bytes:
    return text[: BYTES_PER_TOKEN * length].encode("utf-8")[: BYTES_PER_TOKEN * length]


def is_encodable(text: str) -> bool:
    """Whether it has no lone surrogates, which stand for no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def learn_pieces(texts: Callable[[], Iterable[str]], size: int, lowercase: bool) -> tuple[str, ...]:
    """Up to `size` WordPieces that tell the texts with few tokens; the same texts in any order give the same.

    Single characters come first, then what the most frequent pairs of pieces make, in that order.

    Args:
        texts: A function that gives the texts, each distinct one once; they are read twice.
        size: The most pieces.
        lowercase: See `Pieces`.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    words = pre_tokenizers.BertPreTokenizer()

    def normalized() -> Iterator[str]:
        return (normalizer.normalize_str(text) for text in texts())

    counts: Counter[str] = Counter()
    for text in normalized():
        counts.update(text)
    characters = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    joins = {c for c in characters if len(words.pre_tokenize_str(normalizer.normalize_str(f"a{c}"))) == 1}
    # Rare ones must leave half of the room for pieces of several; of the room that is left they come back.
    room = np.cumsum([2 if c in joins else 1 for c in characters])
    kept = characters[: max(int((room <= size // 2).sum()), 1)]
    singles = [*sorted(kept), *(f"{INSIDE}{c}" for c in sorted(kept) if c in joins)]
    # Given as special tokens, they have the same numbers in every run; else two runs break ties differently.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size + 1,
        min_frequency=_MIN_COUNT,
        special_tokens=[UNKNOWN, *singles],
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        continuing_subword_prefix=INSIDE,
        show_progress=False,
    )
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = words
    tokenizer.train_from_iterator(normalized(), trainer)
    numbers = tokenizer.get_vocab()
    learned = [piece for piece in sorted(numbers, key=numbers.__getitem__) if piece != UNKNOWN]
    return tuple([*learned, *(c for c in characters if c not in numbers)][:size])


def given_pieces(vocabulary: Any) -> tuple[str, ...]:
    """The pieces of a list, or of a file with one a line; the marks of padding and of unknown ones left out."""
    if isinstance(vocabulary, str | Path):
        lines = Path(vocabulary).read_text(encoding="utf-8").split("\n")
        vocabulary = [line.rstrip("\r") for line in lines]
        while vocabulary and not vocabulary[-1]:
            vocabulary.pop()
    if not isinstance(vocabulary, Iterable):
        raise ValueError(f"`vocabulary` must be a file or a list of pieces. Received: vocabulary={vocabulary!r}")
    pieces = tuple(piece for piece in vocabulary if piece not in (PADDING, UNKNOWN))
    odd = [p for p in pieces if not isinstance(p, str) or p in ("", INSIDE) or not is_encodable(p)]
    if odd:
        raise ValueError(f"`vocabulary` must hold strings that are not empty. Received: {check.sample_values(odd)}")
    repeated = check.duplicates(pieces)
    if repeated or not pieces:
        raise ValueError(
            f"`vocabulary` must hold different pieces, at least one. Received {len(repeated)} twice: "
            f"{check.sample_values(repeated)}"
        )
    return pieces
