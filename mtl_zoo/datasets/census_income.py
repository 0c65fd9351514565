"""Census-Income (KDD): two yes/no questions about a person, from 40 answers to the 1994/95 population survey.

Not the Adult data (48,842 rows), which many tutorials mix up with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset, shares
from mtl_zoo.datasets._files import (
    Resource,
    check_count,
    content_version,
    find_file,
    missing_files,
    read_bytes,
    require_file,
    search_roots,
)
from mtl_zoo.features.spec import Categorical, Feature, Numeric
from mtl_zoo.tasks import BinaryTask

COLUMNS = tuple(
    "age class_worker det_ind_code det_occ_code education wage_per_hour hs_college marital_stat major_ind_code "
    "major_occ_code race hisp_origin sex union_member unemp_reason full_or_part_emp capital_gains capital_losses "
    "stock_dividends tax_filer_stat region_prev_res state_prev_res det_hh_fam_stat det_hh_summ instance_weight "
    "mig_chg_msa mig_chg_reg mig_move_reg mig_same mig_prev_sunbelt num_emp fam_under_18 country_father "
    "country_mother country_self citizenship own_or_self vet_question vet_benefits weeks_worked year income_50k".split()
)
# Amounts of money are zero for most and span five orders of magnitude for the rest.
CONTINUOUS = {
    "age": "standardize",
    "wage_per_hour": "log",
    "capital_gains": "log",
    "capital_losses": "log",
    "stock_dividends": "log",
    "num_emp": "standardize",
    "weeks_worked": "standardize",
}
# Neither is an answer of the person: the survey's weight, and the label itself.
NEVER_FEATURES = ("instance_weight", "income_50k")
NOMINAL = tuple(c for c in COLUMNS if c not in CONTINUOUS and c not in NEVER_FEATURES)
COLLEGE = (
    "Some college but no degree",
    "Associates degree-occup /vocational",
    "Associates degree-academic program",
    "Bachelors degree(BA AB BS)",
    "Masters degree(MA MS MEng MEd MSW MBA)",
    "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
)
INCOMES = ("- 50000.", "50000+.")
LABEL_COLUMNS = {"income": "income_50k", "never_married": "marital_stat", "college": "education"}
GROUPS = {1: ("income", "never_married"), 2: ("college", "never_married")}


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of the set, and what it must hold: rows, and rows with each label 1."""

    name: str
    rows: int
    positives: dict[str, int]
    has_header: bool = False
    sha256: str | None = None  # of the content, unpacked


_TRAIN_POSITIVES = {"income": 12_382, "never_married": 86_485, "college": 67_003}
TRAIN = _File("census-income.data", 199_523, _TRAIN_POSITIVES)
NOMINAL_TRAIN = _File(
    "census-income.train.nominal.csv",
    199_523,
    _TRAIN_POSITIVES,
    has_header=True,
    sha256="6a4085815deff1e15ffb00f2ec5c1a03c28ad9234cb373fdab39871f9d7b02e1",
)
TEST = _File(
    "census-income.test",
    99_762,
    {"income": 6_186, "never_married": 43_143, "college": 33_410},
    sha256="98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c",
)
FOLDERS = ("census_income_kdd", "census_income", "census-income-mld", "")


def _check_files(roots: list[Path]) -> list[Check]:
    checks = []
    for file in (TRAIN, NOMINAL_TRAIN, TEST):
        path = find_file(roots, FOLDERS, file.name)
        if path is None:
            continue
        content = read_bytes(path)
        if file.sha256 is not None:
            found = hashlib.sha256(content).hexdigest()
            checks.append(Check(f"{path.name} content sha256", file.sha256, found, found == file.sha256))
        table = _parse(content, file)
        counts = {"rows": (file.rows, len(table))} | {
            f"{label} = 1": (count, int(table[label].sum())) for label, count in file.positives.items()
        }
        checks += [Check(f"{path.name} {what}", f"{e:,}", f"{f:,}", e == f) for what, (e, f) in counts.items()]
    if not checks:
        raise missing_files("census_income", roots, FOLDERS[0], (TRAIN.name, TEST.name))
    return checks


