"""Offline evaluation with exact metrics: tables by task, calibration, grouped AUC, significance, gains."""

from mtl_zoo.evaluation.balancing_report import BalancingReport, balancing_report
from mtl_zoo.evaluation.calibrate import calibrate
from mtl_zoo.evaluation.evaluate import evaluate, evaluate_scores, scoreboard
from mtl_zoo.evaluation.gain import delta_m, gain, lift_share
from mtl_zoo.evaluation.gate_report import GateReport, gate_report
from mtl_zoo.evaluation.significance import (
    AUCDifference,
    Interval,
    auc_standard_error,
    bootstrap_auc_difference,
    bootstrap_interval,
    fold_interval,
)
from mtl_zoo.evaluation.uplift import Uplift, evaluate_uplift, uplift_curve, uplift_metrics, uplift_tasks
from mtl_zoo.metrics.exact import (
    GroupedAUC,
    accuracy,
    auc,
    correct_downsampling,
    ece,
    f1,
    gauc,
    ks,
    logloss,
    macro_auc,
    mae,
    multiclass_logloss,
    normalized_entropy,
    nrmse,
    pcoc,
    precision,
    recall,
    rmse,
)

__all__ = [
    "AUCDifference",
    "BalancingReport",
    "GateReport",
    "GroupedAUC",
    "Interval",
    "Uplift",
    "accuracy",
    "auc",
    "auc_standard_error",
    "balancing_report",
    "bootstrap_auc_difference",
    "bootstrap_interval",
    "calibrate",
    "correct_downsampling",
    "delta_m",
    "ece",
    "evaluate",
    "evaluate_scores",
    "evaluate_uplift",
    "f1",
    "fold_interval",
    "gain",
    "gate_report",
    "gauc",
    "ks",
    "lift_share",
    "logloss",
    "macro_auc",
    "mae",
    "multiclass_logloss",
    "normalized_entropy",
    "nrmse",
    "pcoc",
    "precision",
    "recall",
    "rmse",
    "scoreboard",
    "uplift_curve",
    "uplift_metrics",
    "uplift_tasks",
]
