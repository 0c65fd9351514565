"""What a film looks like, where nobody has rated it yet: MovieLens 1M with posters and the look of trailers.

    python -m benchmarks.studies.posters --out benchmarks/results/content/posters.csv

A part of the users is taken with all their ratings. For each seed, 300 films that have a poster and a trailer are held
out of training altogether (the cold test) and 150 others for the choice of the epoch; of the other ratings a tenth is
the warm test, and a tenth chooses as well. Cases are trained on the same rows: ids only, ids and the seven visual
features of the trailer, ids and the poster through a small convolutional network, and all of them. `like` (4 stars and
more) is scored by AUC, `rating` by RMSE. Differences to ids only are beside the rows, in a file whose name ends in
`-differences`, with intervals of a bootstrap of the test's films over all seeds.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._cases import Made, Split, Study
from benchmarks.studies.cold_text import ids
from mtl_zoo import BinaryTask, Image, RegressionTask, Vector

SIZE = (48, 32)
STUDY = Study(
    __doc__ or "",
    folder="",
    tasks=(BinaryTask("like"), RegressionTask("rating")),
    metrics={"like": "auc", "rating": "rmse"},
    groups="item_id",
    options={"users": 700, "held_out": 300, "train_rows": 30_000, "epochs": 6},
)


def trailer() -> Vector:
    """Seven visual features of a film's trailer."""
    return Vector("trailer", encoder=16)


def poster() -> Image:
    """A film's poster, through a small network."""
    return Image("poster", SIZE, encoder=16)


STUDY.case(STUDY.base)(lambda split: Made(ids()))
STUDY.case("trailer")(lambda split: Made([*ids(), trailer()]))
STUDY.case("poster")(lambda split: Made([*ids(), poster()]))
STUDY.case("poster + trailer")(lambda split: Made([*ids(), trailer(), poster()]))


def ratings(folder: Path, users: int, seed: int = 0) -> pd.DataFrame:
    """The ratings of some users, with `poster` (JPEG bytes) and `trailer` (7 numbers) of their films, or None."""
    rows = pd.read_csv(folder / "movielens_1m" / "ratings_no_timestamp.csv.gz")
    rows = rows.rename(columns={"movie_id": "item_id"})
    everyone = np.sort(rows["user_id"].unique())
    rows = rows[rows["user_id"].isin(np.random.default_rng(seed).permutation(everyone)[:users])]
    rows = rows.reset_index(drop=True)
    packed = folder / "movielens_mise_en_scene_visual" / "LLVisualFeatures13K_Log.csv.gz"
    looks = pd.read_csv(io.BytesIO(gzip.decompress(packed.read_bytes()))).drop_duplicates("ML_Id").set_index("ML_Id")
    trailers = dict(zip(looks.index, looks.to_numpy("float32"), strict=True))
    with zipfile.ZipFile(folder / "movielens_1m_posters" / "posters_64x96_jpeg.zip") as archive:
        names = {name: name.removesuffix(".jpg") for name in archive.namelist()}
        posters = {int(film): archive.read(name) for name, film in names.items() if film.isdigit()}
    for column, known in (("poster", posters), ("trailer", trailers)):
        cells = np.empty(len(rows), object)
        cells[:] = [known.get(film) for film in rows["item_id"].tolist()]
        rows[column] = cells
    return rows.assign(like=(rows["rating"] >= 4).astype(int))


def split_of(rows: pd.DataFrame, seed: int, held_out: int, train_rows: int) -> Split:
    """The split of a seed. `train_rows` takes a sample of the training rows; 0 takes all."""
    rng = np.random.default_rng(seed)
    seen = rows.loc[rows["poster"].notna() & rows["trailer"].notna(), "item_id"].unique()
    films = rng.permutation(np.sort(seen))
    is_cold = rows["item_id"].isin(films[:held_out])
    is_choosing = rows["item_id"].isin(films[held_out : held_out + held_out // 2])
    others = rows[~is_cold & ~is_choosing]
    others = others.iloc[rng.permutation(len(others))]
    tenth = len(others) // 10
    train = others[2 * tenth :][: train_rows or None]
    # Films and users that the sample lacks would be cold as well.
    is_warm = others["item_id"].isin(set(train["item_id"])) & others["user_id"].isin(set(train["user_id"]))
    warm = others[:tenth][is_warm[:tenth]]
    some = others[tenth : 2 * tenth][: len(warm) // 2]
    return Split(train, pd.concat([some, rows[is_choosing]]), {"cold": rows[is_cold], "warm": warm}, seed)


def splits(folder: Path, args: Any) -> dict[int, Split]:
    """By films, of a sample of the users."""
    table = ratings(folder, args.users)
    return {seed: split_of(table, seed, args.held_out, args.train_rows) for seed in range(args.seeds)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    return STUDY.run(splits, arguments)


if __name__ == "__main__":
    frame.start(__file__)
