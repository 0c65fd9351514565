import pandas as pd
import pytest

from benchmarks.studies import step_profile


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("step/mmoe/experts/MatMul_3:_MklMatMul", "products"),
        ("step/mmoe/experts/Relu_2:_MklNativeFusedMatMul", "products"),
        ("step/mmoe/click_mixture/MatMul:_MklBatchMatMulV2", "mixtures"),
        ("step/lazy_adam/Unique:Unique", "tables: duplicates"),
        ("step/lazy_adam/UnsortedSegmentSum:UnsortedSegmentSum", "tables: duplicates"),
        ("step/lazy_adam/Gather_1:ResourceGather", "tables: read"),
        ("step/lazy_adam/ResourceScatterUpdate:ResourceScatterUpdate", "tables: written"),
        ("step/lazy_adam/Square:Square", "updates, other"),
        ("AddN_3:AddN", "other"),
    ],
)
def test_parts_of_a_step_are_told_by_name(name, part):
    assert step_profile.part_of(name) == part and step_profile.is_operation(name)


@pytest.mark.parametrize("name", ["EagerLocalExecute: __inference_step_12", "Iterator::Root::Prefetch", "step/gone"])
def test_what_is_timed_beside_operations_is_left_out(name):
    assert not step_profile.is_operation(name)


@pytest.mark.tensorflow
@pytest.mark.slow
def test_shares_are_of_the_whole_step(tmp_path):
    out = tmp_path / "profile.csv"
    sizes = ["--models", "mmoe", "--vocabulary", "100", "--batch", "64", "--rounds", "1", "--steps", "3"]
    assert step_profile.main([*sizes, "--out", str(out)]) == 0
    rows = pd.read_csv(out)
    assert set(rows["policy"]) == set(step_profile.POLICIES)
    for _, one in rows.groupby("policy"):
        parts = one[one["part"] != "all"]
        assert parts["share"].sum() == pytest.approx(1, abs=0.01) and {"products", "tables: read"} <= set(parts["part"])
        assert parts["ms"].sum() == pytest.approx(one.loc[one["part"] == "all", "ms"].item(), rel=0.01)
    assert step_profile.main([*sizes, "--out", str(out)]) == 0 and len(pd.read_csv(out)) == len(rows)
