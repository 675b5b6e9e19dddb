"""Several processes that train one model, as `torchrun` starts them: who speaks and writes, and who waits?

All of them read the data and compute their share of every step; the first alone locks, judges, publishes and tells.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from etude.core import ranks

_PATIENCE = timedelta(days=7)
"""The others wait while the first judges; how long that takes is nobody's mistake."""


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that the environment names (WORLD_SIZE, RANK, LOCAL_RANK …); without them, or inside a group, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def leads() -> bool:
    """Whether this is the process that speaks; also true where there is only one."""
    return ranks.rank() == 0


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block before the others do: what it leaves on the disk, they find."""
    if not leads():
        ranks.barrier()
    yield
    if leads():
        ranks.barrier()
