"""On what was it made? Versions and machine, without importing what is asked about."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from etude.lineage.record import Machine

LIBRARIES = ("etude", "torch", "transformers", "peft", "tokenizers", "safetensors")


def versions_here() -> dict[str, str]:
    """Versions of Python and of the libraries whose arithmetic or format an artefact depends on; `absent` where not installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def machine_here(device: str, threads: int, processes: int = 1) -> Machine:
    """This machine.

    Args:
        device: what computes: `cpu` or the accelerator's name.
        threads: threads of one operation (`torch.get_num_threads()`).
        processes: processes that train together.
    """
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=_memory(),
        device=device,
        threads=threads,
        processes=processes,
    )
