"""The queue: what is there is scored together, it is bounded, deadlines hold, and whoever leaves frees the place."""

import asyncio
import contextlib

import numpy as np
import pytest
from service_case import COLUMNS, Sums, row, run

from mtl_zoo.service import Settings
from mtl_zoo.service.batching import Batcher
from mtl_zoo.service.body import Disconnected
from mtl_zoo.service.columns import read_rows
from mtl_zoo.service.errors import RequestError
from mtl_zoo.service.metrics import Metrics


@contextlib.asynccontextmanager
async def batching(**settings):
    batcher = Batcher(Settings(**settings), Metrics())
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


def rows_of(*rows):
    return read_rows({"instances": list(rows)}, COLUMNS, 10_000, 10**6)


def submit(batcher, servable, rows, seconds=5.0, gone=None):
    """A task that waits for the scores, or for the refusal."""
    loop = asyncio.get_running_loop()
    gone = loop.create_future() if gone is None else gone
    return loop.create_task(batcher.submit(servable, rows, loop.time() + seconds, gone))


async def held(batcher, servable, seconds=5.0):
    """The model's thread is busy with one row until `servable.may_go`."""
    servable.may_go.clear()
    task = submit(batcher, servable, rows_of(row()), seconds)
    while batcher.waiting or batcher._running_since is None:
        await asyncio.sleep(0.001)
    return task


def test_what_waits_is_scored_together_and_each_gets_its_own():
    async def check():
        servable = Sums()
        async with batching() as batcher:
            first = await held(batcher, servable)
            parts = [rows_of(*[row(number=10 * n, tags=[1] * n)] * n) for n in (1, 2, 3)]
            tasks = [submit(batcher, servable, part) for part in parts]
            await asyncio.sleep(0.01)
            servable.may_go.set()
            assert (await first)["sum"].tolist() == [[4.0]]
            for n, task in zip((1, 2, 3), tasks, strict=True):
                scores = await task
                assert scores["sum"].tolist() == [[10 * n + 2 + n]] * n and scores["twice"].shape == (n, 2)
            assert servable.calls == [1, 6]

    run(check())


def test_one_alone_is_not_kept_waiting():
    async def check():
        servable = Sums()
        async with batching() as batcher:
            await submit(batcher, servable, rows_of(row()))
            assert servable.calls == [1]
        assert not batcher.is_stalled, "it has ended, and was not lost"

    run(check())


@pytest.mark.parametrize(
    "settings, sizes, calls",
    [
        ({"batch_rows": 4}, (2, 2, 2), [1, 4, 2]),
        ({"batch_rows": 4}, (5, 1), [1, 5, 1]),
        ({"max_values": 8}, (1, 1, 1), [1, 2, 1]),
    ],
)
def test_batches_are_bounded(settings, sizes, calls):
    async def check():
        servable = Sums()
        async with batching(**settings) as batcher:
            first = await held(batcher, servable)
            tasks = [submit(batcher, servable, rows_of(*[row()] * size)) for size in sizes]
            await asyncio.sleep(0.01)
            servable.may_go.set()
            await asyncio.gather(first, *tasks)
            assert servable.calls == calls

    run(check())


def test_a_wide_row_is_not_put_beside_many():
    async def check():
        servable = Sums()
        async with batching(max_values=1000) as batcher:
            first = await held(batcher, servable)
            # Each fits; together 51 rows would be padded to 103 values.
            tasks = [submit(batcher, servable, part) for part in (rows_of(*[row()] * 50), rows_of(row(tags=[1] * 100)))]
            await asyncio.sleep(0.01)
            servable.may_go.set()
            await asyncio.gather(first, *tasks)
            assert servable.calls == [1, 50, 1]

    run(check())


def test_other_versions_have_calls_of_their_own():
    async def check():
        old, new = Sums(), Sums(plus=100)
        async with batching() as batcher:
            first = await held(batcher, old)
            tasks = [submit(batcher, servable, rows_of(row())) for servable in (old, old, new, new)]
            await asyncio.sleep(0.01)
            old.may_go.set()
            await first
            assert [(await task)["sum"].item() for task in tasks] == [4, 4, 104, 104]
            assert old.calls == [1, 2] and new.calls == [2]

    run(check())


@pytest.mark.parametrize("settings", [{"queue_requests": 2}, {"queue_values": 8}])
def test_a_full_queue_refuses(settings):
    async def check():
        servable = Sums()
        async with batching(**settings) as batcher:
            first = await held(batcher, servable)
            tasks = [submit(batcher, servable, rows_of(row())) for _ in range(2)]
            await asyncio.sleep(0.01)
            with pytest.raises(RequestError, match="As many requests wait") as caught:
                await submit(batcher, servable, rows_of(row()))
            assert caught.value.status == 429 and caught.value.headers == {"Retry-After": "1"}
            servable.may_go.set()
            await asyncio.gather(first, *tasks)

    run(check())


def test_deadlines_hold_whatever_the_model_does_and_places_are_freed():
    async def check():
        servable = Sums()
        async with batching(stall=0.01) as batcher:
            tasks = [await held(batcher, servable, 0.1)]
            tasks += [submit(batcher, servable, rows_of(row()), seconds=0.1) for _ in range(2)]
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert [error.status for error in found] == [504] * 3
            assert batcher.waiting == 0 and batcher.is_stalled
            servable.may_go.set()
            await submit(batcher, servable, rows_of(row()))
            assert not batcher.is_stalled
            assert servable.calls == [1, 1], "what waited behind is not scored for nobody"

    run(check())


def test_whoever_leaves_frees_the_place():
    async def check():
        servable = Sums()
        async with batching(queue_requests=1) as batcher:
            first = await held(batcher, servable)
            gone = asyncio.get_running_loop().create_future()
            leaves = submit(batcher, servable, rows_of(row()), gone=gone)
            await asyncio.sleep(0.01)
            assert batcher.waiting == 1
            gone.set_result(None)
            with pytest.raises(Disconnected):
                await leaves
            assert batcher.waiting == 0
            cancelled = submit(batcher, servable, rows_of(row()))
            await asyncio.sleep(0.01)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            assert batcher.waiting == 0
            servable.may_go.set()
            await first
            assert servable.calls == [1]

    run(check())


def test_one_that_fails_does_not_take_others_with_it():
    async def check():
        servable = Sums()
        async with batching() as batcher:
            first = await held(batcher, servable)
            places = (1, 666, 2)
            tasks = [submit(batcher, servable, rows_of(row(place=place))) for place in places]
            await asyncio.sleep(0.01)
            servable.may_go.set()
            await first
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(found[1], RuntimeError)
            assert found[0]["sum"].item() == found[2]["sum"].item() == 4
            assert servable.calls == [1, 3, 1, 1, 1]

    run(check())


@pytest.mark.tensorflow
def test_what_the_graph_refuses_is_the_clients():
    import tensorflow as tf

    class Table(Sums):
        def score(self, arrays):
            return {"sum": tf.gather(tf.zeros((4, 1)), arrays["place"]).numpy()}

    async def check():
        async with batching() as batcher:
            with pytest.raises(RequestError, match="The model's graph refuses a value") as caught:
                await submit(batcher, Table(), rows_of(row(place=9)))
            assert caught.value.status == 400

    run(check())


def test_a_model_that_loses_rows_is_an_error():
    class Short(Sums):
        def score(self, arrays):
            return {"sum": np.zeros((1, 1), "float32")}

    async def check():
        async with batching() as batcher:
            with pytest.raises(RuntimeError, match="another number of scores"):
                await submit(batcher, Short(), rows_of(row(), row()))

    run(check())
