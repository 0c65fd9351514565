"""Pictures: JPEG and PNG become arrays of one size, which a layer encodes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceABC
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features import _pictures
from mtl_zoo.features._columns import BYTES, EMPTY, STRING, Column
from mtl_zoo.features._states import ColumnType, Unseen
from mtl_zoo.features.base import Feature, Summary, register_feature
from mtl_zoo.features.requests import Encoder, InputSpec
from mtl_zoo.features.vector import built_with, check_encoder, encoder_config, encoder_from_config

_THREADS = 8


@register_feature("image")
@dataclasses.dataclass(frozen=True)
class Image(Feature):
    """A picture, a poster or a photo: decoded, resized, and encoded by a layer of the model.

    A cell holds the bytes of a JPEG or PNG, or with `folder` the path of such a file. Each distinct picture is decoded
    once a table (a batch, in an exported model) to RGB, resized (bilinear, with antialiasing) and rounded. The layer
    sees numbers from 0 to 1. A missing picture is zeros; if any was missing in the training table, a second input,
    `<name>.missing`, is 1 where one is, and stands beside the encoder's vector.

    A table's pictures stand decoded in memory, height x width x 3 bytes a row: 48 x 32 are 4.6 KB, so 461 MB for
    100,000 rows. Read larger tables in a stream, with `shuffle_rows` as far as memory goes.

    Args:
        name: Names the feature and the model's input, uint8 of shape (batch, height, width, 3).
        size: (height, width) that pictures are resized to, whatever their own.
        column: Its column in a table, of bytes or of paths. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        encoder: What makes a vector of a picture. None: a small convolutional network (`mtl_zoo.layers.ImageCNN`) of
            width 32. A whole number: the same of that width. Or a Keras layer or model from (batch, height, width, 3)
            to (batch, any width), or to a map, whose mean over places is taken: a backbone of keras-hub. Each model
            trains and saves a copy of it.
        folder: Where the files are, if cells are paths. A path must be relative to it, and lead out of it neither by
            `..` nor by a link. An exported model takes bytes, whatever the table held.
        corrupt: `"raise"` refuses a picture that cannot be read, named with its row. `"missing"` counts it as missing;
            an exported model, which cannot, refuses the batch that holds one.
        max_pixels: Pictures that state more pixels than this in their header count as corrupt; they are never decoded.
        key: Features with the same key share one copy of the encoder. Default: `name`.
        indicator: Whether there is the second input. Set by `fit`; with `corrupt="missing"` there always is.

    Raises:
        ValueError: A cell is neither JPEG nor PNG, is damaged, states too many pixels, or names no file within the
            folder.

    Example:

    >>> import tensorflow as tf
    >>> from mtl_zoo import FeatureTransform, Image
    >>> grey = tf.io.encode_png(tf.fill((12, 9, 3), tf.constant(128, tf.uint8))).numpy()
    >>> x = FeatureTransform(Image("poster", (4, 3))).fit({"poster": [grey, None]}).encode({"poster": [grey, None]})
    >>> x["poster"].shape, x["poster"][:, 0, 0].tolist(), x["poster.missing"].tolist()
    ((2, 4, 3, 3), [[128, 128, 128], [0, 0, 0]], [0.0, 1.0])
    """

    size: tuple[int, int]
    encoder: Any = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)
    folder: str | None = dataclasses.field(default=None, kw_only=True)
    corrupt: str = dataclasses.field(default="raise", kw_only=True)
    max_pixels: int = dataclasses.field(default=16_000_000, kw_only=True)
    key: str | None = dataclasses.field(default=None, kw_only=True)
    indicator: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.size, str) or not isinstance(self.size, Iterable) or len(tuple(self.size)) != 2:
            raise ValueError(f"`size` must be (height, width). Received: size={self.size!r}")
        object.__setattr__(self, "size", tuple(check.check_int("size", n, maximum=check.MAX_COUNT) for n in self.size))
        check_encoder(self.encoder)
        if self.folder is not None:
            if not isinstance(self.folder, str | os.PathLike) or not os.fspath(self.folder):
                raise ValueError(f"`folder` must be the path of a folder. Received: folder={self.folder!r}")
            object.__setattr__(self, "folder", os.fspath(self.folder))
        check.check_choice("corrupt", self.corrupt, ("raise", "missing"))
        check.check_int("max_pixels", self.max_pixels, maximum=1 << 30)
        if self.key is not None:
            check.check_name("key", self.key)

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (*self.size, 3)

    @property
    def rule(self) -> str:
        height, width = self.size
        shown = "" if self.folder is None else ", from files"
        return f"{height} x {width}, corrupt={self.corrupt!r}{shown}{', with an indicator' if self.indicator else ''}"

    # In a model.

    def input_specs(self) -> dict[str, InputSpec]:
        specs = {self.name: InputSpec(self.shape, "uint8")}
        return (
            {**specs, f"{self.name}.missing": InputSpec((), "float32", says_missing=True)} if self.indicator else specs
        )

    def embed(self) -> Encoder:
        from mtl_zoo.layers.image_cnn import ImageCNN
        from mtl_zoo.layers.image_encoder import ImageEncoder

        encoder = self.encoder
        if encoder is None or isinstance(encoder, int):
            encoder = ImageCNN(encoder or 32, name="cnn")
        shared = self.key or self.name
        return Encoder(built_with(ImageEncoder(encoder, name=f"{shared}_encoder"), encoder), shared)

    @property
    def share_key(self) -> tuple[str, str]:
        return ("encoder", self.key or self.name)

    def check_shares_with(self, first: Any) -> None:
        self._refuse_difference(first, "size")

    # From a table.

    def read(self, column: Column) -> np.ndarray:
        """Whether each row has a picture, by the headers alone."""
        codes, found = self._of_distinct(column, lambda content: True)
        return np.append([is_there is not None for is_there in found], False)[codes]

    def fit(self, sharing: SequenceABC[tuple[Any, np.ndarray]]) -> None:
        ((_, there),) = sharing
        if not there.any():
            raise ValueError(
                f"`{self.source}` must hold a picture to fit feature {self.name!r}. Received: {len(there)} rows, none "
                "with one"
            )

    def sized(self, state: None, reading: np.ndarray) -> Feature:
        return dataclasses.replace(self, indicator=self.corrupt == "missing" or not reading.all())

    def sizes(self) -> dict[str, Any]:
        return {"indicator": self.indicator}

    def summarize(self, reading: np.ndarray) -> Summary:
        return Summary(None, int((~reading).sum()))

    def encode(self, state: None, column: Column, fitted: ColumnType) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """uint8 (n, height, width, 3)."""
        codes, pictures = self._of_distinct(column, lambda content: _pictures.decode(content, *self.size))
        decoded = np.zeros((len(pictures) + 1, *self.size, 3), np.uint8)
        there = np.zeros(len(pictures) + 1, bool)
        for i, picture in enumerate(pictures):
            if picture is not None:
                decoded[i], there[i] = picture, True
        indicator = {f"{self.name}.missing": (~there[codes]).astype(np.float32)} if self.indicator else {}
        return {self.name: decoded[codes], **indicator}, None

    def _of_distinct(self, column: Column, make: Callable[[bytes], Any]) -> tuple[np.ndarray, list[Any]]:
        """Which distinct cell each row holds, -1 for none, and what `make` gives of each, None of a corrupt one.

        Raises:
            ValueError: A picture is corrupt, unless such are missing, or a path leads out of the folder.
        """
        codes, cells = self._distinct_cells(column)

        def of_cell(cell: Any) -> Any:
            try:
                content = cell if self.folder is None else _pictures.read_file(self.folder, cell, self.max_pixels)
                _pictures.check_picture(content, self.max_pixels)
                return make(content)
            except (_pictures.BadPicture, _pictures.Escape) as error:
                return error

        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(of_cell, cells))
        refused = (_pictures.Escape,) if self.corrupt == "missing" else (_pictures.BadPicture, _pictures.Escape)
        bad = np.append([isinstance(one, refused) for one in found], False).astype(bool)[codes]
        if bad.any():
            few = [int(row) for row in np.flatnonzero(bad)[:5]]
            shown = "; ".join(f"row {row}: {check.shown(cells[codes[row]])} ({found[codes[row]]})" for row in few)
            advice = "" if self.corrupt == "missing" else ". Image(..., corrupt='missing') counts them as missing"
            raise ValueError(
                f"`{column.name}` must hold JPEG or PNG pictures{' of files' if self.folder else ''}. "
                f"Received: {int(bad.sum())} of {len(bad)} rows, {shown}{'; ...' if bad.sum() > 5 else ''}{advice}."
            )
        return codes, [None if isinstance(one, Exception) else one for one in found]

    def _distinct_cells(self, column: Column) -> tuple[np.ndarray, list[Any]]:
        if column.kind == EMPTY and not column.is_list:
            return np.full(len(column.series), -1), []
        wanted = BYTES if self.folder is None else STRING
        if column.is_list or column.kind != wanted:
            what = "bytes of pictures (paths need `folder`)" if self.folder is None else "paths of pictures"
            raise ValueError(f"`{column.name}` must hold {what}. Received: {column.shown}")
        codes, cells = pd.factorize(column.series.astype(object))
        empty = np.append([len(cell) == 0 for cell in cells], True).astype(bool)
        return np.where(empty[codes], -1, codes), list(cells)

    def encode_in_graph(self, lookup: None, raw: Any) -> dict[str, Any]:
        import tensorflow as tf

        pictures = _pictures.decode_in_graph(raw, *self.size, self.max_pixels)
        indicator = {f"{self.name}.missing": tf.cast(raw == b"", tf.float32)} if self.indicator else {}
        return {self.name: pictures, **indicator}

    def raw_form(self) -> InputSpec:
        return InputSpec((), "string", meaning="bytes of a JPEG or PNG")

    def raw_array(self, column: Column) -> np.ndarray:
        codes, contents = self._of_distinct(column, lambda content: content)
        distinct = np.empty(len(contents) + 1, object)
        distinct[:] = [*(content or b"" for content in contents), b""]
        return distinct[codes]

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        import tensorflow as tf

        rng = np.random.default_rng(0)
        pixels = [
            rng.integers(0, 256, shape).astype("uint8") for shape in ((9, 7, 3), (4, 4, 3), (12, 5, 1), (6, 6, 4))
        ]
        pngs = [tf.io.encode_png(picture).numpy() for picture in pixels]
        jpegs = [tf.io.encode_jpeg(picture).numpy() for picture in pixels[:3]]
        return [
            (cls("poster", (6, 4), encoder=3), [*pngs, *jpegs[:2]]),
            (cls("photo", (5, 5)), [jpegs[0], None, pngs[3], jpegs[2], b"", jpegs[0]]),
        ]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": list(self.size), "encoder": encoder_config(self.encoder)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        return cls(**{**config, "encoder": encoder_from_config(config["encoder"])})
