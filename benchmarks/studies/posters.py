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
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies.cold_text import BASE, COLUMNS, Made, Sizes, Split, differences, ids, metrics, trained
from mtl_zoo import Image, Vector

CASES = (BASE, "trailer", "poster", "poster + trailer")
SIZE = (48, 32)


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


def made(case: str) -> Made:
    """The features of a case."""
    features = ids()
    if "trailer" in case:
        features.append(Vector("trailer", encoder=16))
    if "poster" in case:
        features.append(Image("poster", SIZE, encoder=16))
    return Made(features)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options: dict[str, Any] = {"seeds": 3, "users": 700, "held_out": 300, "train_rows": 24_000, "resamples": 500}
    options |= {"epochs": 6, "batch_size": 256, "learning_rate": 1e-3, "model": "shared_bottom", "cases": CASES}
    args = frame.parser(__doc__ or "", options, out="a new file").parse_args(arguments)
    if not os.environ.get("MTL_ZOO_DATA"):
        raise ValueError("`MTL_ZOO_DATA` must name the folder of data sets, with movielens_1m and its posters in it.")
    cases = [case for case in CASES if case in {BASE, *args.cases}]
    table = ratings(Path(os.environ["MTL_ZOO_DATA"]), args.users)
    sizes = Sizes(args.model, args.epochs, args.batch_size, args.learning_rate)
    splits = {seed: split_of(table, seed, args.held_out, args.train_rows) for seed in range(args.seeds)}
    scores: dict[str, dict[int, Any]] = {case: {} for case in cases}
    rows = []
    for seed, split in splits.items():
        for case in cases:
            found, about = trained(split, made(case), sizes)
            scores[case][seed] = found
            for part, test in split.tests.items():
                for task, value in metrics(test, found[part]).items():
                    of = {"case": case, "seed": seed, "items": part, "task": task, "value": round(value, 5)}
                    size = {"rows": len(test), "films": test["item_id"].nunique()}
                    rows.append({**of, "metric": "auc" if task == "like" else "rmse", **size, **about})
    frame.write(args.out, [{column: row[column] for column in COLUMNS} for row in rows])
    compared = []
    for case in cases[1:]:
        for part in ("cold", "warm"):
            tests = {seed: split.tests[part] for seed, split in splits.items()}
            base, other = ({seed: scores[which][seed][part] for seed in splits} for which in (BASE, case))
            for task, (value, low, high) in differences(tests, base, other, args.resamples).items():
                numbers = {"difference": round(value, 5), "low": round(low, 5), "high": round(high, 5)}
                about = {"case": case, "base": BASE, "items": part, "task": task, "seeds": len(splits)}
                compared.append({**about, **numbers, "resamples": args.resamples})
    if compared:
        shown = frame.write(args.out.with_name(f"{args.out.stem}-differences.csv"), compared)
        frame.show(shown, ["case", "items", "task", "seeds", "difference", "low", "high"], f"against {BASE}")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
