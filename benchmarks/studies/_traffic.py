"""What a step of training sends over a network, on paper: bytes, and the time that they take.

`communication` measures the same on this machine.
"""

from __future__ import annotations

import dataclasses

_FLOAT, _ID = 4, 4


@dataclasses.dataclass(frozen=True)
class StepSizes:
    """What a step of one worker holds, in numbers (floats or ids), not in bytes.

    Args:
        dense: Parameters outside of tables.
        ids: Ids that a worker's batch reads of tables: rows x features, each as often as it is read.
        width: Width of an embedding.
        tasks: Losses.
        shared: Dense parameters that several losses share. Default: 0.
        by_task: Whether a balancing method needs the gradients of each task on the shared dense parameters.
        weighed: Whether a balancing method needs the losses of the global batch.
        metrics: Numbers in the metrics' variables.
        inputs: Numbers of the worker's batch: ids, numeric features and labels.
        unique: Different ids among `ids`; of workers that differ, the largest number. Default: all of them differ.
        every: Steps from one update to the next: gradients that add up are reduced then, and not before.
    """

    dense: int
    ids: int
    width: int
    tasks: int = 1
    shared: int = 0
    by_task: bool = False
    weighed: bool = False
    metrics: int = 0
    inputs: int = 0
    unique: int | None = None
    every: int = 1

    @property
    def rows(self) -> int:
        """Rows of a table's gradient, duplicates summed."""
        return self.ids if self.unique is None else self.unique


def all_reduce_bytes(sizes: StepSizes, workers: int) -> dict[str, float]:
    """Bytes that each of the workers sends in a synchronous step, one step an execution, by what they are of.

    With W workers, a ring sends 2 (W - 1) / W times what it sums up, and W - 1 times what it gathers:

        dense      2 (W - 1) / W x 4 dense
        sparse     (W - 1) x unique x (4 width + 4) + (W - 1) x 4     rows, their ids, and how many there are
        balancing  2 (W - 1) / W x 4 (tasks x shared + tasks)         gradients of each task; losses
        metrics    2 (W - 1) / W x 4 metrics
        scalars    2 (W - 1) / W x 4 (tasks + 1)                      observed rows of each loss, the loss of the logs

    The row-wise optimizers sum a worker's duplicates before they are sent; Keras' own send a row as often as the batch
    reads it, so all ids count. The size of a table is in none of them. (Where an optimizer adds gradients up over
    steps, a table's are dense: count its parameters in `dense`, and no ids.) The first two are divided by `every`.
    """
    ring = 2 * (workers - 1) / workers * _FLOAT
    gathered = sizes.rows * (_FLOAT * sizes.width + _ID) + _ID if sizes.ids else 0
    by_task = sizes.tasks * sizes.shared if sizes.by_task else 0
    losses = sizes.tasks if sizes.by_task or sizes.weighed else 0
    return {
        "dense": ring * sizes.dense / sizes.every,
        "sparse": (workers - 1) * gathered / sizes.every,
        "balancing": ring * (by_task + losses),
        "metrics": ring * sizes.metrics,
        "scalars": ring * (sizes.tasks + 1),
    }


def collectives(sizes: StepSizes) -> int:
    """How many operations of a synchronous step make the workers wait for one another, for one fused table.

    One for the dense gradients; three for rows, their ids and how many there are; one for the metrics; one for the
    observed rows of each loss, and one for the loss of the logs; for a balancing method one for the losses, and one for
    the gradients of all tasks.
    """
    balancing = 2 if sizes.by_task else int(sizes.weighed)
    return 1 + (3 if sizes.ids else 0) + 1 + sizes.tasks + 1 + balancing


