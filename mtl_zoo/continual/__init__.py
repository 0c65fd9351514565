"""Learning day by day: replay of earlier rows, penalties against forgetting, progressive validation."""

from mtl_zoo.continual.anchors import EWC, L2ToPrevious
from mtl_zoo.continual.plots import draw_days
from mtl_zoo.continual.progressive import Progress, progressive
from mtl_zoo.continual.replay import ReplayBuffer

__all__ = ["EWC", "L2ToPrevious", "Progress", "ReplayBuffer", "draw_days", "progressive"]
