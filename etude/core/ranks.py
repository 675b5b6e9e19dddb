"""Collectives that are no-ops on one process."""

import os

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def here() -> int:
    """How many of them run on this machine, as `torchrun` tells them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world())) if world() > 1 else 1


def total(value: Tensor) -> Tensor:
    """The sum over ranks; on one process, the value itself."""
    if world() == 1:
        return value
    summed = value.clone()
    dist.all_reduce(summed)
    return summed


def total_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Sum gradients over ranks, in place, as one flat float32 buffer; a rank without a gradient adds zeros."""
    if world() == 1:
        return
    flat = torch.cat([p.grad.float().flatten() if p.grad is not None else p.new_zeros(p.numel(), dtype=torch.float32) for p in parameters])
    dist.all_reduce(flat)
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype)


def _number(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int64, device="cuda" if world() > 1 and dist.get_backend() == "nccl" else "cpu")


def anywhere(flag: bool) -> bool:
    """Whether it holds on any rank; every rank must ask."""
    return bool(total(_number(flag)) > 0)


def first(value: int) -> int:
    """The first rank's value; every rank must ask."""
    return int(total(_number(value if rank() == 0 else 0)))


def barrier() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        dist.barrier()
