"""Exports: a model in a form that runs without this package."""

from mtl_zoo.export.serving import export_serving

__all__ = ["export_serving"]
