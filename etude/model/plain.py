"""Attention under an explicit mask, for everything a decoder may ask: grouped queries, soft-caps, sinks."""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """query [B, H, T, D], key [B, K, S, D], value [B, K, S, E], mask broadcastable to [B, H, T, S] → [B, H, T, E].

    Args:
        mask: True where seen, or an additive float mask, or None where everything is seen.
        softcap: scores become `softcap * tanh(score / softcap)`.
        sinks: [H] logits of a key without a value that every query may rest on.
    """
    if softcap is None and sinks is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
    repeat = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeat, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scale  # [B, H, T, S]
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype) @ value
    rest = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
    return torch.softmax(torch.cat([scores, rest], -1), -1, dtype=torch.float32)[..., :-1].to(value.dtype) @ value
