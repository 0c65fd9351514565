"""Data sets: fetched, verified, parsed and split into what the models take."""

from mtl_zoo.datasets import (
    ali_ccp,
    aliexpress,
    amazon_reviews,
    bookcrossing,
    census_income,
    coat,
    druglib,
    hetrec_lastfm,
    kuairand,
    mind,
    movielens,
    retailrocket,
    synthetic_funnel,
    synthetic_regression,
)
from mtl_zoo.datasets._base import (
    Check,
    Dataset,
    DatasetInfo,
    Split,
    dataset_info,
    list_datasets,
    load_dataset,
    register_dataset,
    verify_dataset,
)
from mtl_zoo.datasets._download import FetchError, fetch_dataset
from mtl_zoo.datasets._files import search_roots
from mtl_zoo.datasets.oracle import oracle_auc, oracle_logloss, oracle_scores
from mtl_zoo.datasets.synthetic_regression import label_correlation

__all__ = [
    "Check",
    "Dataset",
    "DatasetInfo",
    "FetchError",
    "Split",
    "ali_ccp",
    "aliexpress",
    "amazon_reviews",
    "bookcrossing",
    "census_income",
    "coat",
    "dataset_info",
    "druglib",
    "fetch_dataset",
    "hetrec_lastfm",
    "kuairand",
    "label_correlation",
    "list_datasets",
    "load_dataset",
    "mind",
    "movielens",
    "oracle_auc",
    "oracle_logloss",
    "oracle_scores",
    "register_dataset",
    "retailrocket",
    "search_roots",
    "synthetic_funnel",
    "synthetic_regression",
    "verify_dataset",
]
