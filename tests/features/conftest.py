import pytest
from several_sources import fitted, tables

from mtl_zoo.features.streaming import TableStream


@pytest.fixture(scope="module")
def transform():
    return fitted()


@pytest.fixture
def stream(transform, tmp_path):
    tables()["reviews"].to_parquet(tmp_path / "reviews.parquet", row_group_size=4)
    return TableStream(tmp_path / "reviews.parquet", transform, shuffle_rows=8)
