"""What others have gathered of MovieLens films: summaries, posters and the look of trailers, where the files are."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo.datasets._files import find_file, read_bytes

SUMMARIES = (("movielens_100k", "movielens_100k/ml-100k", "ml-100k"), "wiki_summaries.csv")
POSTER_FOLDERS = ("movielens_1m_posters", "ml1m-images")
POSTERS = "posters_64x96_jpeg.zip"
IDS = (POSTER_FOLDERS, "ml100k_to_ml1m_ids.csv")
TRAILERS = (("movielens_mise_en_scene_visual", "mise_en_scene"), "LLVisualFeatures13K_Log.csv")


def of_100k(roots: list[Path], movies: pd.DataFrame, posters: bool) -> pd.DataFrame:
    """The films of MovieLens 100K with `summary`, `trailer` and `poster`, as far as there are files."""
    found = find_file(roots, *SUMMARIES)
    if found is not None:
        texts = _read(found, ("movie_title", "wiki_summary")).drop_duplicates("movie_title")
        movies = movies.assign(summary=movies["title"].map(texts.set_index("movie_title")["wiki_summary"]))
    path = find_file(roots, *IDS)
    if path is None:
        if posters:
            raise FileNotFoundError(_no_posters(roots, IDS[1]))
        return movies
    known = _read(path, ("ml100k_id", "ml1m_id")).dropna().astype({"ml100k_id": "int64", "ml1m_id": "int64"})
    ids = movies["movie_id"].map(known.drop_duplicates("ml100k_id").set_index("ml100k_id")["ml1m_id"])
    return _with_looks(roots, movies, ids, posters)


def of_1m(roots: list[Path], movies: pd.DataFrame, posters: bool) -> pd.DataFrame:
    """The films of MovieLens 1M with `trailer` and `poster`, as far as there are files."""
    return _with_looks(roots, movies, movies["movie_id"], posters)


def _with_looks(roots: list[Path], movies: pd.DataFrame, ids: pd.Series, posters: bool) -> pd.DataFrame:
    found = find_file(roots, *TRAILERS)
    if found is not None:
        columns = [f"f{i}" for i in range(1, 8)]
        looks = _read(found, ("ML_Id", *columns)).drop_duplicates("ML_Id")
        vectors = dict(zip(looks["ML_Id"], looks[columns].to_numpy("float32"), strict=True))
        movies = movies.assign(trailer=_column(ids, vectors))
    return movies.assign(poster=_column(ids, _read_posters(roots, ids))) if posters else movies


def _column(ids: pd.Series, values: dict) -> pd.Series:
    """A value for each id, None where there is none."""
    column = np.empty(len(ids), object)
    column[:] = [None if pd.isna(i) else values.get(int(i)) for i in ids]
    return pd.Series(column, index=ids.index)


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = pd.read_csv(io.BytesIO(read_bytes(path)), encoding="utf-8")
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise ValueError(f"`{path.name}` must have the columns {', '.join(columns)}. Received: {path} without {absent}")
    return table[list(columns)]


def _read_posters(roots: list[Path], ids: pd.Series) -> dict[int, bytes]:
    """JPEG bytes by the film's id of MovieLens 1M, of the archive or of a folder of pictures."""
    wanted = {int(i) for i in ids.dropna()}
    archive = find_file(roots, POSTER_FOLDERS, POSTERS)
    if archive is not None:
        with zipfile.ZipFile(archive) as opened:
            names = {name: name.rpartition("/")[2].removesuffix(".jpg") for name in opened.namelist()}
            return {int(i): opened.read(n) for n, i in names.items() if i.isdigit() and int(i) in wanted}
    folders = [root / folder / "images" for root in roots for folder in POSTER_FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(_no_posters(roots, f"{POSTERS} or images/<id>.jpg"))
    files = {i: folder / f"{i}.jpg" for i in sorted(wanted)}
    return {i: path.read_bytes() for i, path in files.items() if path.is_file()}


def _no_posters(roots: list[Path], file: str) -> str:
    searched = " and ".join(str(root / POSTER_FOLDERS[0]) for root in roots)
    return (
        f"`posters` needs the pictures of MovieLens 1M. Searched: {searched}. Expected: {file}. Get them from "
        "https://github.com/antonsteenvoorden/ml1m-images; they belong to their owners, for research of your own only"
    )
