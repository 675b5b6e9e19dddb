"""What the machine is found to have, against small trees of control groups and the formulas by hand."""

import os
from pathlib import Path

import psutil
import pytest
import torch

from etude.model import device as found
from etude.model.device import allowed_cores, best_device, choose_dtype, describe, memory_left, peak_memory, use_threads


def group(root, path, **files):
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_version_2_quota_of_any_group_around(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "self").write_text("0::/pods/mine\n")
    group(tmp_path, "/pods/mine", cpu__max="max 100000")
    assert allowed_cores(tmp_path, tmp_path / "self") == 8
    group(tmp_path, "/pods", cpu__max="250000 100000")
    assert allowed_cores(tmp_path, tmp_path / "self") == 3
    group(tmp_path, "/pods/mine", cpu__max="20000 100000")
    assert allowed_cores(tmp_path, tmp_path / "self") == 1


def test_version_1_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "self").write_text("4:cpu,cpuacct:/docker/a\n5:memory:/docker/a\n")
    group(tmp_path, "/cpu/docker/a", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert allowed_cores(tmp_path, tmp_path / "self") == 8
    group(tmp_path, "/cpu/docker/a", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    assert allowed_cores(tmp_path, tmp_path / "self") == 4


def test_affinity_limits_and_no_groups_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert allowed_cores(tmp_path, tmp_path / "none") == 1


def test_memory_is_the_groups_where_it_is_less(tmp_path):
    (tmp_path / "self").write_text("0::/pods/mine\n")
    machine = psutil.virtual_memory().total
    assert memory_left(tmp_path, tmp_path / "self")[0] == machine
    group(tmp_path, "/pods/mine", memory__max="max", memory__current="5")
    group(tmp_path, "/pods", memory__max="1000000", memory__current="400000")
    assert memory_left(tmp_path, tmp_path / "self") == (1_000_000, 600_000)
    group(tmp_path, "/pods", memory__stat="anon 100000\ninactive_file 200000\nactive_file 90000\nshmem 10000")  # pages of files come back
    assert memory_left(tmp_path, tmp_path / "self") == (1_000_000, 890_000)
    group(tmp_path, "/pods", memory__max=str(2**63 - 4096), memory__current="5")
    assert memory_left(tmp_path, tmp_path / "self")[0] == machine


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", None])
def test_dtype_follows_the_processor(monkeypatch, capability):
    monkeypatch.setattr(
        found, "_cpu_capabilities", lambda: {"avx2": True, "avx512_bf16": False} | ({capability: True} if capability else {})
    )
    cpu = torch.device("cpu")
    dtype, reason = choose_dtype("auto", cpu)
    assert dtype == (torch.bfloat16 if capability else torch.float32) and (capability or "no bfloat16") in reason
    assert choose_dtype("float32", cpu)[0] == torch.float32
    dtype, reason = choose_dtype("bfloat16", cpu)
    assert dtype == torch.bfloat16 and ("likely faster" in reason) == (capability is None)


def test_older_torch_reads_the_kernels_own_list(monkeypatch):
    """Both lists must name the same kernels on this very processor."""
    if not hasattr(torch.cpu, "get_capabilities") or not os.path.exists("/proc/cpuinfo"):
        pytest.skip("needs both lists")
    newer = found._bfloat16(torch.device("cpu"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert found._bfloat16(torch.device("cpu")) == newer


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("3", 3), ("", None), ("0", None), ("many", None)])
def test_threads(monkeypatch, asked, expected):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    try:
        threads, reason = use_threads()
        assert threads == torch.get_num_threads() == (expected or allowed_cores()) and str(threads) in reason
        assert ("OMP_NUM_THREADS" in reason) == (expected is not None)
        assert ("slow" in reason) == (threads > allowed_cores())
    finally:
        torch.set_num_threads(before)


def test_description():
    seen = describe(torch.device("cpu"))
    assert seen.kind == "cpu" and seen.name and 0 < seen.free_memory <= seen.memory
    assert seen.threads == torch.get_num_threads() and 1 <= seen.cores <= (os.cpu_count() or 1)
    assert best_device().type in ("cpu", "cuda", "mps")


def test_peak_memory_is_the_kernels_high_water_mark():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert peak_memory(torch.device("cpu")) == pytest.approx(int(mark.split()[1]) * 1024, rel=0.02)
