from __future__ import annotations

from typing import Any

from mtl_zoo.features.spec import FEATURES, as_features, require_fitted
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.heads import Head, Towers, beside
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models._biases import biases_of, check_biases
from mtl_zoo.options import Embedding, as_embedding
from mtl_zoo.tasks import as_tasks, fitted_like


class ModelPlan:
    """What every model starts from: its checked features, tasks and head, and the towers that a backbone must feed.

    Args:
        features: Feature specs, or a fitted `FeatureTransform`, of which a copy that cannot be fitted again travels
            with the model.
        tasks: The tasks. None: those of the transform.
        head: A `Head`. Default: `Towers()`, one tower a task.
        embedding: How features become vectors. Default: `Embedding()`.
    """

    def __init__(self, features: Any, tasks: Any = None, head: Head | None = None, embedding: Embedding | None = None):
        if isinstance(features, FeatureTransform) and not features.is_fitted:
            raise ValueError(
                "`features` must be a fitted FeatureTransform. Call its fit() on the training table first."
            )
        # A copy: whoever fits the transform again must not change the ids of a model's tables.
        self.transform = features.frozen() if isinstance(features, FeatureTransform) else None
        self.features = as_features(features if self.transform is None else self.transform.features)
        require_fitted(self.features)
        self.tasks = as_tasks(self._tasks_or_those_of_transform(tasks))
        if self.transform is not None:
            self.tasks = fitted_like(self.tasks, self.transform.tasks)
        check_biases(self.features, self.tasks)
        # What the model's body reads, and what only the towers of tasks with a bias do.
        self.read_features = tuple(feature for feature in self.features if not feature.bias)
        self.bias_features = tuple(feature for feature in self.features if feature.bias)
        self.given_head = Towers() if head is None else head
        if not isinstance(self.given_head, Head):
            raise TypeError(f"`head` must be a Head, such as EntireSpace(). Received: head={head!r}")
        self.head = beside(self.given_head, self.tasks)
        self.embedding = as_embedding(embedding)
        self._check_embedding()
        self.towers = self.head.tower_names(self.tasks)
        self.outputs = self.head.outputs(self.tasks)
        self.lookups: list[FeatureEmbedding] = []  # in the order in which the model made them
        self.towers_by_side: dict[str, Any] = {}  # what `side_tower` made
        self.body: Any = None  # from the inputs to what the towers read, once a task without a label asks for it
        self.objectives: list[Any] = []  # of those tasks
        self.backbone_options = None  # of a model that is a head: what its backbone was made with, a paper's included

    def _check_embedding(self) -> None:
        """Refuses options of features that there are not."""
        names = {feature.name for feature in self.read_features}
        asked = {
            name for one in self.embedding.fusions for name in (*one.features, *([one.query] if one.query else []))
        }
        for option, named in (("fusions", asked), ("missing_rates", set(self.embedding.missing_rates or ()))):
            if named - names:
                raise ValueError(
                    f"`{option}` of `embedding` must name features. Received: {sorted(named - names)}. "
                    f"Features: {sorted(names)}"
                )

    def _tasks_or_those_of_transform(self, tasks: Any) -> Any:
        if tasks is not None:
            return tasks
        if self.transform is None:
            raise ValueError("`tasks` must be given where `features` is no FeatureTransform. Received: tasks=None")
        return self.transform.tasks

    def logits(self, inputs: Any, towers: Any, tower_units: Any) -> dict[str, Any]:
        """The head's logits of the towers, with the biases of tasks that have one.

        Raises:
            ValueError: The head makes no logit of its own for a task with a bias.
        """
        biases, used = biases_of(self, inputs), set[str]()
        if not biases:
            return self.head.logits(self.tasks, towers, tower_units)

        def noted(name: str) -> Any:
            def biased(logit: Any) -> Any:
                used.add(name)
                return biases[name](logit)

            return biased

        found = self.head.logits(self.tasks, towers, tower_units, {name: noted(name) for name in biases})
        if used != set(biases):
            raise ValueError(
                f"`bias` needs a head with a logit of its own for the task. Received: {sorted(set(biases) - used)} "
                f"with head={self.given_head!r}"
            )
        return found

    def embedding_layer(self, name: str = "embedding", features: Any = None, joined: bool = False) -> FeatureEmbedding:
        """A `FeatureEmbedding` of the plan's features (or of some of them), with its options."""
        options = self.embedding
        lookup = FeatureEmbedding(
            self.read_features if features is None else features,
            options.initializer,
            shards=options.shards,
            l2=options.l2,
            joined=joined,
            fusions=options.fusions,
            missing_rates=options.missing_rates,
            table_dtype=options.table_dtype,
            name=name,
        )
        self.lookups.append(lookup)
        return lookup

    def embed(self, inputs: Any, name: str = "embedding") -> Any:
        """The vector `x`, (batch, width): all features looked up, side by side, crossed if the options say so."""
        return self.cross(self.embedding_layer(name, joined=True)(inputs), name)

    def cross(self, x: Any, name: str = "embedding") -> Any:
        """The cross layers of the options over `x`; without any, `x` itself."""
        crossed = x
        for i in range(self.embedding.cross_layers):
            import keras_rs  # heavy, and rarely needed

            layer = keras_rs.layers.FeatureCross(self.embedding.cross_rank, name=f"{name}_cross_{i}")
            crossed = layer(x, crossed)
        return crossed

    def feature(self, argument: str, name: str | None, role: str, what: str, *, by_default: bool = False) -> Any:
        """The feature that an argument names: by default the one called like the argument.

        Args:
            argument: The model's argument, such as `"domain"`.
            name: What the user gave for it, or None.
            role: What a feature must be to serve: an attribute of `Feature`, such as `"names_domain"`.
            what: What it is for, in the error.
            by_default: Whether the only feature of that role serves if none is named.

        Raises:
            ValueError: No such feature, or several and none named.
        """
        candidates = {f.name: f for f in self.read_features if getattr(f, role)}
        if name is None:
            name = argument if argument in candidates else None
            if name is None and by_default and len(candidates) == 1:
                name = next(iter(candidates))
        if name not in candidates:
            kinds = " or ".join(kind.__name__ for kind in FEATURES.in_order() if getattr(kind, role))
            raise ValueError(
                f"`{argument}` must name the {kinds} feature {what}. Received: {argument}={name!r}. "
                f"Expected: one of {list(candidates)}"
            )
        return candidates[name]