@register_dataset(
    "census_income",
    source="https://archive.ics.uci.edu/dataset/117/census+income+kdd",
    licence="CC BY 4.0",
    folders=FOLDERS,
    files=(TRAIN.name, TEST.name),
    resources=(
        Resource(
            "https://archive.ics.uci.edu/ml/machine-learning-databases/census-income-mld/census.tar.gz",
            "census.tar.gz",
            unpack=True,
        ),
    ),
    check_files=_check_files,
)
def census_income(
    data_dir: str | Path | None = None,
    *,
    variant: str = "full",
    group: int = 1,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Census-Income (KDD): income and marital status, or education and marital status, of 299,285 persons.

    The protocol is that of the MMoE paper: the columns that the group's labels are made of are removed from the
    inputs, the survey's instance weight is never one; the test file is split 1:1 by seed into validation and test.
    Other columns tell much about a label (`det_hh_fam_stat` says "never marr"); they stay, as in the paper.

    All nominal columns, numeric codes included, are categorical with vocabularies of the training rows; `?` is a value
    of its own, as is `NA` in `hisp_origin`.

    Args:
        data_dir: See `load_dataset`.
        variant: `"full"`: the official files, 199,523 training rows. `"nominal"`: the same rows without the seven
            continuous columns, from census-income.train.nominal.csv and the official test file. `"test_file"`: the
            full-column test file alone, split 60/20/20 by seed. Their results do not compare with each other.
        group: 1: tasks `income` (above 50,000 dollars) and `never_married`. 2: `college` (some college or more) and
            `never_married`.
        embedding_dim: Width of every embedding.
        seed: Of the splits.

    Raises:
        FileNotFoundError: The files of this variant are not there.
        ValueError: An option is out of range; rows or labels are not those of the official files.

    Reference: Ma et al., KDD 2018, section 6.3, doi:10.1145/3219819.3220007.
    """
    check.check_choice("variant", variant, ("full", "nominal", "test_file"))
    check.check_choice("group", group, tuple(GROUPS))
    check.check_int("seed", seed, minimum=0)
    roots = search_roots(data_dir)
    contents, parts = [], []
    for file in {"full": (TRAIN, TEST), "nominal": (NOMINAL_TRAIN, TEST), "test_file": (TEST,)}[variant]:
        content = read_bytes(require_file("census_income", roots, FOLDERS, file.name, _hint(variant, roots)))
        table = _parse(content, file)
        check_count(f"rows of {file.name}", file.rows, len(table))
        for label, positives in file.positives.items():
            check_count(f"rows of {file.name} with {label} = 1", positives, int(table[label].sum()))
        contents.append(content)
        parts.append(table)

    order = np.random.default_rng(seed).permutation(len(parts[-1]))
    if variant == "test_file":
        cuts = shares(len(order), 0.6, 0.2, 0.2)
        tables = dict(zip(("train", "validation", "test"), (_rows(parts[0], order[cut]) for cut in cuts), strict=True))
        rule = f"test file alone, split 60/20/20 at random (seed {seed})"
    else:
        halves = (_rows(parts[1], order[cut]) for cut in shares(len(order), 0.5, 0.5))
        tables = dict(zip(("train", "validation", "test"), (parts[0], *halves), strict=True))
        rule = f"train file; test file split 1:1 at random into validation and test (seed {seed})"

    names = GROUPS[group]
    features = _features(names, variant, embedding_dim)
    columns = [feature.source for feature in features] + list(names)
    return fitted_dataset(
        tables={name: table[columns] for name, table in tables.items()},
        features=features,
        tasks=tuple(BinaryTask(name) for name in names),
        name="census_income",
        variant=variant if group == 1 else f"{variant},group={group}",
        version=content_version(*contents),
        split_rule=rule,
        notes=("removed from the inputs: " + ", ".join(_removed(names)), *_NOTES.get(variant, ())),
    )


_NOTES = {
    "nominal": ("without the 7 continuous columns: does not compare with published results",),
    "test_file": ("the test file alone: does not compare with published results",),
}


def _hint(variant: str, roots: Sequence[Path]) -> str:
    if variant == "nominal":
        return (
            "The file of variant='nominal' is not among the official ones: use variant='full' with what fetch gives. "
        )
    if variant == "full" and find_file(roots, FOLDERS, NOMINAL_TRAIN.name):
        return f"There is {NOMINAL_TRAIN.name}, which variant='nominal' reads. "
    return ""


def _removed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*NEVER_FEATURES, *(LABEL_COLUMNS[name] for name in names)]))


def _features(names: Sequence[str], variant: str, dim: int) -> tuple[Feature, ...]:
    kept = [c for c in COLUMNS if c not in _removed(names) and not (variant == "nominal" and c in CONTINUOUS)]
    return tuple(Numeric(c, normalization=CONTINUOUS[c]) if c in CONTINUOUS else Categorical(c, dim=dim) for c in kept)


def _rows(table: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    return table.take(rows).reset_index(drop=True)


def _parse(content: bytes, file: _File) -> pd.DataFrame:
    """The file as a table, its labels as columns of 0 and 1 beside the raw ones."""
    columns = (*NOMINAL, "income_50k") if file.has_header else COLUMNS
    try:
        table = pd.read_csv(
            io.BytesIO(content),
            header=0 if file.has_header else None,
            names=list(columns),
            index_col=False,
            dtype={c: "float64" if c in CONTINUOUS or c == "instance_weight" else "category" for c in columns},
            keep_default_na=False,
            na_values=[],
            skipinitialspace=True,
        )
    except ValueError as error:
        raise ValueError(
            f"`{file.name}` must have the {len(columns)} comma-separated columns of the official file. "
            f"Received: a file that does not parse ({error})"
        ) from error
    # Some values end in a space. Stripping the few categories is stripping every cell.
    for c in columns:
        if isinstance(table[c].dtype, pd.CategoricalDtype):
            stripped = [str(value).strip() for value in table[c].cat.categories]
            values, places = np.unique(np.array(stripped, dtype=object), return_inverse=True)
            table[c] = pd.Categorical.from_codes(places[table[c].cat.codes.to_numpy()], pd.Index(values))
    odd = sorted(set(table["income_50k"].cat.categories) - set(INCOMES))
    if odd:
        raise ValueError(
            f"`income_50k` must be one of the official values. Received {len(odd)} others: {check.sample_values(odd)}. "
            f"Expected: {', '.join(map(repr, INCOMES))}"
        )
    labels = {
        "income": table["income_50k"] == INCOMES[1],
        "never_married": table["marital_stat"] == "Never married",
        "college": table["education"].isin(COLLEGE),
    }
    return table.assign(**{name: label.astype("float32") for name, label in labels.items()})
