"""Pictures: headers, decoding against Pillow, files and folders, and what is refused before it is decoded."""

import io
import os
import struct
import time
import zlib

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import CLICK, table
from keras import ops
from PIL import Image as Pillow

from mtl_zoo import Categorical, FeatureTransform, Image, SharedBottom, export_serving
from mtl_zoo.features import TableStream, _pictures
from mtl_zoo.layers import FeatureEmbedding

RNG = np.random.default_rng(0)


def picture(height=12, width=8, mode="RGB", kind="PNG", **options):
    """Smooth colours: what survives a JPEG."""
    steps = np.linspace(0, 255, height * width).reshape(height, width)
    pixels = np.stack([steps, steps[::-1], 255 - steps], axis=-1).astype("uint8")
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


PICTURES = {
    "png": picture(),
    "grey png": picture(mode="L"),
    "png with alpha": picture(mode="RGBA"),
    "png of a palette": picture(mode="P"),
    "interlaced": picture(kind="PNG", optimize=True),
    "jpeg": picture(kind="JPEG"),
    "progressive jpeg": picture(kind="JPEG", progressive=True),
    "cmyk jpeg": picture(mode="CMYK", kind="JPEG"),
    "jpeg with exif": picture(kind="JPEG", exif=b"Exif\0\0" + bytes(60_000)),
}


