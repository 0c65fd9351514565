"""Retailrocket: what visitors of a shop looked at, put into the cart and bought."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import (
    content_version,
    find_file,
    missing_files,
    open_bytes,
    quick_version,
    read_content,
    require_contents,
    search_roots,
)
from mtl_zoo.datasets._negatives import with_negatives
from mtl_zoo.datasets._splits import cut, split_rows, without_training_row
from mtl_zoo.features.spec import Categorical, Feature
from mtl_zoo.tasks import BinaryTask, Task

FOLDERS = ("retailrocket", "retailrocket_caserec", "retailrocket/RetailRocket_Ecommerce")
EVENTS = "events.csv"
PROPERTIES, TREE = ("item_properties_part1.csv", "item_properties_part2.csv"), "category_tree.csv"
CASEREC = {"view": "view_ecommerce.dat", "cart": "add_to_cart_ecommerce.dat", "purchase": "purchase_ecommerce.dat"}
ARCHIVE = "Retailrocket_Ecommerce.zip"
KINDS = {"view": "view", "addtocart": "cart", "transaction": "purchase"}
SPLITS = ("auto", "time", "user", "cold_items", "cold_users")


def _check_files(roots: list[Path]) -> list[Check]:
    pairs, form, _ = _read(roots)
    counts = {"pairs": len(pairs), **{step: int(pairs[step].sum()) for step in KINDS.values()}}
    return [Check(f"{what} of {form}", "at least one", f"{n:,}", n > 0) for what, n in counts.items()]


@register_dataset(
    "retailrocket",
    source="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
    licence="CC BY-NC-SA 4.0",
    folders=FOLDERS,
    files=(EVENTS,),
    login="Download the archive from https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset and unpack it.",
    check_files=_check_files,
)
def retailrocket(
    data_dir: str | Path | None = None,
    *,
    split: str = "auto",
    negatives: int = 1,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Retailrocket: a funnel from a view over the cart to a purchase.

    A row is a visitor and an item. Tasks:

    * `view`: has the visitor looked at the item? Not with `negatives=0`.
    * `cart`, given `view`: was it put into the cart?
    * `purchase`, given `cart`: was it bought?

    A later step without an earlier one counts for both: who bought an item had it in the cart and had seen it. How many
    rows that concerns, `data.notes` says.

    Features: `user_id`, `item_id`, and where the official item_properties files are there, `category`, the first that
    an item had, and `parent`, the category above it; `data.entities["item_id"]` has both. Other properties change with
    time and are left out. Of the official form rows have `time`, milliseconds since 1970 of the pair's first event.

    Args:
        data_dir: See `load_dataset`. Read is the official events.csv (2,756,101 events), or the subset of CaseRec
            (Retailrocket_Ecommerce.zip, or its files), which has no times.
        split: `"time"`: the first 80 % of all pairs, the next 10 %, the last 10 %. `"user"`: each visitor's pairs
            80/10/10 at random. `"auto"`: by time where there are times, else by user. `"cold_items"`, `"cold_users"`: a
            tenth of the items or visitors each for validation and test. A pair's events are never torn apart.
        negatives: Pairs without an event for each with one, in every split, of items as often as they are viewed.
        embedding_dim: Width of every embedding.
        seed: Of what is drawn for the split, and of the negatives.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range, or `"time"` without times; a file has other columns or events.

    Reference: Retailrocket, "Retailrocket recommender system dataset", Kaggle 2017.
    """
    check.check_choice("split", split, SPLITS)
    check.check_int("negatives", negatives, minimum=0)
    check.check_int("seed", seed, minimum=0)
    roots = search_roots(data_dir)
    pairs, form, version = _read(roots)
    has_times = "time" in pairs
    if split == "time" and not has_times:
        raise ValueError(f"`split` can be 'time' only where events have times. Received: split='time' for {form}")
    split = ("time" if has_times else "user") if split == "auto" else split
    pairs, implied = _as_funnel(pairs)
    part, rule = split_rows(pairs, split, seed, user="user_id", item="item_id", time="time")
    tables = cut(pairs.drop(columns="view"), part)
    if negatives:
        tables = with_negatives(tables, negatives, seed, user="user_id", item="item_id", label="view")
        tables = {name: table.fillna({"cart": 0, "purchase": 0}) for name, table in tables.items()}
    items = _items(roots, pairs["item_id"]) if form == "events" else None
    return fitted_dataset(
        tables=tables,
        features=_features(items, embedding_dim),
        tasks=_tasks(negatives),
        group_columns=("user_id",),
        entities={} if items is None else {"item_id": items},
        keep_raw=True,
        name="retailrocket",
        variant=f"{form},{split}_split,negatives={negatives}",
        version=version,
        split_rule=f"{rule}; {negatives} pairs without an event beside each",
        notes=(implied, without_training_row(pairs["user_id"], part, "visitors")),
    )


def _tasks(negatives: int) -> tuple[Task, ...]:
    if not negatives:
        return BinaryTask("cart"), BinaryTask("purchase", sample_space="cart")
    return BinaryTask("view"), BinaryTask("cart", sample_space="view"), BinaryTask("purchase", sample_space="cart")


