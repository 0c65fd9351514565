"""The cost model of training on a network, on cases computed by hand."""

import itertools
from pathlib import Path

import pytest

from benchmarks.studies._traffic import (
    Network,
    StepSizes,
    all_reduce_bytes,
    all_reduce_seconds,
    collectives,
    parameter_server_bytes,
    parameter_server_rates,
    tables_on_paper,
)


def test_a_ring_of_four():
    sizes = StepSizes(dense=1000, ids=30, width=16, tasks=2, metrics=10)
    assert all_reduce_bytes(sizes, 4) == {
        "dense": 6000.0,  # 2 x 3/4 of 4,000 bytes
        "sparse": 6132.0,  # to three others, 30 rows of 64 bytes with ids of 4, and their number
        "balancing": 0.0,
        "metrics": 60.0,  # 2 x 3/4 x 40
        "scalars": 18.0,  # 2 x 3/4 x 12
    }


def test_duplicates_are_not_sent():
    sizes = StepSizes(dense=1000, ids=30, unique=20, width=16)
    assert all_reduce_bytes(sizes, 4)["sparse"] == 3 * (20 * 68 + 4)


def test_one_worker_sends_nothing():
    assert set(all_reduce_bytes(StepSizes(dense=1000, ids=30, width=16, metrics=10), 1).values()) == {0.0}


def test_dense_gradients_stay_below_twice_their_size_and_rows_grow_with_the_workers():
    sizes = StepSizes(dense=1000, ids=30, width=16)
    few, many = all_reduce_bytes(sizes, 8), all_reduce_bytes(sizes, 512)
    assert many["dense"] < 8000 and many["dense"] / few["dense"] < 1.15
    assert many["sparse"] / few["sparse"] == 511 / 7


def test_a_method_of_gradients_sends_those_of_every_task():
    plain = StepSizes(dense=1000, ids=30, width=16, tasks=3, shared=600)
    by_task = StepSizes(dense=1000, ids=30, width=16, tasks=3, shared=600, by_task=True)
    weighed = StepSizes(dense=1000, ids=30, width=16, tasks=3, shared=600, weighed=True)
    assert all_reduce_bytes(plain, 2)["balancing"] == 0
    assert all_reduce_bytes(by_task, 2)["balancing"] == 4 * (3 * 600 + 3)  # a ring of two sends all of it once
    assert all_reduce_bytes(weighed, 2)["balancing"] == 4 * 3
    assert [collectives(sizes) for sizes in (plain, weighed, by_task)] == [9, 10, 11]


def test_gradients_that_add_up_are_sent_every_so_many_steps():
    sizes = StepSizes(dense=1000, ids=0, width=16, every=4, metrics=10)
    sent = all_reduce_bytes(sizes, 2)
    assert (sent["dense"], sent["sparse"], sent["metrics"]) == (1000.0, 0.0, 40.0)


def test_seconds_are_bytes_over_the_link_and_hops():
    sizes = StepSizes(dense=1_000_000, ids=0, width=1, tasks=0)
    sent = 6_000_000 + 6  # of the ring of four; the loss of the logs
    assert all_reduce_seconds(sizes, 4, Network(gbits=8)) == pytest.approx(sent / 1e9)
    # Three operations, of six hops each.
    with_hops = all_reduce_seconds(sizes, 4, Network(gbits=8, latency=1e-4))
    assert collectives(sizes) == 3 and with_hops - sent / 1e9 == pytest.approx(18e-4)


def test_a_worker_of_parameter_servers():
    sizes = StepSizes(dense=1000, ids=30, width=16, inputs=50, unique=20, metrics=10)
    assert parameter_server_bytes(sizes) == {
        "rows": 2040.0,
        "gradients": 1360.0,
        "weights": 8000.0,
        "batch": 200.0,
        "metrics": 80.0,
    }
    assert parameter_server_bytes(StepSizes(dense=0, ids=30, width=16))["gradients"] == 2040.0


def test_what_bounds_parameter_servers():
    sizes = StepSizes(dense=1000, ids=30, width=16, inputs=50, unique=20)
    network = Network(gbits=8e-6)  # 1,000 bytes a second
    rates = parameter_server_rates(sizes, 10, 2, compute=0.4, network=network)
    assert rates["workers"] == pytest.approx(10 / (0.4 + 11.6))
    assert rates["servers"] == pytest.approx(2 * 1000 / 5920)  # 1,920 of rows and 4,000 of weights leave the servers
    assert rates["chief"] == 5.0
    assert parameter_server_rates(sizes, 1000, 2, compute=0.4, network=network)["chief"] == 5.0


def test_the_page_shows_what_the_model_says():
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "scaling.md").read_text(encoding="utf-8")
    for line in itertools.chain(*tables_on_paper()):
        assert line in page
