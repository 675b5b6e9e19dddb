"""Forest attention on a CPU: two fused kernel calls for each inner node, joined by log-sum-exp.

A node's own tokens attend to each other causally; all its descendants attend to its keys without a mask. Every query so meets
each of its ancestors once, and no mask is ever built. The kernel returns the log-sum-exp of each row, by which partial
results are joined exactly; the backward kernel, given the joined output and log-sum-exp, returns each call's share.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from etude.core.forest import Node

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Call = tuple[int, int, int, int, bool]
"""Queries [a, b) over keys [c, d), causal or not."""


def calls_of(nodes: Sequence[Node]) -> list[Call]:
    """Each node's own causal block first, so that every query has a result to be joined to."""
    own = [(n.start, n.stop, n.start, n.stop, True) for n in nodes]
    below = [(n.stop, n.end, n.start, n.stop, False) for n in nodes if n.end > n.stop]
    return own + below


def merge(query: Tensor, key: Tensor, value: Tensor, calls: list[Call], scale: float) -> Tensor:
    """Attention over a forest, differentiable.

    Args:
        query: [1, H, T, D]; key and value: [1, K, T, D] with H a multiple of K (grouped-query), all of one head size and type.

    Returns:
        [1, T, H, D], contiguous.
    """
    return _Merge.apply(query, key, value, calls, scale)  # type: ignore[return-value]


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, calls: list[Call], scale: float) -> Tensor:
        (_, heads, length, size), kv_heads = query.shape, key.shape[1]
        group = heads // kv_heads
        # [K, G, T, D] views: query heads that read the same keys lie together; keys are repeated by a stride of 0.
        q = query[0].unflatten(0, (kv_heads, group))
        k, v = (x[0].unsqueeze(1).expand(kv_heads, group, length, size) for x in (key, value))
        out = query.new_empty(length, kv_heads, group, size)  # laid out as the projection that follows reads it
        joined = out.permute(1, 2, 0, 3)
        log_sum = torch.empty(kv_heads, group, length, dtype=torch.float32)
        for a, b, c, d, causal in calls:
            part, part_sum = _forward(q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], 0.0, causal, scale=scale)
            if causal:
                joined[:, :, a:b], log_sum[:, :, a:b] = part, part_sum
            else:
                here, here_sum = joined[:, :, a:b], log_sum[:, :, a:b]
                share = torch.sigmoid(part_sum - here_sum).unsqueeze(-1).to(out.dtype)
                here.add_((part - here).mul_(share))
                torch.logaddexp(here_sum, part_sum, out=here_sum)
        ctx.save_for_backward(query, key, value, out, log_sum)
        ctx.calls, ctx.scale = calls, scale
        return out.view(1, length, heads, size)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        query, key, value, out, log_sum = ctx.saved_tensors
        (_, heads, length, size), kv_heads = query.shape, key.shape[1]
        group = heads // kv_heads
        q = query[0].unflatten(0, (kv_heads, group))
        k, v = (x[0].unsqueeze(1).expand(kv_heads, group, length, size) for x in (key, value))
        joined, g = out.permute(1, 2, 0, 3), gradient.view(length, kv_heads, group, size).permute(1, 2, 0, 3)
        dq = query.new_zeros(length, kv_heads, group, size).permute(1, 2, 0, 3)
        dk, dv = (query.new_zeros(length, kv_heads, size).permute(1, 0, 2) for _ in range(2))
        for a, b, c, d, causal in ctx.calls:
            pq, pk, pv = _backward(
                g[:, :, a:b], q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], joined[:, :, a:b], log_sum[:, :, a:b], 0.0, causal, scale=ctx.scale
            )
            dq[:, :, a:b] += pq
            dk[:, c:d] += pk.sum(1)
            dv[:, c:d] += pv.sum(1)
        return dq.flatten(0, 1)[None], dk[None], dv[None], None, None
