"""Threads fit the time that a container is granted."""

import pytest
import torch

from glassgpt.training import processor
from glassgpt.training.processor import cpu_quota, fit_threads


@pytest.fixture
def cgroups(tmp_path):
    """Write files of a control group: `cgroups({"cpu.max": "max 100000"})`."""

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
    ids=["version 2", "version 2, no limit", "version 1", "version 1, no limit", "neither"],
)
def test_the_quota_of_a_container_is_read(cgroups, files, cores):
    assert cpu_quota(cgroups(files)) == cores


@pytest.mark.parametrize(
    ("quota", "asked", "n_threads"),
    [("250000", None, 2), ("20000", None, 1), ("900000", None, 3), ("250000", "3", 3)],
    ids=["fewer", "less than one core", "more", "OMP_NUM_THREADS"],
)
def test_threads_are_lowered_to_the_quota_and_never_raised(cgroups, monkeypatch, quota, asked, n_threads):
    monkeypatch.setattr(processor, "_CGROUPS", cgroups({"cpu.max": f"{quota} 100000"}))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        fit_threads()
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
