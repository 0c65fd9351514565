"""Why a model gives the scores that it gives: parts of features, what tasks lose without them, vectors by value."""

from mtl_zoo.explanations.explain import Explanation, explain
from mtl_zoo.explanations.for_shap import shap_arguments
from mtl_zoo.explanations.gates import gate_weights
from mtl_zoo.explanations.importance import Importance, permutation_importance
from mtl_zoo.explanations.vectors import Vectors, embedding_of

__all__ = [
    "Explanation",
    "Importance",
    "Vectors",
    "embedding_of",
    "explain",
    "gate_weights",
    "permutation_importance",
    "shap_arguments",
]