def _features(items: pd.DataFrame | None, dim: int) -> tuple[Feature, ...]:
    names = ("user_id", "item_id", *(() if items is None else ("category", "parent")))
    return tuple(Categorical(name, dim=dim) for name in names)


def _as_funnel(pairs: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Steps without the step before them made whole, and how many there were, in words."""
    cart = pairs[["cart", "purchase"]].max(axis=1)
    without_cart, without_view = int((cart > pairs["cart"]).sum()), int((pairs["view"] == 0).sum())
    note = (
        f"of {len(pairs):,} pairs {without_view:,} have no view and {without_cart:,} a purchase without a cart; the "
        "later step counts for the earlier"
    )
    return pairs.assign(cart=cart, view=np.float32(1)), note


def _read(roots: list[Path]) -> tuple[pd.DataFrame, str, str]:
    """A row for each pair with 0/1 for each step, which form the files have, and their version."""
    path = find_file(roots, FOLDERS, EVENTS)
    if path is not None:
        return _of_events(path), "events", quick_version([path])
    if read_content("retailrocket", roots, FOLDERS, CASEREC["view"], ARCHIVE) is None:
        raise missing_files("retailrocket", roots, FOLDERS[0], [EVENTS, f"or {ARCHIVE}"])
    contents = require_contents("retailrocket", roots, FOLDERS, tuple(CASEREC.values()), ARCHIVE)
    steps = []
    for step, file in CASEREC.items():
        table = pd.read_csv(io.BytesIO(contents[file]), sep="\t", dtype="int64")
        if list(table.columns[:2]) != ["visitorid", "itemid"]:
            raise ValueError(f"`{file}` must have the columns visitorid, itemid. Received: {list(table.columns)}")
        steps.append(
            table.set_axis(["user_id", "item_id", *table.columns[2:]], axis=1)[["user_id", "item_id"]].assign(step=step)
        )
    return _pairs(pd.concat(steps, ignore_index=True)), "caserec", content_version(*contents.values())


def _of_events(path: Path) -> pd.DataFrame:
    columns = ("timestamp", "visitorid", "event", "itemid")
    with open_bytes(path) as file:
        header = file.readline().decode("utf-8-sig", "replace").strip().split(",")
    absent = [column for column in columns if column not in header]
    if absent:
        raise ValueError(f"`{path.name}` must have the columns {', '.join(columns)}. Received: {path} without {absent}")
    table = pd.read_csv(path, usecols=list(columns), dtype={"event": str}, encoding="utf-8-sig")
    odd = ~table["event"].isin(KINDS)
    if odd.any():
        raise ValueError(
            f"`event` must be one of {', '.join(KINDS)}. Received {int(odd.sum())} others in {path}: "
            f"{check.sample_values(table['event'][odd])}"
        )
    events = pd.DataFrame(
        {
            "user_id": table["visitorid"],
            "item_id": table["itemid"],
            "step": table["event"].map(KINDS),
            "time": table["timestamp"],
        }
    )
    return _pairs(events)


def _pairs(events: pd.DataFrame) -> pd.DataFrame:
    """A row for each visitor and item, in the order of their first event: the steps as 0/1, and its time."""
    if "time" in events:
        events = events.sort_values("time", kind="stable", ignore_index=True)
    # Groups are numbered in the order in which they first appear.
    place = events.groupby(["user_id", "item_id"], sort=False).ngroup().to_numpy()
    pairs = events.drop_duplicates(["user_id", "item_id"]).drop(columns="step").reset_index(drop=True)
    for step in KINDS.values():
        done = np.zeros(len(pairs), "float32")
        done[place[(events["step"] == step).to_numpy()]] = 1
        pairs[step] = done
    return pairs


def _items(roots: list[Path], known: pd.Series) -> pd.DataFrame | None:
    """The first category that is recorded of each item, and the one above; None where the files are not there."""
    found = [find_file(roots, FOLDERS, name) for name in PROPERTIES]
    paths = [path for path in found if path is not None]
    if len(paths) < len(PROPERTIES):
        return None
    parts = []
    for path in paths:
        for chunk in pd.read_csv(
            path, usecols=["timestamp", "itemid", "property", "value"], dtype=str, chunksize=1 << 20
        ):
            parts.append(chunk.loc[chunk["property"] == "categoryid", ["timestamp", "itemid", "value"]])
    table = pd.concat(parts, ignore_index=True).astype({"timestamp": "int64", "itemid": "int64"})
    first = table.sort_values("timestamp", kind="stable").drop_duplicates("itemid").set_index("itemid")["value"]
    items = pd.DataFrame({"item_id": np.sort(known.unique())})
    items["category"] = items["item_id"].map(first)
    tree = find_file(roots, FOLDERS, TREE)
    above = None if tree is None else pd.read_csv(tree, dtype=str).set_index("categoryid")["parentid"]
    items["parent"] = items["category"].map(above) if above is not None else None
    return items
