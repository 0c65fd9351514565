"""What waits for the model: a bounded queue, whose requests are scored together as far as they are there.

Nothing waits for more requests to come: while the model runs, others arrive, and the next call takes those.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

from mtl_zoo.service.body import Disconnected
from mtl_zoo.service.columns import Rows, merged, merged_values
from mtl_zoo.service.errors import RequestError, bad_input, busy
from mtl_zoo.service.metrics import Metrics
from mtl_zoo.service.servables import Servable
from mtl_zoo.service.settings import Settings


@dataclasses.dataclass(eq=False)
class Job:
    """A request that waits, or is worked on.

    Args:
        servable: Whose turn it is.
        work: Rows to score, or what the servable's `recommend` is asked.
        answer: Where the result goes.
        deadline: Of the loop's clock.
    """

    servable: Servable
    work: Any
    answer: asyncio.Future[Any]
    deadline: float

    @property
    def values(self) -> int:
        return self.work.values if isinstance(self.work, Rows) else 1


class Batcher:
    """The queue, and the one thread that calls models.

    Args:
        settings: Limits.
        metrics: Told what happens.
    """

    def __init__(self, settings: Settings, metrics: Metrics):
        self._settings, self._metrics = settings, metrics
        self._waiting: collections.deque[Job] = collections.deque()
        self._wake = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._running_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Ends; what still waits is not answered."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def is_stalled(self) -> bool:
        """Whether a call of the model has not ended for too long, or nobody works any more."""
        if self._task is not None and self._task.done():
            return True
        since = self._running_since
        return since is not None and time.monotonic() - since > self._settings.stall

    async def submit(self, servable: Servable, work: Any, deadline: float, gone: asyncio.Future[Any]) -> Any:
        """Scores, or recommendations, once it is their turn.

        Args:
            servable: A loaded version.
            work: See `Job`.
            deadline: Of the loop's clock.
            gone: Done when the client is gone.

        Raises:
            RequestError: 429: the queue is full. 504: the deadline passed. 400: the model refuses the rows.
            Disconnected: The client is gone.
        """
        job = Job(servable, work, asyncio.get_running_loop().create_future(), deadline)
        held = sum(waiting.values for waiting in self._waiting)
        full = len(self._waiting) >= self._settings.queue_requests or (
            held > 0 and held + job.values > self._settings.queue_values
        )
        if full:
            raise busy(429, "As many requests wait as may. Try again.", "queue_full")
        self._waiting.append(job)
        self._wake.set()
        try:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait((job.answer, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if job.answer.done():
                return job.answer.result()
            if gone.done():
                raise Disconnected
            raise RequestError(504, "The deadline passed before the answer was there.", "deadline")
        finally:
            job.answer.cancel()  # of no use any more; done already, if there was an answer
            if job in self._waiting:
                self._waiting.remove(job)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            jobs = self._take(loop.time())
            if not jobs:
                self._wake.clear()
                continue
            self._running_since = started = time.monotonic()
            results = await loop.run_in_executor(self._thread, answers, jobs)
            self._running_since = None
            self._metrics.batch(jobs, time.monotonic() - started)
            for job, result in zip(jobs, results, strict=True):
                if job.answer.done():
                    continue  # nobody waits any more
                if isinstance(result, BaseException):
                    job.answer.set_exception(result)
                else:
                    job.answer.set_result(result)

    def _take(self, now: float) -> list[Job]:
        """The first that waits and, of those right behind it, what can be scored with it."""
        jobs: list[Job] = []
        rows = 0
        while self._waiting:
            job = self._waiting[0]
            if job.answer.done() or job.deadline <= now:
                self._waiting.popleft()
                continue
            if jobs and not self._fits(jobs, job, rows):
                break
            jobs.append(self._waiting.popleft())
            if not isinstance(job.work, Rows):
                break
            rows += job.work.count
        return jobs

    def _fits(self, jobs: Sequence[Job], job: Job, rows: int) -> bool:
        if not isinstance(job.work, Rows) or job.servable is not jobs[0].servable:
            return False
        if rows + job.work.count > self._settings.batch_rows:
            return False
        parts = [other.work.arrays for other in (*jobs, job) if isinstance(other.work, Rows)]
        return merged_values(parts) <= self._settings.max_values


def answers(jobs: Sequence[Job]) -> list[Any]:
    """A result, or an exception, for each of the jobs, which are scored together; called in the model's thread."""
    try:
        return _answers(jobs)
    except Exception as error:
        if len(jobs) == 1:
            return [_refusal(error, jobs[0])]
    # One of them has spoilt it for the others.
    return [answers([job])[0] for job in jobs]


def _answers(jobs: Sequence[Job]) -> list[Any]:
    first = jobs[0]
    if not isinstance(first.work, Rows):
        return [first.servable.recommend(first.work, first.answer.done)]
    parts = [job.work for job in jobs if isinstance(job.work, Rows)]
    scores = first.servable.score(merged([part.arrays for part in parts], first.servable.columns))
    ends = list(itertools.accumulate(part.count for part in parts))
    if any(len(values) != ends[-1] for values in scores.values()):
        raise RuntimeError("a model gave another number of scores than it was given rows")
    starts = [0, *ends[:-1]]
    return [
        {name: values[start:end] for name, values in scores.items()} for start, end in zip(starts, ends, strict=True)
    ]


def _refusal(error: Exception, job: Job) -> Exception:
    """What the client is told: of what the model finds wrong with its input, that; of all else, nothing."""
    import tensorflow as tf

    if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError):
        return busy(503, "There was not enough memory for this request.", "memory")
    if isinstance(error, tf.errors.InvalidArgumentError):
        # Its message is long, and tells of nodes and files.
        return bad_input("The model's graph refuses a value of these rows, such as an id that its table lacks.")
    if isinstance(error, ValueError) and not isinstance(job.work, Rows):
        return bad_input(str(error)[:1000])  # rows were checked before; what is recommended for is checked there
    return error
