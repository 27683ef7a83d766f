"""Which cores and GPUs of a host each worker gets; nothing is set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.runtimes.portions import cores, gpus, portion

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(1, 40), st.integers(1, 40))
def test_all_is_given_out_and_nothing_twice_where_there_is_enough(
    items: int, count: int
) -> None:
    parts = [portion(range(items), index, count) for index in range(count)]
    assert all(parts)
    given_out = [item for part in parts for item in part]
    if items >= count:
        assert given_out == list(range(items))
    else:
        assert sorted(set(given_out)) == list(range(items))
        shares = [given_out.count(item) for item in range(items)]
        assert max(shares) - min(shares) <= 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_cores_that_are_near_each_other_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for core in range(8):  # as two packages with two threads a core are often counted
        folder = tmp_path / "cpu" / f"cpu{core}"
        (folder / "topology").mkdir(parents=True)
        (folder / f"node{core % 2}").mkdir()
        (folder / "topology" / "physical_package_id").write_text(f"{core % 2}\n")
        (folder / "topology" / "core_id").write_text(f"{core % 4 // 2}\n")
    assert cores(tmp_path) == [0, 4, 2, 6, 1, 5, 3, 7]


def test_only_cores_of_the_affinity_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 9}, raising=False)
    assert cores(tmp_path) == [5, 9]


@pytest.mark.parametrize(
    ("environ", "is_amd", "wanted"),
    [
        ({}, False, {}),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, False, {"CUDA_VISIBLE_DEVICES": "2,3"}),
        ({"CUDA_VISIBLE_DEVICES": "7"}, False, {"CUDA_VISIBLE_DEVICES": "7"}),
        (
            {"CUDA_VISIBLE_DEVICES": "GPU-1a,MIG-2b/1/0"},
            False,
            {"CUDA_VISIBLE_DEVICES": "MIG-2b/1/0"},
        ),
        ({"CUDA_VISIBLE_DEVICES": ""}, False, {}),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, False, {}),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, False, {}),
        ({"CUDA_VISIBLE_DEVICES": "0,$(x)"}, False, {}),
        # Slurm sets all of them where it does not know the maker.
        (
            {"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1"},
            False,
            {"CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "1"},
        ),
        # With AMD's driver the others count within what the first leaves.
        (
            {"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1"},
            True,
            {"CUDA_VISIBLE_DEVICES": None, "ROCR_VISIBLE_DEVICES": "1"},
        ),
        ({"HIP_VISIBLE_DEVICES": "4,5"}, True, {"HIP_VISIBLE_DEVICES": "5"}),
        (
            {"SLURM_JOB_GPUS": "0,1,2,3", "SLURM_STEP_GPUS": "2,3"},
            False,
            {"CUDA_VISIBLE_DEVICES": "3"},
        ),
        ({"SLURM_JOB_GPUS": "2,3"}, True, {"ROCR_VISIBLE_DEVICES": "3"}),
        ({"SLURM_JOB_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": ""}, False, {}),
    ],
)
def test_the_second_of_two_workers_gets_its_gpus(
    environ: dict[str, str], is_amd: bool, wanted: dict[str, str | None]
) -> None:
    assert gpus(1, 2, environ, is_amd=is_amd) == wanted


def test_more_workers_than_gpus_share_them() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0,1"}
    found = [gpus(index, 4, environ)["CUDA_VISIBLE_DEVICES"] for index in range(4)]
    assert found == ["0", "0", "1", "1"]
