"""The same work on two gloo processes, each with one thread; what either found."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as spawning
from safetensors.torch import load_file, save_file
from torch import Tensor


def on_two(work: Callable[[Path], dict[str, Tensor]], folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `work` returns on the first and on the second of two processes; both are handed `folder / "run"`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawning.spawn(_one, (port, work, folder), nprocs=2)
    first, second = (load_file(folder / f"rank{rank}.safetensors") for rank in range(2))
    return first, second


def _one(rank: int, port: int, work: Callable[[Path], dict[str, Tensor]], folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    save_file(work(folder / "run"), folder / f"rank{rank}.safetensors")
    dist.destroy_process_group()
