from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo import _validation as check
from mtl_zoo._files import name_within
from mtl_zoo.features import _graph
from mtl_zoo.features._columns import Column, read_table
from mtl_zoo.features._id_feature import IdFeature
from mtl_zoo.features._states import ColumnType, Unseen, unseen_of
from mtl_zoo.features.base import Feature, register_feature
from mtl_zoo.features.requests import MISSING_ID, UNKNOWN_ID, Encoder, InputSpec, Rows
from mtl_zoo.features.vocabularies import Vocabulary

# What follows from the feature whose ids it reads.
_BORROWED = ("dim", "vocabulary", "size", "hash_buckets", "min_count", "max_ids", "trainable")
_POOLINGS = ("mean", "weighted", "lightgcn", "attention", None)
_DEFAULT_DIM = 16


@register_feature("neighbours")
@dataclasses.dataclass(frozen=True)
class Neighbours(IdFeature):
    """The neighbours of an id in a graph: a user's friends, items that were bought together.

    For the id in a row, the rows of its neighbours in the embedding table of the feature `of`, pooled to one vector.
    The table is shared, so a neighbour's row learns from the neighbour's own rows of the training table, too.

    With `N(u)` the neighbours of `u`, at most `length` of them, `w` the weights of edges and `E` the shared table:

        mean:      (1 / |N(u)|) sum_{v in N(u)} E_v
        weighted:  sum_{v in N(u)} w_uv E_v / sum_{v in N(u)} w_uv
        attention: sum_{v in N(u)} softmax_v(a^T relu(B [E_v ; E_u] + c)) E_v
        lightgcn:  row u of (1 / (K + 1)) sum_{k=0..K} A^k E,   A_uv = w_uv / sqrt(s_u s_v),   s_u = sum_v w_uv

    LightGCN has no weights of its own, so all its layers are one weighted sum, whose weights are worked out in `fit`.
    It is exact where `length` is as large as the largest number of nodes within `K` edges, the node itself included; of
    others the `length` largest weights are kept, and the log says which share of all weight that is. With directed
    edges, `s_u` is over the edges that leave `u` and `s_v` over those that reach `v`.

    An edge that comes several times counts once, with the largest of its weights; one from a node to itself is left
    out. A node that the vocabulary of `of` lacks, such as a user without a row in the training table, is no one's
    neighbour, and has neighbours itself if it has edges. An id that has neither is reported in `unseen`. Whoever has no
    neighbours gets zeros. Edges that tell of the labels (friends that were made through what is predicted, purchases of
    the test period) are a leak: leave out those that are not known when the model predicts.

    Args:
        name: Names the feature and the model's input, an int32 tensor of shape (batch, length), or (batch, 1 +
            length) with the id itself in front for `"attention"`. With weights there is a second one,
            `<name>.weights`, float32 of the same shape.
        of: The feature whose ids are the nodes, by its name or `key`.
        edges: A table with the columns `source` and `target`, ids as in the column of `of`, and `weight`, numbers above
            0, if edges have any; a source has its targets as neighbours. It is needed for `fit` alone.
        column: The column of the ids. Default: that of `of`.
        length: The most neighbours of an id: the heaviest, those of equal weight in the order of their ids.
        pooling: `"mean"`, `"weighted"`, `"attention"` or `"lightgcn"`, see above; None gives the vectors as they stand,
            (batch, length, dim), to a model that reads sequences.
        layers: `K`, the layers of `"lightgcn"`; 0 gives the id's own row. Default: 1.
        keep: Which neighbours are kept where there are more than `length`: the `"heaviest"`, or a `"sample"` drawn once
            with `seed`, the same in every batch (not with `"lightgcn"`).
        seed: Of `keep="sample"`.
        symmetric: Whether an edge leads both ways.
        self_loops: Whether edges from a node to itself count.
        unknown: What to do with edges whose ends the vocabulary lacks: `"count"` logs their number, `"raise"` refuses
            them.
        graph: What `fit` made of the edges.

    The other arguments are those of `Categorical`. What they say of the table's width and of the values that it knows
    follows from the feature `of`, and need not be given; it counts where that is not among the features.

    Raises:
        ValueError: An argument that follows from `of` is given and another; `fit` without `edges`, or with edges that
            have a missing end, other ids than `of`, or a weight that is not above 0.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import Categorical, FeatureTransform, Neighbours
    >>> friends = pd.DataFrame({"source": ["Ann", "Ann", "Bob"], "target": ["Bob", "Cid", "Cid"]})
    >>> features = [Categorical("user"), Neighbours("friends", of="user", edges=friends, symmetric=True, length=2)]
    >>> transform = FeatureTransform(features).fit({"user": ["Ann", "Bob", "Cid"]})
    >>> transform.encode({"user": ["Cid", "Dan"]})["friends"].tolist()
    [[2, 3], [0, 0]]

    Reference: He et al., LightGCN, SIGIR 2020, https://arxiv.org/abs/2002.02126; Fan et al., GraphRec, WWW 2019,
    https://arxiv.org/abs/1902.07243.
    """

    of: str = dataclasses.field(kw_only=True)
    edges: Any = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)
    dim: int | None = dataclasses.field(default=None, kw_only=True)  # type: ignore[assignment]
    length: int = dataclasses.field(default=50, kw_only=True)  # type: ignore[misc]
    pooling: str | None = dataclasses.field(default="mean", kw_only=True)
    layers: int = dataclasses.field(default=1, kw_only=True)
    keep: str = dataclasses.field(default="heaviest", kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)
    symmetric: bool = dataclasses.field(default=False, kw_only=True)
    self_loops: bool = dataclasses.field(default=False, kw_only=True)
    unknown: str = dataclasses.field(default="count", kw_only=True)
    graph: Any = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)

    borrows: ClassVar[bool] = True
    reads_distinct: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_name("of", self.of)
        check.check_int("length", self.length)
        check.check_choice("pooling", self.pooling, _POOLINGS)
        check.check_int("layers", self.layers, minimum=0)
        check.check_choice("keep", self.keep, ("heaviest", "sample"))
        check.check_int("seed", self.seed, minimum=0)
        check.check_choice("unknown", self.unknown, ("count", "raise"))
        if self.keep == "sample" and self.pooling == "lightgcn":
            raise ValueError(
                "`keep` must be 'heaviest' with pooling='lightgcn', whose weights a sample would not keep. "
                f"Received: keep='sample' for feature {self.name!r}"
            )

    def beside(self, features: SequenceABC[Feature]) -> Feature:
        """With what follows from the feature `of`, if it is one of `features`."""
        others = [f for f in features if not f.borrows]
        lender: Any = next((f for f in others if f.name == self.of), None)
        lender = lender or next((f for f in others if f.share_key == ("table", self.of)), None)
        if lender is None:
            return self
        if lender.state_key is None or lender.state_key[0] != Vocabulary.family:
            raise ValueError(
                f"`of` must name a feature whose values are ids. Received: of={self.of!r} for feature {self.name!r}, "
                f"which is {lender!r}"
            )
        changes: dict[str, Any] = {"key": lender.table}
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        for argument in _BORROWED:
            if getattr(self, argument) == plain[argument]:
                changes[argument] = getattr(lender, argument)
            else:
                self._refuse_difference(lender, argument)
        if self.num_ids is None:
            changes["num_ids"] = lender.num_ids
        if self.column is None and lender.name == self.of and not lender.holds_lists:
            changes["column"] = lender.source
        changed = {name: value for name, value in changes.items() if getattr(self, name) != value}
        return dataclasses.replace(self, **changed) if changed else self

    @property
    def source(self) -> str:
        return self.column or self.of

    @property
    def table(self) -> str:
        return self.key or self.of

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length + self.attends,)

    @property
    def attends(self) -> bool:
        """Whether the id itself, whose vector asks, stands before its neighbours."""
        return self.pooling == "attention"

    @property
    def holds_lists(self) -> bool:
        return False

    @property
    def is_weighed(self) -> bool:
        """Whether there is a second input, with weights."""
        return self.pooling in ("weighted", "lightgcn")

    @property
    def rule(self) -> str:
        layers = f", {self.layers} layers" if self.pooling == "lightgcn" else ""
        return f"neighbours of {self.of!r}, {self.pooling}{layers}, up to {self.length}"

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        return super().unknown_sizes() + (("dim",) if self.dim is None else ())

    @property
    def _weights_name(self) -> str:
        return f"{self.name}.weights"

    def input_specs(self) -> dict[str, InputSpec]:
        specs = {self.name: InputSpec(self.shape, "int32")}
        return specs | {self._weights_name: InputSpec(self.shape, "float32")} if self.is_weighed else specs

    def embed(self) -> Rows:
        asked = super().embed()
        if self.attends:
            from mtl_zoo.layers.neighbour_attention import NeighbourAttention

            layer = NeighbourAttention(name=f"{self.name}_attention")
            return dataclasses.replace(asked, pooling=None, encoder=Encoder(layer, f"neighbours {self.name}"))
        pooling = {"weighted": "mean", "lightgcn": "sum"}.get(self.pooling or "", self.pooling)
        return dataclasses.replace(asked, pooling=pooling, weights=self.is_weighed)

    # From a table.

    def sized(self, state: Vocabulary, reading: Any) -> Feature:
        return self.resized(state, {})

    def resized(self, state: Vocabulary, sizes: dict[str, Any]) -> Feature:
        if self.edges is None:
            raise ValueError(f"`edges` must be given to fit feature {self.name!r}. Received: edges=None")
        rules = _graph.Rules(
            self.length,
            self.layers if self.pooling == "lightgcn" else None,
            self.keep == "sample",
            self.seed,
            self.symmetric,
            self.self_loops,
            self.unknown,
        )
        graph = _graph.build(self.name, self.edges, state, rules)
        return dataclasses.replace(self, num_ids=state.num_ids, dim=self.dim or _DEFAULT_DIM, graph=graph)

    def encode(
        self, state: Vocabulary, column: Column, fitted: ColumnType
    ) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """Ids (n, length) and, if they have any, weights; what has neither an id nor a neighbour is not seen."""
        cells = column.cells()
        known = state.ids(cells)
        strangers = self.graph.strangers.ids(cells) if (known == UNKNOWN_ID).any() else np.zeros_like(known)
        nodes = self.graph.nodes_of(known, strangers)
        ids, weights = self.graph.neighbours_of(np.append(nodes, MISSING_ID)[cells.codes])
        if self.attends:
            own = np.append(known, MISSING_ID)[cells.codes].astype(np.int32)
            ids = np.concatenate([own[:, None], ids], axis=1)
        arrays = {self.name: ids}
        if self.is_weighed:
            arrays[self._weights_name] = weights
        return arrays, unseen_of(cells, nodes)

    def in_graph(self, lookup: Any) -> Any:
        return self.graph.in_graph(lookup)

    def encode_in_graph(self, lookup: Any, raw: Any) -> dict[str, Any]:
        own, ids, weights = lookup(raw)
        if self.attends:
            import tensorflow as tf

            ids = tf.concat([own[:, None], ids], axis=1)
        return {self.name: ids, self._weights_name: weights} if self.is_weighed else {self.name: ids}

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        friends = pd.DataFrame(
            {"source": list("abbcdde"), "target": list("baccada"), "weight": [1, 2, 3, 1, 1, 1, 0.5]}
        )
        names = ["a", "b", None, "c", "", "d"]
        numbers = pd.DataFrame({"source": [1, 2, 2**53 + 1], "target": [2, 2**53 + 1, 1]})
        return [
            (cls("friends", of="person", edges=friends, dim=4, length=2), names),
            (cls("friends", of="person", edges=friends, dim=4, length=2, pooling="weighted", symmetric=True), names),
            (cls("friends", of="person", edges=friends, dim=4, length=5, pooling="lightgcn", layers=2), names),
            (cls("friends", of="person", edges=friends, dim=4, length=2, pooling="attention"), names),
            (cls("alike", of="item", edges=numbers, dim=3, length=1, keep="sample", size=9), [1, 2, 3, 8, 0, 1]),
        ]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["edges"], config["graph"]
        return config

    def identity(self) -> dict[str, Any]:
        return {**self.get_config(), "graph": self.graph.digest()}

    def write_arrays(self, folder: Path, stem: str) -> dict[str, Any]:
        frame = read_table(self.edges)
        frame = frame[[name for name in ("source", "target", "weight") if name in frame.columns]]
        kept = {**super().write_arrays(folder, stem), "edges": f"{stem}_edges.parquet"}
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table, folder / kept["edges"], write_page_checksum=True)
        return kept

    def read_arrays(self, folder: Path, kept: dict[str, Any], state: Vocabulary) -> Feature:
        path = name_within(folder, kept["edges"], "a transform")
        edges = pq.read_table(path, page_checksum_verification=True)
        spec: Any = super().read_arrays(folder, kept, state)
        return dataclasses.replace(spec, edges=edges)
