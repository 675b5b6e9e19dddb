"""Attention on a GPU where every tree is a single path: plain packing, which the flash kernel knows as sequences of varying length."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen

from etude.core.forest import Forest

_TYPES = (torch.bfloat16, torch.float16)
_LARGEST_HEAD = 256


def serves(query: Tensor, value: Tensor, forest: Forest) -> bool:
    """Whether the kernel takes these: no branches, 16-bit numbers, one head size of at most 256 in steps of 8."""
    size = query.shape[-1]
    fits = size == value.shape[-1] and size <= _LARGEST_HEAD and size % 8 == 0
    return fits and query.dtype in _TYPES and forest.single_paths


def along_lines(query: Tensor, key: Tensor, value: Tensor, edges: Tensor, longest: int, scale: float, window: int | None = None) -> Tensor:
    """Causal attention within each line: query [1, H, T, D], key and value [1, K, T, D] → [1, T, H, D].

    Args:
        edges: [lines + 1] int32, where each begins, and T.
        window: a query sees keys fewer than this many places back.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, heads, D]
    kernel: Any = varlen.varlen_attn
    shared = {}
    if k.shape[1] != q.shape[1]:
        if "enable_gqa" in inspect.signature(kernel).parameters:
            shared = {"enable_gqa": True}
        else:  # torch before 2.12
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    back = -1 if window is None else window - 1  # the kernel counts the keys before the query's own
    out = kernel(q, k, v, edges, edges, longest, longest, scale=scale, window_size=(back, 0), **shared)
    return out[None]