def parameter_server_bytes(sizes: StepSizes) -> dict[str, float]:
    """Bytes between one worker and all others in an asynchronous step, in both directions, by what they are of.

        rows       ids x (4 + 4 width)          ids that are asked for, and rows that come
        gradients  unique x (4 + 4 width)       rows that are sent back, duplicates summed
        weights    2 x 4 dense                  weights that come, gradients that are sent back
        batch      4 inputs                     from the chief
        metrics    8 metrics                    to the chief, in double precision

    Balancing costs nothing here: a worker has the gradients of its own batch. None of it depends on the number of
    workers; but all of the chief's part, and of the servers', comes from each of them.
    """
    row = _ID + _FLOAT * sizes.width
    return {
        "rows": float(sizes.ids * row),
        "gradients": float(sizes.rows * row),
        "weights": float(2 * _FLOAT * sizes.dense),
        "batch": float(_FLOAT * sizes.inputs),
        "metrics": float(2 * _FLOAT * sizes.metrics),
    }


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in which every machine has one link.

    Args:
        gbits: Gbit/s of a link, in each direction.
        latency: Seconds from one machine to the next.
    """

    gbits: float
    latency: float = 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.gbits * 1e9 / 8


def all_reduce_seconds(sizes: StepSizes, workers: int, network: Network) -> float:
    """How long the network takes for a synchronous step: bytes over its speed, and the hops of its `collectives`.

    A ring has 2 (W - 1) hops for a sum, and a gather is counted like one. Nothing is taken to overlap: gradients are
    reduced when all of them are known, one operation after the other.
    """
    hops = 2 * (workers - 1) * collectives(sizes)
    return sum(all_reduce_bytes(sizes, workers).values()) / network.bytes_per_second + hops * network.latency


def parameter_server_rates(
    sizes: StepSizes, workers: int, servers: int, compute: float, network: Network
) -> dict[str, float]:
    """Steps a second of all workers together that each part of a cluster of parameter servers allows.

    The least of them counts:

        workers   W / (compute + bytes of a worker / speed)      a worker waits for what it asks for
        servers   S x speed / bytes of a worker's step with them, the larger direction
        chief     speed / bytes of a batch
    """
    parts, speed = parameter_server_bytes(sizes), network.bytes_per_second
    # A link works in both directions at once, but a worker pulls before it pushes.
    pulled = sizes.ids * _FLOAT * sizes.width + parts["weights"] / 2
    pushed = sizes.ids * _ID + parts["gradients"] + parts["weights"] / 2
    return {
        "workers": workers / (compute + sum(parts.values()) / speed),
        "servers": servers * speed / max(pulled, pushed, 1.0),
        "chief": speed / max(parts["batch"], 1.0),
    }


# MMoE, 8 experts (128, 64), towers (32,), 2 tasks, no metrics; 30 categorical features x 16, 10 numerics, batch 1,024.
# Of 1,024 ids that are drawn evenly from 10,000, 973 differ.
STANDARD = StepSizes(
    dense=580_898,
    ids=30 * 1024,
    unique=30 * 973,
    width=16,
    tasks=2,
    shared=568_832,
    metrics=6,
    inputs=1024 * (30 + 10 + 2),
)
# Its step on one worker, from benchmarks/results/speed/vocabulary.csv (10,000 ids a feature, two cores).
STANDARD_SECONDS = 0.0204
# Seconds of a hop: taken, not measured.
_LATENCY = 5e-5
_SPEEDS, _WORKERS, _WORKERS_A_SERVER = (10, 25, 100), (8, 64, 512), 4


def tables_on_paper() -> tuple[list[str], list[str]]:
    """The standard case on 8, 64 and 512 workers: Markdown lines for all-reduce, and for parameter servers."""
    reduced, served = [], []
    for workers in _WORKERS:
        sent = sum(all_reduce_bytes(STANDARD, workers).values()) / 1e6
        cells, rates = [], []
        for gbits in _SPEEDS:
            network = Network(gbits, _LATENCY)
            seconds = all_reduce_seconds(STANDARD, workers, network)
            cells.append(f"{1000 * seconds:.0f} ms, {100 * STANDARD_SECONDS / (STANDARD_SECONDS + seconds):.0f} %")
            found = parameter_server_rates(STANDARD, workers, workers // _WORKERS_A_SERVER, STANDARD_SECONDS, network)
            least = min(found, key=lambda part: found[part])
            rates.append(f"{100 * found[least] * STANDARD_SECONDS / workers:.0f} %, {least}")
        reduced.append(f"| {workers} | {sent:.1f} | {' | '.join(cells)} |")
        served.append(f"| {workers} | {workers // _WORKERS_A_SERVER} | {' | '.join(rates)} |")
    return reduced, served
