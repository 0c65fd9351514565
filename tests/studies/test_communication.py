"""Bytes of a training step, counted on the loopback interface and read off a model."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.studies._steps import Case
from benchmarks.studies.communication import (
    Exchange,
    all_cases,
    different_ids,
    markdown_lines,
    measure,
    sent_bytes,
    step_sizes,
)

pytestmark = pytest.mark.tensorflow

UNITS = {"bottom_units": [8], "tower_units": [5]}
SMALL = Case("shared_bottom", 50, batch=64, features=3, numerics=2, dim=4, hyperparameters=UNITS)


def sizes_of(case):
    speed = case.case
    model = speed.create()
    model.compile(speed.optimizer, balancing=case.balancing or None, metrics="auto" if case.metrics else None)
    return step_sizes(model, case)


BOTTOM = 14 * 8 + 8  # 3 embeddings x 4 and 2 numeric features, to 8 units
TOWER = 8 * 5 + 5 + 5 + 1


def test_sizes_are_read_off_the_model():
    plain = sizes_of(Exchange("standard", SMALL))
    assert plain.dense == BOTTOM + 2 * TOWER
    assert plain.rows == different_ids(SMALL, workers=1) < 64 * 3
    assert (plain.ids, plain.width, plain.tasks, plain.inputs) == (64 * 3, 4, 2, 64 * 7)
    assert not plain.by_task and not plain.weighed and plain.every == 1
    assert sizes_of(Exchange("metrics", SMALL, metrics=True)).metrics > plain.metrics
    weighed = sizes_of(Exchange("balancing", SMALL, "famo"))
    assert weighed.weighed and not weighed.by_task


def test_rows_that_are_sent_are_those_of_the_worker_with_the_most_different_ids():
    def different(seed):
        columns, _ = SMALL.draw(64, seed)
        return sum(len(set(columns[f"id_{i}"].tolist())) for i in range(3))

    found = [different(seed) for seed in range(8)]
    assert different_ids(SMALL, workers=2) == round(sum(max(found[i : i + 2]) for i in range(0, 8, 2)) / 4)


def test_the_optimizers_of_keras_send_duplicates():
    assert sizes_of(Exchange("vocabulary", dataclasses.replace(SMALL, optimizer="adam"))).rows == 64 * 3


def test_a_method_of_gradients_shares_what_both_tasks_depend_on():
    sizes = sizes_of(Exchange("balancing", SMALL, "pcgrad"))
    assert sizes.by_task and sizes.shared == BOTTOM


def test_a_method_of_the_representation_is_no_part_of_the_model():
    with pytest.raises(ValueError, match="`balancing` must be a method of losses.*Received: balancing='mgda_ub'"):
        sizes_of(Exchange("balancing", SMALL, "mgda_ub"))


def test_gradients_that_add_up_are_as_large_as_the_table():
    sizes = sizes_of(Exchange("accumulate", SMALL, accumulate=2))
    # Padding and out of vocabulary are rows too.
    assert sizes.dense == BOTTOM + 2 * TOWER + 3 * 52 * 4
    assert (sizes.ids, sizes.every) == (0, 2)


def test_the_standard_case_is_the_only_one_that_changes_nothing():
    standard, *others = all_cases()
    for case in others:
        assert dataclasses.replace(case, varies=standard.varies, times=True) != standard, case


def test_an_interface_that_is_not_there():
    assert sent_bytes("lo") >= 0
    with pytest.raises(ValueError, match="`interface` must be one of this machine. Received: interface='nowhere'"):
        sent_bytes("nowhere")


def kept_rows():
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "scale" / "communication.csv"
    return pd.read_csv(path, keep_default_na=False)


def test_the_page_shows_the_rows_that_are_kept():
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "scaling.md").read_text(encoding="utf-8")
    lines = markdown_lines(kept_rows())
    assert len(lines) > 0
    for line in lines:
        assert line in page


def test_every_kept_row_is_near_the_model():
    rows = kept_rows()
    assert set(rows["dirty"].astype(str)) == {"False"}
    assert (rows["ratio"] - 1).abs().max() < 0.05


@pytest.mark.slow
def test_two_workers_send_what_the_model_says(tmp_path):
    cases = [
        Exchange("standard", dataclasses.replace(SMALL, batch=1024, vocabulary=ids), times=ids == 50)
        for ids in (50, 20_000)
    ]
    table = measure([2], cases, tmp_path / "rows.csv", steps=4, rounds=1)
    assert list(table.columns[:-1]) == list(kept_rows().columns)  # and the error
    small, large = table.to_dict("records")
    # Other traffic may use the interface too, so there is no upper bound.
    assert small["ratio"] > 0.98 and large["ratio"] > 0.98
    assert 50 * 3 >= small["rows"] > 0.9 * 50 * 3 and large["rows"] > 0.9 * 1024 * 3  # summed, duplicates are not sent
    assert float(small["together_ms"]) > 0 and large["together_ms"] == ""
