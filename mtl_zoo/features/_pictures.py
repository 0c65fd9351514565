"""Pictures as bytes or files: what they are by their header, before anything is decoded, and their pixels."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
# Markers of a frame's header, of which one holds the size; C4, C8 and CC are others.
_FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD8)}
# No file of that many pixels is larger: 16 bits and four channels, and a MiB of other things.
_BYTES_A_PIXEL, _OTHER_BYTES = 8, 1 << 20


class BadPicture(ValueError):
    """A picture that cannot be read, and why."""


class Escape(ValueError):
    """A path that leads out of its folder."""


def size_of(content: bytes) -> tuple[int, int]:
    """(height, width) that a JPEG's or PNG's header states.

    Raises:
        BadPicture: It is neither, or its header is damaged.
    """
    if content.startswith(PNG):
        if len(content) < 24 or content[12:16] != b"IHDR":
            raise BadPicture("a PNG without a header")
        return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")
    if not content.startswith(JPEG):
        raise BadPicture("neither a JPEG nor a PNG")
    at = 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        marker = content[at + 1]
        if marker in _FRAMES and at + 9 <= len(content):
            return int.from_bytes(content[at + 5 : at + 7], "big"), int.from_bytes(content[at + 7 : at + 9], "big")
        if marker in (0xD9, 0xDA):  # the picture ends, or its pixels begin
            break
        if marker in (0x00, 0xFF):
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            length = int.from_bytes(content[at + 2 : at + 4], "big")
            if length < 2:
                break
            at += 2 + length
    raise BadPicture("a JPEG whose header states no size")


def check_picture(content: bytes, max_pixels: int) -> None:
    """Refuses, by its header alone, what is no picture or would be too large.

    Raises:
        BadPicture: It is so.
    """
    height, width = size_of(content)
    if not height or not width:
        raise BadPicture(f"{height} x {width} pixels")
    if height * width > max_pixels:
        raise BadPicture(f"{height} x {width} pixels are more than max_pixels={max_pixels}")


def read_file(folder: str, name: str, max_pixels: int) -> bytes:
    """The bytes of a file within a folder.

    Raises:
        Escape: The path is absolute, or leads out of the folder by `..` or by a link.
        BadPicture: There is no such file, or it is far larger than a picture of so many pixels may be.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or (os.name == "nt" and path.drive):
        raise Escape("a path must be relative to `folder`, without '..'")
    root = os.path.realpath(folder)
    real = os.path.realpath(os.path.join(root, name))
    if os.path.commonpath([root, real]) != root:
        raise Escape("a link leads out of `folder`")
    try:
        if not os.path.isfile(real):
            raise BadPicture("no such file")
        if os.path.getsize(real) > _BYTES_A_PIXEL * max_pixels + _OTHER_BYTES:
            raise BadPicture(f"{os.path.getsize(real)} bytes are more than a picture of {max_pixels} pixels may have")
        return Path(real).read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot be read: {error.strerror}") from error


@functools.cache
def decoder(height: int, width: int) -> Any:
    """A TensorFlow function from a checked picture's bytes to uint8 (height, width, 3)."""
    import tensorflow as tf

    return tf.function(lambda content: _decoded(content, height, width), [tf.TensorSpec((), tf.string)])


def decode(content: bytes, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3).

    Raises:
        BadPicture: The data are damaged.
    """
    import tensorflow as tf

    try:
        return decoder(height, width)(tf.constant(content)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise BadPicture("its data are damaged") from error


def _decoded(content: Any, height: int, width: int) -> Any:
    import tensorflow as tf

    image = tf.io.decode_image(content, channels=3, dtype=tf.uint8, expand_animations=False)
    image.set_shape((None, None, 3))
    resized = tf.image.resize(image, (height, width), method="bilinear", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)


def decode_in_graph(contents: Any, height: int, width: int, max_pixels: int) -> Any:
    """uint8 (n, height, width, 3) of a tensor of bytes, zeros where empty; each distinct picture is decoded once.

    What is no picture, or states too many pixels, is an error of the whole batch, before it is decoded.
    """
    import tensorflow as tf

    def number(content: Any, at: int) -> Any:
        digits = tf.cast(tf.io.decode_raw(tf.strings.substr(content, at, 4), tf.uint8), tf.int64)
        return tf.reduce_sum(digits * tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64))

    def checked(content: Any) -> Any:
        is_png = tf.strings.substr(content, 0, len(PNG)) == PNG
        pixels = tf.cond(
            is_png,
            lambda: number(content, 16) * number(content, 20),
            lambda: tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(content)[:2], tf.int64)),
        )
        small = tf.debugging.Assert(pixels <= max_pixels, ["A picture must have at most max_pixels.", max_pixels])
        with tf.control_dependencies([] if small is None else [small]):
            return _decoded(tf.identity(content), height, width)

    def one(content: Any) -> Any:
        return tf.cond(content == b"", lambda: tf.zeros((height, width, 3), tf.uint8), lambda: checked(content))

    distinct, places = tf.unique(contents)
    decoded = tf.map_fn(one, distinct, fn_output_signature=tf.TensorSpec((height, width, 3), tf.uint8))
    return tf.gather(decoded, places)
