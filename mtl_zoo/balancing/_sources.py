"""What gradients are taken of in a step of ours, and how they become gradients of weights. TensorFlow only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtl_zoo import _backend


@dataclasses.dataclass(frozen=True)
class Sources:
    """Dense weights, and in place of tables the rows that the batch read of them: no table's gradient becomes dense.

    Their indices count the dense weights first, then the reads, of which a table may have several.

    Args:
        variables: The model's trainable weights.
        dense: Those that were not read by row.
        reads: The reads of tables, each a `Read`.
    """

    variables: Sequence[Any]
    dense: Sequence[Any]
    reads: Sequence[Any]

    @classmethod
    def of(cls, variables: Sequence[Any], reads: Sequence[Any]) -> Sources:
        """Those of a model's trainable weights, after a forward pass that recorded its reads."""
        known = {id(v) for v in variables}
        reads = [read for read in reads if id(read.variable) in known]
        tables = {id(read.variable) for read in reads}
        return cls(variables, [v for v in variables if id(v) not in tables], reads)

    @property
    def tensors(self) -> list:
        return [v.value for v in self.dense] + [read.rows for read in self.reads]

    def is_read(self, index: int) -> bool:
        return index >= len(self.dense)

    def sizes(self, indices: Sequence[int]) -> tuple[int, ...]:
        """How many parameters these dense weights have."""
        return tuple(int(self.dense[i].value.shape.num_elements()) for i in indices)

    def gradients(self, tape: Any, loss: Any) -> list:
        """Of one loss, for all sources; None where it does not depend on one."""
        return gradients(tape, loss, self.tensors)

    def reads_of_tables(self, indices: Sequence[int]) -> list[list[int]]:
        """The indices that are reads, those of one table together."""
        by_table: dict[int, list[int]] = {}
        for index in indices:
            if self.is_read(index):
                by_table.setdefault(id(self.read(index).variable), []).append(index)
        return list(by_table.values())

    def read(self, index: int) -> Any:
        return self.reads[index - len(self.dense)]

    def of_variables(self, found: Sequence[Any]) -> list:
        """Gradients by source as gradients of the variables, those of tables sparse; None where there is none."""
        import tensorflow as tf

        by_variable = {id(v): gradient for v, gradient in zip(self.dense, found, strict=False)}
        for indices in self.reads_of_tables([i for i, gradient in enumerate(found) if gradient is not None]):
            table = self.read(indices[0]).variable
            rows = tf.concat([tf.reshape(found[i], [-1, table.shape[1]]) for i in indices], 0)
            ids = tf.concat([tf.reshape(self.read(i).ids, [-1]) for i in indices], 0)
            by_variable[id(table)] = tf.IndexedSlices(rows, ids, tf.constant(list(table.shape)))
        return [by_variable.get(id(v)) for v in self.variables]

    def gram_of_tables(self, per_task: Sequence[Sequence[Any]], indices: Sequence[int], scale: Any) -> Any:
        """Products of the tasks' gradients over the rows that the global batch touched of shared tables.

        A row that was read more than once counts with its summed gradient, on whichever replicas it was.
        """
        import tensorflow as tf

        gram = tf.zeros([len(per_task)] * 2)
        for reads in self.reads_of_tables(indices):
            width = self.read(reads[0]).variable.shape[1]
            ids = tf.concat([tf.reshape(self.read(i).ids, [-1]) for i in reads], 0)
            rows = [
                tf.concat([self._rows_of(found[i], self.read(i), width) for i in reads], 0) / scale
                for found in per_task
            ]
            ids, together = _backend.gather_replicas(ids), _backend.gather_replicas(tf.concat(rows, 1))
            distinct, position = tf.unique(ids)
            sums = tf.math.unsorted_segment_sum(together, position, tf.size(distinct))
            by_task = tf.reshape(tf.transpose(tf.reshape(sums, [-1, len(per_task), width]), [1, 0, 2]), [len(rows), -1])
            gram += tf.linalg.matmul(by_task, by_task, transpose_b=True)
        return gram

    @staticmethod
    def _rows_of(gradient: Any, read: Any, width: int) -> Any:
        import tensorflow as tf

        gradient = tf.zeros_like(read.rows) if gradient is None else gradient
        return tf.reshape(tf.cast(gradient, tf.float32), [-1, width])


def gradients(tape: Any, targets: Any, tensors: Sequence[Any], output_gradients: Any = None) -> list:
    """What `tape.gradient` gives, dense; None where there is none."""
    import tensorflow as tf

    found = tape.gradient(targets, list(tensors), output_gradients=output_gradients)
    # A user's encoder may hold an Embedding of Keras, whose gradient is sparse; it is one weight among others here.
    return [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in found]


def add(*values: Any) -> Any:
    """The sum of what is not None; None of nothing."""
    there = [value for value in values if value is not None]
    return sum(there[1:], there[0]) if there else None
