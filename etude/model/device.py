"""What does this machine really have: device, kernels, cores, threads, memory?"""

import math
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**62
# What torch.cpu.get_capabilities() calls matrix kernels in bfloat16, on x86 and ARM; /proc/cpuinfo uses the same words.
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


@dataclass(frozen=True, slots=True)
class Device:
    """What models are computed on, as found, not as hoped."""

    kind: Literal["cpu", "cuda", "mps"]
    """Which of torch's devices."""
    name: str
    """As the maker calls it."""
    bfloat16: bool
    """Whether it multiplies matrices in bfloat16 by kernels made for it."""
    bfloat16_reason: str
    """How that is known."""
    cores: int
    """Processor cores this process may use: the affinity and the control group's quota counted."""
    threads: int
    """Threads torch computes with on the processor."""
    memory: int
    """Bytes of memory of the device."""
    free_memory: int
    """Bytes of it that are free now."""


def best_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def describe(device: torch.device | None = None) -> Device:
    """What `device` (by default the best one) has."""
    device = device or best_device()
    bfloat16, reason = _bfloat16(device)
    memory, free = _memory(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = str(_cpu_capabilities().get("cpu_name", "")) or os.uname().machine
    return Device(device.type, name, bfloat16, reason, allowed_cores(), torch.get_num_threads(), memory, free)  # type: ignore[bad-argument-type]


def choose_dtype(requested: Literal["auto", "float32", "bfloat16"], device: torch.device) -> tuple[torch.dtype, str]:
    """The compute type and why. `auto` takes bfloat16 only where the device has kernels for it."""
    has, reason = _bfloat16(device)
    if requested == "float32":
        return torch.float32, "float32 as asked"
    if requested == "bfloat16":
        return torch.bfloat16, "bfloat16 as asked" if has else f"bfloat16 as asked, though float32 is likely faster: {reason}"
    return (torch.bfloat16, f"bfloat16: {reason}") if has else (torch.float32, f"float32: {reason}")


def use_threads() -> tuple[int, str]:
    """Let torch compute with OMP_NUM_THREADS threads, or one for each core this process may use; how many, and why.

    More threads than cores wait for each other: with a busy neighbour, generation fell from 15 to 1.2 tokens a second.
    """
    cores, asked = allowed_cores(), os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        threads, reason = int(asked), "OMP_NUM_THREADS"
        if threads > cores:
            reason += f", more than the {cores} cores this process may use: expect it to be slow"
    else:
        threads, reason = cores, f"{cores} cores may be used, of {os.cpu_count()}"
    torch.set_num_threads(threads)
    return threads, f"{threads} thread{'' if threads == 1 else 's'} ({reason})"


def peak_memory(device: torch.device) -> int:
    """Bytes at the highest point so far: of the process on a processor, of torch's allocator on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def allowed_cores(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores this process may use: its affinity, and the quota of every control group around it, rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [affinity]
    for folder in _around(cgroups, membership, "cpu"):
        quota, period = _words(folder / "cpu.max") or (
            _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us") or ["max", "1"]
        )
        if quota.isdigit():  # "max" in version 2 and -1 in version 1 are no limit
            quotas.append(math.ceil(int(quota) / int(period)))
    return max(1, min(quotas))


def memory_left(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> tuple[int, int]:
    """Bytes of main memory, and of it free: the machine's, or less where a control group allows less."""
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for folder in _around(cgroups, membership, "memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        if limit and used and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
            taken = max(0, int(used[0]) - _cached(folder))
            total, free = min(total, int(limit[0])), min(free, max(0, int(limit[0]) - taken))
    return total, free


def _cached(folder: Path) -> int:
    """Bytes that a control group is said to use for pages of files, which the system takes back when memory is asked for."""
    words = _words(folder / "memory.stat")
    return sum(int(count) for name, count in zip(words[::2], words[1::2], strict=False) if name in ("inactive_file", "active_file"))


def _around(cgroups: Path, membership: Path, controller: str) -> list[Path]:
    """The control group of this process and those it lies in; `controller` names version 1's tree."""
    found = []
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        inner = Path(path.lstrip("/"))
        found += [root / folder for folder in (inner, *inner.parents)]
    return list(dict.fromkeys([*found, cgroups]))


def _words(file: Path) -> list[str]:
    """The words of a small file; none where it cannot be read (a container shows only a part of the tree)."""
    try:
        return file.read_text().split()
    except OSError:
        return []


def _cpu_capabilities() -> dict[str, object]:
    """torch's own list; from /proc/cpuinfo where this torch has none."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    words = set(_words(Path("/proc/cpuinfo")))
    return {name: name in words for name in _CPU_BFLOAT16}


def _bfloat16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return True, f"{torch.cuda.get_device_name(device)} computes it"
        return False, f"{torch.cuda.get_device_name(device)} has no bfloat16 units"
    if device.type == "mps":
        return False, "bfloat16 has not been tried on MPS"
    capabilities = _cpu_capabilities()
    found = [name for name in _CPU_BFLOAT16 if capabilities.get(name)]
    return bool(found), f"the processor has {', '.join(found)}" if found else "the processor has no bfloat16 matrix kernels"


def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes in all and free; MPS shares the main memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total, free
    return memory_left()
