"""Why a model gives the scores that it gives: parts of features, what tasks lose without them, vectors by value."""

from mtl_zoo.explanations.explain import Explanation, explain

__all__ = ["Explanation", "explain"]
