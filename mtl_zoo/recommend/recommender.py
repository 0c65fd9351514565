"""One object from a user to a list: candidates, scores of all tasks, fusion, re-ranking."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.recommend import _catalogue, _reasons, _recommender_export, _recommender_files
from mtl_zoo.recommend._catalogue import ITEM, USER, Catalogue
from mtl_zoo.recommend._fetching import Fetching
from mtl_zoo.recommend._ids import EMPTY, refuse_other_kind
from mtl_zoo.recommend._pairs import PairScores
from mtl_zoo.recommend._ranking import Ranked, Wanted, as_table, ranked_lists
from mtl_zoo.recommend._stock import Stock
from mtl_zoo.recommend._users import Seen, Users, lists_of
from mtl_zoo.recommend.fusion import Fusion, ReciprocalRank, WeightedSum, fusion_from_config

PLACES = ("user", "rank", "item", "score")


class Recommender:
    """A model, a catalogue and what makes lists of scores: one user or many in, ordered lists out.

    Every task's score of each candidate is computed in one call of the model, whose inputs of users and of items are
    encoded apart: items once, when they come into the catalogue. Then the scores are fused, the best are re-ranked, and
    the first k are the list. All of it can change while it runs: items, the fusion, re-ranking.

    Args:
        model: A trained model that was made with a fitted `FeatureTransform`.
        items: The catalogue: a table with a row an item, the column of ids, and the columns that features of the item
            read. What an `EntityTable` of the model knows of items need not be repeated; where it is, what stands here
            counts. Further columns may be read by stages of re-ranking: a number or a category; a list of
            numbers, all of one length, as a vector; other lists as a vector of 0 and 1 over their values, of which
            there may be 1,000.
        item: The column of ids.
        user: The column of users' ids, by which `users` and `exclude` are found. Rows of users need not have it.
        users: A table with a row a user, from which the columns that a request leaves out are taken. Default: none.
        index: An `ExactIndex` or another, for models with a `RetrievalTask`: the nearest items by its vectors are then
            the candidates. One without items is given those of the catalogue; one that has just these is taken as it
            is. It is the recommender's from then on. Default: none; every item is scored.
        retrieval: Name of the `RetrievalTask`. Default: the only one.
        fusion: A `Fusion`, what its `get_config` gives, or weights by task. Default: `ReciprocalRank` with equal
            weights.
        rerank: A stage of re-ranking, or several, see `mtl_zoo.recommend.rerank`. Default: none.
        candidates: How many items an index gives, and how many of the best fused scores are re-ranked.
        exclude: What users have seen and are not shown: a table with the columns `user` and `item`, or a
            `mtl_zoo.datasets.Split` with them, such as the training rows. Default: nothing.
        prepare: Whether what the model makes of items before it knows a user is kept in memory: quicker lists for some
            kilobytes an item, see `Scorer.prepare`. It is made anew where items or the model's weights have changed.
            Default: False.
        sides: `"user"` or `"item"` by column, for columns that are read by features without a `side` alone. What comes
            with the request, such as the hour, is the user's.

    Raises:
        ValueError: The model has no transform; a column has no side; items lack a column or have an id twice; a fusion
            reads a task that the model does not have.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
    >>> from mtl_zoo.recommend import CategoryCap, Recommender, WeightedSum
    >>> rows = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 9], "genre": list("xyx"), "click": [1, 0, 1]})
    >>> features = [
    ...     Categorical("user_id", side="user"), Categorical("item_id", side="item"), Categorical("genre", side="item")]
    >>> model = SharedBottom(FeatureTransform(features, [BinaryTask("click")]).fit(rows))
    >>> items = pd.DataFrame({"item_id": [7, 8, 9], "genre": ["x", "y", "x"]})
    >>> recommender = Recommender(model, items, fusion=WeightedSum({"click": 1}), rerank=CategoryCap("genre"))
    >>> shown = recommender.recommend({"user_id": 2}, k=2)
    >>> list(shown.columns), len(shown), shown["user"].tolist()
    (['user', 'rank', 'item', 'score', 'click'], 2, [2, 2])
    """

    def __init__(
        self,
        model: Any,
        items: Any,
        *,
        item: str = "item_id",
        user: str = "user_id",
        users: Any = None,
        index: Any = None,
        retrieval: str | None = None,
        fusion: Fusion | Mapping[str, Any] | None = None,
        rerank: Any = (),
        candidates: int = 500,
        exclude: Any = None,
        prepare: bool = False,
        sides: Mapping[str, str] | None = None,
    ):
        if not _backend.is_tensorflow():
            raise ValueError("`Recommender` needs the TensorFlow backend. Received: another one")
        transform = getattr(model, "transform", None)
        if transform is None:
            raise ValueError(
                "`model` must be made with a fitted FeatureTransform, which encodes rows of users and items. Received: "
                f"{model!r:.100}"
            )
        self.model, self.item, self.user = model, item, user
        self.sides = dict(sides or {})
        self.candidates = check.check_int("candidates", candidates)
        self.prepare = check.check_choice("prepare", prepare, (True, False))
        of_side = _catalogue.sides_of(transform, self.sides)
        self._columns = {side: [c for c, s in of_side.items() if s == side] for side in (USER, ITEM)}
        if not self._columns[ITEM]:
            raise ValueError(f"`model` must have a feature of the item. Received: all are of the user, {list(of_side)}")
        features = {f.name: f for f in transform.features}
        self._feature_sides = {name: of_side[transform.column_of(f)] for name, f in features.items()}
        of_user = [n for name, f in features.items() if self._feature_sides[name] == USER for n in f.input_specs()]
        self.pairs = PairScores(model, frozenset(of_user))
        taken = [name for name in self.tasks if name in PLACES]
        if taken:
            raise ValueError(f"`model` must not have tasks named like columns of lists, {PLACES}. Received: {taken}")
        self.fusion = self._checked_fusion(fusion)
        self.stages = _checked_stages(rerank)
        self.fetching = None if index is None else Fetching(model, index, retrieval)
        self.known_users = Users(users, user, self._columns[USER])
        self._seen = Seen.of(exclude, user, item)
        self._stock = Stock(model, items, item, self._columns[ITEM], self.pairs, self.fetching, self.prepare)
        self._seen.check_items(self.catalogue.ids)
        if self.known_users.table is not None:
            self._seen.check_users("users", self.known_users.table[user])

    # What it is made of.

    @property
    def tasks(self) -> list[str]:
        """The columns of scores in a list, which a fusion may read: outputs of the model; `name.0`, `name.1`, ... where
        one has several."""
        return list(self.pairs.columns)

    @property
    def items(self) -> pd.DataFrame:
        """The catalogue as a table, a copy."""
        return self.catalogue.frame.copy()

    @property
    def users(self) -> pd.DataFrame | None:
        """The table of users, if there is one, a copy."""
        return None if self.known_users.table is None else self.known_users.table.copy()

    @property
    def catalogue(self) -> Catalogue:
        """The items as the model reads them; a change of items makes another one."""
        return self._stock.catalogue

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None]:
        """The catalogue, the table of users and the pairs that are left out, as they are kept."""
        return self.catalogue.frame, self.known_users.table, self._seen.table

    @property
    def user_columns(self) -> list[str]:
        """The columns that a user's row must have, or the table of users."""
        return list(self._columns[USER])

    # Lists.

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Any = None,
        candidates: Any = None,
        fusion: Fusion | Mapping[str, Any] | None = None,
        rerank: Any = None,
        diversity: float | None = None,
        reasons: bool = False,
        seed: int = 0,
    ) -> pd.DataFrame:
        """The best k items of each user.

        Args:
            users: One user as a dict, or many as a DataFrame or a list of dicts: the columns of features of the user,
                and the user's id. What the row says counts, recent events of a history among it; columns that are left
                out are taken from the table `users`. Ids alone, as a list or an array, do where those are enough.
            k: Length of a list; it is shorter where there are fewer candidates.
            exclude_seen: Whether what `exclude` of the recommender holds is left out.
            exclude: Ids that are left out as well: a list for one user, a list of lists for many.
            candidates: Ids to choose from: a list for one user, a list of lists for many; -1 and None are empty places.
                Default: the whole catalogue.
            fusion: In place of the recommender's.
            rerank: Stages in place of the recommender's; `()` for none.
            diversity: A number in [0, 1] for the stages that trade scores for diversity (`MMR`, `DPP`): 0 looks at
                scores alone, 1 at diversity alone. Default: as they are.
            reasons: Whether to add the columns of `reasons`.
            seed: Of stages that draw. Another one for each request shows not everyone the same.

        Returns:
            A table with a row for each place of each list, users in their order: `user` (the id, or the number of the
            row), `rank` from 1, `item`, `score` (by which the list is ordered, and which a stage may have changed), and
            the score of each task.

        Raises:
            ValueError: A column is missing or cannot be read; an id to choose from is not in the catalogue; `k`,
                `fusion`, `rerank` or `diversity` is not what it must be.
        """
        wanted = self._wanted(k, fusion, rerank, diversity, seed)
        catalogue, names, inputs, rows = self._asked(users, exclude_seen, exclude, candidates, k)
        lists = ranked_lists(self.pairs, catalogue, inputs, rows, wanted)
        parts, explained = [], []
        for number, (name, one) in enumerate(zip(names, lists, strict=True)):
            parts.append((name, one.rows, one.score, one.scores))
            if reasons:
                mine = {n: array[number : number + 1] for n, array in inputs.items()}
                explained.append(self._reasons(catalogue, mine, one, wanted))
        table = as_table(parts, catalogue, self.tasks)
        if not reasons:
            return table
        return pd.concat([table, pd.concat(explained, ignore_index=True)], axis=1) if explained else table

    def __call__(self, users: Any, candidates: Any = None, *, k: int = 100) -> np.ndarray:
        """Ids of items by user, (users, k), best first, as `evaluate_ranking` asks for them; -1 or None fill the rest.

        Items of `exclude` are left out.

        Args:
            users: What `recommend` takes for many.
            candidates: Ids to choose from, a row a user; -1 and None are empty places.
            k: Length of the lists.
        """
        wanted = self._wanted(k, None, None, None, 0)
        catalogue, _, inputs, rows = self._asked(users, True, None, candidates, k)
        ids = catalogue.ids
        empty: Any = EMPTY if ids.dtype.kind in "iu" else None
        found = np.full((len(rows), min(k, len(catalogue))), empty, ids.dtype)
        for row, one in zip(found, ranked_lists(self.pairs, catalogue, inputs, rows, wanted), strict=True):
            row[: len(one.rows)] = ids[one.rows]
        return found

    def _wanted(self, k: int, fusion: Any, rerank: Any, diversity: float | None, seed: int) -> Wanted:
        stages = self.stages if rerank is None else _checked_stages(rerank)
        if diversity is not None:
            diversity = check.check_number("diversity", diversity, minimum=0, maximum=1)
            if not any(getattr(stage, "diversifies", False) for stage in stages):
                raise ValueError(
                    "`diversity` needs a stage of re-ranking that trades scores for it, such as "
                    f"rerank=MMR('genres'). Received: diversity={diversity}, rerank={stages}"
                )
            stages = tuple(s.with_diversity(diversity) if getattr(s, "diversifies", False) else s for s in stages)
        fusion = self.fusion if fusion is None else self._checked_fusion(fusion)
        seed = check.check_int("seed", seed, minimum=0)
        return Wanted(check.check_int("k", k), fusion, stages, self.candidates, seed)

    def _asked(
        self, users: Any, exclude_seen: bool, exclude: Any, candidates: Any, k: int
    ) -> tuple[Catalogue, list[Any], dict[str, np.ndarray], list[np.ndarray]]:
        """The catalogue as it is now, names of the users, their inputs, and the items that each may be shown."""
        frame, names, single = self.known_users.rows(users)
        inputs = self._inputs(frame)
        wanted = lists_of("candidates", candidates, len(names), single)
        others = lists_of("exclude", exclude, len(names), single)
        hidden = [[] if others is None else [others[number]] for number in range(len(names))]
        for ids in others or ():
            refuse_other_kind("exclude", ids, self.catalogue.ids)
        # Rows without the column of ids are named by their place, which is nobody's id.
        if exclude_seen and self.user in frame.columns:
            self._seen.check_users("users", names)
            hidden = [[*ids, self._seen.of_user(name)] for ids, name in zip(hidden, names, strict=True)]
        catalogue, rows = self._stock.candidates(inputs, hidden, wanted, max(self.candidates, k))
        return catalogue, names, inputs, rows

    def _inputs(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        return self.pairs.typed(_catalogue.encoded(self.model.transform, frame, self._columns[USER], "users"))

    def inputs_of(self, users: Any) -> dict[str, np.ndarray]:
        """The model's inputs of users, which `recommend` takes in the same forms."""
        return self._inputs(self.known_users.rows(users)[0])

    def _checked_fusion(self, fusion: Any) -> Fusion:
        if fusion is None:
            plain = [column for column, (output, _) in self.pairs.columns.items() if column == output]
            if not plain:
                raise ValueError(f"`fusion` must say how scores are made one. Received: none for {self.tasks}")
            return WeightedSum({plain[0]: 1.0}) if len(plain) == 1 else ReciprocalRank(dict.fromkeys(plain, 1.0))
        if isinstance(fusion, Mapping):
            fusion = fusion_from_config(fusion) if "kind" in fusion else WeightedSum(fusion)
        if not isinstance(fusion, Fusion):
            raise ValueError(f"`fusion` must be a Fusion, its config, or weights by task. Received: {fusion!r}")
        fusion(dict.fromkeys(self.tasks, np.full(2, 0.5)))  # names the tasks that are missing
        return fusion

    # Why.

    def reasons(self, users: Any, k: int = 10, **arguments: Any) -> pd.DataFrame:
        """Why each item is in the list: the task that raised it most, and the feature that did.

        A task's effect is the fused score less what it would be with the mean of that task's scores over the user's
        candidates; a feature's effect is the fused score less what it would be if the feature were missing (of numbers:
        the mean of the training table). Effects need not add up.

        Args:
            users, k, arguments: As for `recommend`.

        Returns:
            What `recommend` gives, with `task`, `task_effect`, `feature`, `feature_effect`, dicts of all effects in
            `task_effects` and `feature_effects`, and `reason`, a short text.
        """
        return self.recommend(users, k, **arguments, reasons=True)

    def _reasons(self, catalogue: Catalogue, user: dict[str, np.ndarray], one: Ranked, wanted: Wanted) -> pd.DataFrame:
        return _reasons.explain(self.pairs, catalogue, self.model.transform.features, user, one, wanted)

    # Items.

    def add_items(self, items: Any) -> None:
        """Adds items that the catalogue does not have. Nothing is trained: what no training row named is unknown.

        Args:
            items: A table with the columns of the catalogue that features read.

        Raises:
            ValueError: An id is there already or comes twice; a column is missing or cannot be read. Nothing is
                changed then.
        """
        self._stock.add(items)

    def update_items(self, items: Any) -> None:
        """Changes what is known of items; columns that are left out stay as they are.

        Args:
            items: A table with ids that the catalogue has, and the columns to change.

        Raises:
            ValueError: An id is not there or comes twice; a column cannot be read. Nothing is changed then.
        """
        self._stock.update(items)

    def remove_items(self, ids: Sequence[Any]) -> None:
        """Takes items out of the catalogue.

        Args:
            ids: Their ids.

        Raises:
            ValueError: An id is not there, or none would be left.
        """
        self._stock.remove(ids)

    # Files.

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the recommender to a folder, whole or not at all: the model, items, users, and how lists are made.

        Args:
            folder: New, empty, or a recommender that is replaced.

        Raises:
            ValueError: The folder holds something else; a stage of re-ranking is of no registered kind.
        """
        _recommender_files.write(folder, self)

    def export(
        self, folder: str | os.PathLike[str], *, k: int | None = None, example: Any = None, overwrite: bool = False
    ) -> dict[str, str]:
        """Writes one SavedModel that takes raw columns of users and gives their lists, without this package.

        Its signatures `serving_default` and, for numbers of other widths, `serving_...` take the columns of features of
        the user, see `export_serving`, and give tensors of shape (users, k): `item`, `score` (the fused score, float64)
        and each task's. They are the lists of `recommend(users, k, exclude_seen=False, rerank=())`: re-ranking is not
        part of it. `serving_default_exclude` takes ids too that are left out, `exclude` of shape (users, any), with -1
        or "" in places that name none; places that are then empty have the item -1 or "", and NaN. The functions
        `recommend(columns)` and `recommend_without(columns, exclude)` of the loaded module take dicts by the columns'
        own names. All users of a call are scored at once. With an index, the candidates are the nearest by all
        products, also where the index is not exact.

        Args:
            folder: The folder to write; whole or not at all.
            k: Length of the lists. Default: the whole catalogue in its order.
            example: Rows of users as for `recommend`, on which what was written is compared with it. Default: three of
                the table of users.
            overwrite: Replace a SavedModel that is there.

        Returns:
            The signature's input name of each column.

        Raises:
            ValueError: There is no example; the folder holds something.
            RuntimeError: What was written gives other lists.
        """
        return _recommender_export.export(self, folder, k, example, overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Recommender:
        """The recommender that `save` wrote.

        Raises:
            FileNotFoundError: There is none in the folder.
            ValueError: A newer version of mtl_zoo wrote it, or it is damaged.
        """
        return _recommender_files.read(folder, cls)


def _checked_stages(rerank: Any) -> tuple[Any, ...]:
    stages = (rerank,) if callable(rerank) else tuple(rerank)
    if not all(callable(stage) for stage in stages):
        raise ValueError(f"`rerank` must be stages, such as MMR('genres'). Received: {rerank!r}")
    return stages
