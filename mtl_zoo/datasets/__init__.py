"""Data sets: fetched, verified, parsed and split into what the models take."""

from mtl_zoo.datasets import ali_ccp, aliexpress, census_income, movielens, synthetic_funnel, synthetic_regression
from mtl_zoo.datasets._base import Dataset, Split, dataset_info, list_datasets, load_dataset, verify_dataset
from mtl_zoo.datasets.oracle import oracle_auc, oracle_logloss, oracle_scores
from mtl_zoo.datasets.synthetic_regression import label_correlation

__all__ = [
    "Dataset",
    "Split",
    "ali_ccp",
    "aliexpress",
    "census_income",
    "dataset_info",
    "label_correlation",
    "list_datasets",
    "load_dataset",
    "movielens",
    "oracle_auc",
    "oracle_logloss",
    "oracle_scores",
    "synthetic_funnel",
    "synthetic_regression",
    "verify_dataset",
]