def png_of_size(height, width):
    """A few bytes that state any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return _pictures.PNG + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def jpeg_of_size(height, width):
    whole = picture(kind="JPEG")
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def encode(feature, cells, new=None):
    transform = FeatureTransform(feature).fit({"p": cells})
    return transform.encode({"p": cells if new is None else new})


@pytest.mark.parametrize("name", PICTURES)
def test_headers_state_the_size(name):
    assert _pictures.size_of(PICTURES[name]) == (12, 8)
    assert _pictures.size_of(picture(301, 7, kind="JPEG")) == (301, 7)


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_that_pillow_decodes(name):
    found = encode(Image("p", (12, 8)), [PICTURES[name]])["p"][0]
    expected = np.asarray(Pillow.open(io.BytesIO(PICTURES[name])).convert("RGB"))
    # Both use libjpeg, with other settings; alpha is dropped, not laid over a colour.
    assert np.abs(found.astype(int) - expected).max() <= (0 if "png" in name else 6 if "cmyk" not in name else 12)


def test_half_the_size_is_the_antialiased_mean():
    """A triangle of width 4 round each new pixel, as bilinear with antialiasing has it."""
    content = picture(16, 16)
    pixels = np.asarray(Pillow.open(io.BytesIO(content))).astype(float)

    def halved(x):
        rows = []
        for i in range(len(x) // 2):
            places = np.arange(len(x)) + 0.5
            weights = np.maximum(0, 1 - np.abs(places - (2 * i + 1)) / 2)
            rows.append(np.tensordot(weights / weights.sum(), x, axes=1))
        return np.stack(rows)

    expected = halved(halved(pixels).swapaxes(0, 1)).swapaxes(0, 1)
    found = encode(Image("p", (8, 8)), [content])["p"][0]
    assert np.abs(found - expected).max() <= 0.51


def test_missing_pictures_are_zeros_with_an_indicator():
    cells = [PICTURES["png"], None, b"", PICTURES["jpeg"]]
    found = encode(Image("p", (4, 4)), cells)
    assert found["p.missing"].tolist() == [0, 1, 1, 0] and not found["p"][1:3].any() and found["p"][0].any()
    assert list(encode(Image("p", (4, 4)), [PICTURES["png"]])) == ["p"]
    arrow = pd.Series(pa.array(cells, pa.large_binary()), dtype=pd.ArrowDtype(pa.large_binary()))
    np.testing.assert_array_equal(encode(Image("p", (4, 4)), arrow)["p"], found["p"])


def test_distinct_pictures_are_decoded_once(monkeypatch):
    calls = []
    real = _pictures.decode
    monkeypatch.setattr(_pictures, "decode", lambda content, *size: calls.append(1) or real(content, *size))
    transform = FeatureTransform(Image("p", (4, 4))).fit({"p": [PICTURES["png"]]})
    assert not calls  # `fit` looks at headers alone
    transform.encode({"p": [PICTURES["png"], PICTURES["jpeg"]] * 500})
    assert len(calls) == 2


PNG, JPEG = PICTURES["png"], PICTURES["jpeg"]
DAMAGED = {
    "words": b"no picture",
    "gif": b"GIF89a" + bytes(40),
    "half a png": PNG[: len(PNG) // 2],
    "half a jpeg": JPEG[: len(JPEG) // 2],
    "start of a jpeg": b"\xff\xd8",
    "start of a png": PNG[:20],
    "jpeg of marks": b"\xff\xd8" + b"\xff" * 5000,
    "jpeg of short segments": b"\xff\xd8" + b"\xff\xe0\x00\x00" * 5,
    "zeros in a png": PNG[:60] + bytes(40) + PNG[100:],
    "png bomb": png_of_size(60_000, 60_000),
    "jpeg bomb": jpeg_of_size(65_000, 65_000),
    "empty png": png_of_size(0, 10),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_named_or_missing(name):
    cells = [PNG, DAMAGED[name], JPEG, DAMAGED[name]]
    with pytest.raises(
        ValueError, match=r"`p` must hold JPEG or PNG pictures. Received: 2 of 4 rows, row 1: <"
    ) as told:
        encode(Image("p", (4, 4)), cells)
    assert f"<{len(DAMAGED[name])} bytes>" in str(told.value) and "\\x" not in str(told.value)
    found = encode(Image("p", (4, 4), corrupt="missing"), cells)
    assert found["p.missing"].tolist() == [0, 1, 0, 1] and not found["p"][1].any()
    with pytest.raises(ValueError, match="`p` must hold a picture to fit feature 'p'"):
        FeatureTransform(Image("p", (4, 4), corrupt="missing")).fit({"p": [b"words"] * 2})


@pytest.mark.parametrize("bomb", ["png bomb", "jpeg bomb"])
def test_a_bomb_is_never_decoded(bomb, monkeypatch):
    monkeypatch.setattr(_pictures, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"are more than max_pixels=16000000"):
        FeatureTransform(Image("p", (4, 4))).fit({"p": [DAMAGED[bomb]]})
    assert _pictures.size_of(DAMAGED[bomb])[0] >= 60_000


@pytest.mark.tensorflow
@pytest.mark.parametrize("bomb", ["png bomb", "jpeg bomb", "gif", "words"])
def test_a_graph_refuses_a_bomb_before_it_is_decoded(bomb):
    import tensorflow as tf

    transform = FeatureTransform(Image("p", (4, 4))).fit({"p": [PNG]})
    graph = tf.function(transform.encode_in_graph)
    start = time.monotonic()
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph({"p": tf.constant([DAMAGED[bomb]])})
    assert time.monotonic() - start < 5
    small = FeatureTransform(Image("p", (4, 4), max_pixels=100)).fit({"p": [picture(10, 10)]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_pixels"):
        tf.function(small.encode_in_graph)(
            {"p": tf.constant([picture(12, 9, kind="PNG" if "png" in bomb else "JPEG")])}
        )


@pytest.fixture
def posters(tmp_path):
    folder = tmp_path / "posters"
    (folder / "new").mkdir(parents=True)
    (folder / "a.png").write_bytes(PNG)
    (folder / "new" / "b.jpg").write_bytes(JPEG)
    (folder / "words.png").write_bytes(b"words")
    (tmp_path / "secret.png").write_bytes(PNG)
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    os.symlink(tmp_path, folder / "out")
    os.symlink(folder / "a.png", folder / "inside.png")
    return folder


def test_paths_are_read_from_a_folder(posters):
    cells = ["a.png", "new/b.jpg", None, "", "inside.png"]
    found = encode(Image("p", (4, 4), folder=posters), cells)
    bytes_ = encode(Image("p", (4, 4)), [PNG, JPEG, None, b"", PNG])
    for name, array in bytes_.items():
        np.testing.assert_array_equal(found[name], array)
    transform = FeatureTransform(Image("p", (4, 4), folder=posters)).fit({"p": cells})
    assert transform.raw_arrays({"p": cells})["p"].tolist() == [PNG, JPEG, b"", b"", PNG]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../secret.png", "without '..'"),
        ("new/../../secret.png", "without '..'"),
        ("/etc/passwd", "relative to `folder`"),
        ("link.png", "a link leads out of `folder`"),
        ("out/secret.png", "a link leads out of `folder`"),
        ("a\0b", "relative to `folder`"),
    ],
)
@pytest.mark.parametrize("corrupt", ["raise", "missing"])
def test_no_path_leads_out_of_the_folder(path, why, corrupt, posters):
    with pytest.raises(ValueError, match=rf"`p` must hold JPEG or PNG pictures of files.*row 1: .* \(.*{why}"):
        encode(Image("p", (4, 4), folder=posters, corrupt=corrupt), ["a.png", path])


@pytest.mark.parametrize(
    ("path", "why"), [("gone.png", "no such file"), ("new", "no such file"), ("words.png", "neither a JPEG nor a PNG")]
)
def test_a_file_that_cannot_be_read_is_named_or_missing(path, why, posters):
    with pytest.raises(ValueError, match=rf"1 of 2 rows, row 1: '{path}' \({why}\)"):
        encode(Image("p", (4, 4), folder=posters), ["a.png", path])
    found = encode(Image("p", (4, 4), folder=posters, corrupt="missing"), ["a.png", path])
    assert found["p.missing"].tolist() == [0, 1]


def test_a_huge_file_is_not_read(posters):
    with open(posters / "huge.png", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ValueError, match=r"'huge.png' \(1073741824 bytes are more than a picture of 1000 pixels"):
        encode(Image("p", (4, 4), folder=posters, max_pixels=1000), ["a.png", "huge.png"])


@pytest.mark.parametrize(
    ("cells", "folder", "message"),
    [
        (["a.png"], None, r"`p` must hold bytes of pictures \(paths need `folder`\). Received: strings"),
        ([PNG], "posters", r"`p` must hold paths of pictures. Received: bytes"),
        ([1, 2], None, r"Received: whole numbers"),
        ([[PNG]], None, r"Received: lists of bytes"),
    ],
)
def test_another_column_is_refused(cells, folder, message):
    with pytest.raises(ValueError, match=message):
        encode(Image("p", (4, 4), folder=folder), cells)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 4}, ValueError, r"`size` must be \(height, width\)"),
        ({"size": (4, 0)}, ValueError, "`size` must be a whole number >= 1"),
        ({"size": (4, 4, 3)}, ValueError, r"`size` must be \(height, width\)"),
        ({"corrupt": "skip"}, ValueError, "`corrupt` must be one of"),
        ({"max_pixels": 0}, ValueError, "`max_pixels` must be a whole number"),
        ({"folder": 3}, ValueError, "`folder` must be the path of a folder"),
        ({"encoder": "cnn"}, TypeError, "`encoder` must be a width"),
        ({"key": ""}, ValueError, "`key` must be a non-empty string"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Image("p", **{"size": (4, 4), **arguments})


def test_other_features_refuse_bytes_without_showing_them():
    with pytest.raises(ValueError, match=r"must not hold bytes.*read them as an Image") as told:
        FeatureTransform(Categorical("p")).fit({"p": [PNG, JPEG]})
    assert "\\x" not in str(told.value)


def test_features_of_a_key_share_an_encoder():
    features = [Image("p", (6, 6), encoder=3, key="art"), Image("q", (6, 6), encoder=3, key="art")]
    frame = {"p": [PNG, None], "q": [JPEG, PNG]}
    transform = FeatureTransform(features).fit(frame)
    layer = FeatureEmbedding(transform.features)
    vectors = layer(transform.encode(frame))
    assert {name: vector.shape[-1] for name, vector in vectors.items()} == {"p": 4, "q": 3}
    np.testing.assert_allclose(vectors["p"][0, :3], vectors["q"][1], rtol=1e-5)
    assert len(layer.trainable_weights) == 8
    with pytest.raises(ValueError, match="`size` must be the same for features that share the encoder 'art'"):
        FeatureTransform([features[0], Image("q", (6, 7), key="art")])


def test_a_backbone_gives_its_weights_and_its_map_is_averaged():
    inputs = keras.Input((6, 6, 3))
    backbone = keras.Model(inputs, keras.layers.Conv2D(5, 3, name="last")(inputs))
    layer = FeatureEmbedding([Image("p", (6, 6), encoder=backbone)])
    x = RNG.integers(0, 256, (2, 6, 6, 3)).astype("uint8")
    expected = ops.convert_to_numpy(backbone(x / 255.0)).mean(axis=(1, 2))
    np.testing.assert_allclose(ops.convert_to_numpy(layer({"p": x})["p"]), expected, atol=1e-5)


@pytest.mark.extended
@pytest.mark.tensorflow
def test_a_model_learns_from_pictures_and_is_exported(tmp_path):
    import tensorflow as tf

    bright = RNG.integers(0, 2, 60)
    cells = [tf.io.encode_jpeg(np.full((9, 6, 3), 40 + 150 * b, "uint8")).numpy() for b in bright]
    frame = table(p=[*cells, None]).assign(click=[*bright, 0])
    transform = FeatureTransform(Image("p", (9, 6), encoder=4), CLICK).fit(frame)
    model = SharedBottom(transform, bottom_units=(4,), tower_units=())
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(frame, batch_size=20, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    scores = model.predict(frame, verbose=0)["click"].ravel()
    frame.to_parquet(tmp_path / "rows.parquet")
    for inputs, _ in TableStream(tmp_path / "rows.parquet", transform).batches(batch_size=61):
        np.testing.assert_array_equal(inputs["p"].numpy(), transform.encode(frame)["p"])
    export_serving(model, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    found = served.score({"p": tf.constant([*cells, b""])})
    np.testing.assert_allclose(np.ravel(found["click"]), scores, atol=1e-6)
