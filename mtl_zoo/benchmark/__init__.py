"""The benchmark harness: one runner, many configurations, results as CSV rows, reports made from them."""

from mtl_zoo.benchmark.baselines import list_baselines
from mtl_zoo.benchmark.config import RunConfig, load_configs
from mtl_zoo.benchmark.leaderboard import leaderboard
from mtl_zoo.benchmark.page import page
from mtl_zoo.benchmark.report import markdown, verdict
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import RunSummary, run_config

__all__ = [
    "ResultStore",
    "RunConfig",
    "RunSummary",
    "leaderboard",
    "list_baselines",
    "load_configs",
    "markdown",
    "page",
    "run_config",
    "verdict",
]
