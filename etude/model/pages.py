"""Which memory is a file's, and may it be read ahead of its use or given back after it? Linux tells; elsewhere the system decides alone."""

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

_WILL_NEED, _DO_NOT_NEED, _POPULATE_READ = 3, 4, 22  # linux/mman.h
Range = tuple[int, int]
"""First address and the one behind the last."""


def ranges_of(tensors: Iterable[Tensor]) -> list[Range]:
    """The pages that they touch, those that adjoin joined."""
    joined: list[Range] = []
    for start, end in sorted(_pages_of(t) for t in tensors if t.nbytes):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def read_ahead(ranges: Iterable[Range]) -> None:
    """Have the disk read them, and wait until they are there; without the interpreter's lock, so that others compute meanwhile."""
    for start, end in ranges:
        _advise(start, end, _WILL_NEED)
    for start, end in ranges:
        _advise(start, end, _POPULATE_READ)  # from Linux 5.14 on; before it does nothing


def give_back(ranges: Iterable[Range]) -> None:
    """They may go from this process's memory; the system keeps them in its own while it has room. Never for what is not a file's."""
    for start, end in ranges:
        _advise(start, end, _DO_NOT_NEED)


def of_files(tensors: Iterable[Tensor]) -> bool:
    """Whether all of them are pages of files as these are on the disk; False where that cannot be told."""
    try:
        text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    mapped: list[Range] = []
    at, inode = (0, 0), "0"
    for line in text.splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, _, end = words[0].partition("-")
            at, inode = (int(start, 16), int(end, 16)), words[4]
        elif words[0] == "Anonymous:" and inode != "0" and words[1] == "0":
            mapped.append(at)
    return all(any(a <= start and end <= b for a, b in mapped) for start, end in map(_pages_of, tensors))


def _pages_of(tensor: Tensor) -> Range:
    start, end, page = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, mmap.PAGESIZE
    return start // page * page, -(-end // page) * page


def read_from_disk() -> int | None:
    """Bytes that the disk had to read for this process so far: what the system's cache held is not among them. None where nobody counts."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("read_bytes:")), None)


def anonymous_memory() -> int | None:
    """Bytes of this process that are no file's: what it really holds. None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), None)


_madvise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
if _madvise is not None:
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _advise(start: int, end: int, advice: int) -> None:
    """Advice: where it is not taken, nothing is wrong."""
    if _madvise is not None:
        _madvise(start, end - start, advice)
