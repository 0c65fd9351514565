"""The benchmark harness: one runner, many configurations, results as CSV rows, reports made from them."""

from mtl_zoo.benchmark.baselines import list_baselines
from mtl_zoo.benchmark.config import RunConfig, configs_from_dict, load_configs
from mtl_zoo.benchmark.leaderboard import leaderboard
from mtl_zoo.benchmark.page import page
from mtl_zoo.benchmark.report import markdown, print_report, verdict
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import RunSummary, run_config
from mtl_zoo.benchmark.summary import summarise

__all__ = [
    "ResultStore",
    "RunConfig",
    "RunSummary",
    "configs_from_dict",
    "leaderboard",
    "list_baselines",
    "load_configs",
    "markdown",
    "page",
    "print_report",
    "run_config",
    "summarise",
    "verdict",
]
