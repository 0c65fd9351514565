"""From texts to the token ids of a pretrained model, in NumPy and, for word pieces, in a TensorFlow graph.

Ids of padding are 0 in all families: those of a byte-pair vocabulary, in which 0 is a token, are shifted by one.
A text that is missing, empty or blank has padding alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._files import DamagedFile, intact, read_json
from mtl_zoo.language._folder import TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, ModelFolder

_WHAT = "a tokenizer"
_UNKNOWN, _START, _END = "[UNK]", "[CLS]", "[SEP]"
# Of a text no more bytes are read for each token that counts, so that a long one costs what it may tell.
_BYTES_PER_TOKEN = 64


@dataclasses.dataclass(frozen=True)
class WordPieces:
    """The tokenizer of the BERT family.

    Args:
        pieces: The vocabulary in the order of its ids.
        lowercase: Whether texts are lower-cased and lose their accents first.
    """

    pieces: tuple[str, ...]
    lowercase: bool

    kind = "word_pieces"
    shift = 0

    def __post_init__(self) -> None:
        missing = [piece for piece in (_UNKNOWN, _START, _END) if piece not in self.pieces]
        if missing:
            raise ValueError(f"A vocabulary of word pieces must hold {missing}. Received: {len(self.pieces)} pieces")
        repeated = check.duplicates(self.pieces)
        if repeated:
            raise ValueError(f"A vocabulary must hold a piece once. Received twice: {check.sample_values(repeated)}")

    @property
    def size(self) -> int:
        return len(self.pieces)

    def identity(self) -> str:
        digest = hashlib.sha256(f"{self.kind} {self.lowercase}".encode())
        digest.update("\n".join(self.pieces).encode())
        return digest.hexdigest()

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        (folder / f"{stem}.vocab.txt").write_text("\n".join(self.pieces), encoding="utf-8", newline="\n")
        return {"kind": self.kind, "file": f"{stem}.vocab.txt", "lowercase": self.lowercase}

    def lists(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """The ids of each text, [CLS] and [SEP] included, cut at `max_length`."""
        if not len(texts):
            return []
        ragged = self.in_graph().ragged(_utf8(texts), max_length)
        return np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1])

    def in_graph(self) -> Any:
        """A `tf.Module` with `ragged(texts, max_length)`: int32 ids of a tensor of strings."""
        return _word_pieces_in_graph(self.pieces, self.lowercase)


@dataclasses.dataclass(frozen=True)
class BytePairs:
    """The tokenizer of the Llama and RoBERTa families, whatever the package `tokenizers` reads.

    Args:
        json: The content of tokenizer.json.
    """

    json: str = dataclasses.field(repr=False)

    kind = "byte_pairs"
    shift = 1

    @property
    def size(self) -> int:
        return self._made().get_vocab_size(with_added_tokens=True)

    def identity(self) -> str:
        return hashlib.sha256(f"{self.kind} {self.json}".encode()).hexdigest()

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        (folder / f"{stem}.tokenizer.json").write_text(self.json, encoding="utf-8", newline="\n")
        return {"kind": self.kind, "file": f"{stem}.tokenizer.json"}

    def lists(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """The ids of each text, each one more than in the vocabulary, cut at `max_length`; what ends a text stays."""
        cut = [_clean(text[: _BYTES_PER_TOKEN * max_length]) for text in texts]
        ids = [_cut_ids(one, max_length) + self.shift for one in self._made().encode_batch(cut)]
        return [one if text.strip() else one[:0] for one, text in zip(ids, cut, strict=True)]

    def plain_ids(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """The ids of each text as the vocabulary has them; `special` adds what starts a text, if anything does."""
        return [one.ids for one in self._made().encode_batch([_clean(t) for t in texts], add_special_tokens=special)]

    def in_graph(self) -> Any:
        raise ValueError(
            "`encoder` must be of the BERT family where raw strings are encoded in a graph: tensorflow-text has no "
            "byte pairs, so the tokenizer of a decoder or a RoBERTa runs in Python only. Export the model with "
            "raw=False, and give it what `encode` gives."
        )

    def _made(self) -> Any:
        cached = _MADE.get(self.json)
        if cached is None:
            try:
                import tokenizers
            except ImportError as error:
                raise ImportError(f"`LanguageModel` needs the extra: pip install mtl-zoo[text] ({error})") from error
            cached = tokenizers.Tokenizer.from_str(self.json)
            cached.no_padding()
            cached.no_truncation()
            _MADE[self.json] = cached
        return cached


Tokenizer = WordPieces | BytePairs
_MADE: dict[Any, Any] = {}


def _cut_ids(encoding: Any, max_length: int) -> np.ndarray:
    ids = np.array(encoding.ids, dtype=np.int32)
    if len(ids) <= max_length:
        return ids
    inner = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
    end = min(len(ids) - 1 - int(inner[-1]), max_length) if len(inner) else 0
    return np.concatenate([ids[: max_length - end], ids[len(ids) - end :]])


def _clean(text: str) -> str:
    """Lone surrogates, which UTF-8 has not, as question marks."""
    return text.encode("utf-8", "replace").decode()


def _utf8(texts: Sequence[str]) -> list[bytes]:
    return [text.encode("utf-8", "replace") for text in texts]


def _word_pieces_in_graph(pieces: tuple[str, ...], lowercase: bool) -> Any:
    key = (pieces, lowercase)
    if key in _MADE:
        return _MADE[key]
    import tensorflow as tf
    import tensorflow_text

    class WordPiecesGraph(tf.Module):
        """[CLS] pieces [SEP] of each string; nothing of one without pieces."""

        def __init__(self) -> None:
            super().__init__(name="word_pieces")
            self.tokenizer = tensorflow_text.FastBertTokenizer(
                list(pieces),
                token_out_type=tf.int32,
                unknown_token=_UNKNOWN,
                lower_case_nfd_strip_accents=lowercase,
            )
            self.start, self.end = pieces.index(_START), pieces.index(_END)

        def ragged(self, texts: Any, max_length: int) -> Any:
            texts = tf.strings.substr(tf.convert_to_tensor(texts, tf.string), 0, _BYTES_PER_TOKEN * max_length)
            # Bytes that are no UTF-8, and those of a character that was cut in two, are left out.
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", "ignore", replace_control_characters=False)
            ids = self.tokenizer.tokenize(texts)[:, : max_length - 2]
            rows = ids.nrows()
            start, end = tf.fill([rows, 1], self.start), tf.fill([rows, 1], self.end)
            whole = tf.concat([start, ids, end], axis=1)
            keep = tf.repeat(ids.row_lengths() > 0, whole.row_lengths())
            return tf.ragged.boolean_mask(whole, whole.with_values(keep))

    with tf.init_scope():
        _MADE[key] = WordPiecesGraph()
    return _MADE[key]


def of_folder(folder: ModelFolder) -> Tokenizer:
    """The tokenizer whose files lie beside the weights.

    Raises:
        FileNotFoundError: There is none.
        DamagedFile: It is damaged, or has other ids than the weights.
    """
    path = folder.path
    tokenizer = _word_pieces(path) if folder.architecture["family"] == "bert" else _byte_pairs(path)
    if tokenizer.size > folder.architecture["vocabulary"]:
        raise DamagedFile(
            f"A tokenizer must have at most the {folder.architecture['vocabulary']} ids of the weights. "
            f"Received: {tokenizer.size} in {str(path)!r}"
        )
    return tokenizer


def read(config: dict[str, Any], path: Path) -> Tokenizer:
    """The tokenizer that `write` wrote; `path` is its file."""
    if config["kind"] == WordPieces.kind:
        return WordPieces(_lines(path), bool(config["lowercase"]))
    return _checked_byte_pairs(path)


def _word_pieces(path: Path) -> WordPieces:
    config: dict[str, Any] = {}
    if (path / TOKENIZER_CONFIG).is_file():
        config = read_json(path / TOKENIZER_CONFIG, _WHAT, {})
    lowercase = config.get("do_lower_case", True)
    if (path / VOCABULARY).is_file():
        file, pieces = path / VOCABULARY, _lines(path / VOCABULARY)
    elif (path / TOKENIZER).is_file():
        file = path / TOKENIZER
        content = read_json(file, _WHAT, {"model": dict})
        with intact(file, _WHAT):
            if content["model"].get("type") != "WordPiece":
                raise ValueError(f"its model is {content['model'].get('type')!r}, and a BERT has 'WordPiece'")
            by_id = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
            if [number for _, number in by_id] != list(range(len(by_id))):
                raise ValueError("its ids are not 0, 1, 2, ...")
            pieces = tuple(piece for piece, _ in by_id)
            lowercase = (content.get("normalizer") or {}).get("lowercase", lowercase)
    else:
        raise FileNotFoundError(
            f"`path` must hold {VOCABULARY} or {TOKENIZER}. Received: path={str(path)!r}, without either"
        )
    with intact(file, _WHAT):
        return WordPieces(pieces, bool(lowercase))


def _lines(path: Path) -> tuple[str, ...]:
    with intact(path, _WHAT):
        text = path.read_bytes().decode("utf-8")
    lines = text.split("\n")
    return tuple(line.rstrip("\r") for line in (lines[:-1] if lines and not lines[-1] else lines))


def _byte_pairs(path: Path) -> BytePairs:
    if not (path / TOKENIZER).is_file():
        raise FileNotFoundError(f"`path` must hold {TOKENIZER}. Received: path={str(path)!r}, without it")
    return _checked_byte_pairs(path / TOKENIZER)


def _checked_byte_pairs(path: Path) -> BytePairs:
    read_json(path, _WHAT, {"model": dict})
    tokenizer = BytePairs(path.read_text(encoding="utf-8"))
    try:
        _ = tokenizer.size
    except ImportError:
        raise
    except Exception as error:  # the package raises plain Exceptions
        raise DamagedFile(f"A file of {_WHAT} must be as it was written. Received: {str(path)!r}, {error}") from error
    return tokenizer


def padded(lists: Sequence[np.ndarray], length: int) -> np.ndarray:
    """int32 (texts, length), padded right with 0."""
    ids = np.zeros((len(lists), length), dtype=np.int32)
    for row, one in zip(ids, lists, strict=True):
        row[: len(one)] = one
    return ids
