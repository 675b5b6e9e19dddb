"""The one attention function that etude registers with transformers: forests by their own kernels, all else as usual.

A forest travels through the model's forward as the keyword argument `forest`, so a decoder that hands its keyword arguments on
needs no change. Without it (generation, foreign code) the function is ordinary masked attention. A forest never meets any
other attention: `Policy` refuses to run one when the model's attention is not this.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from etude.core.forest import Forest
from etude.model.by_node import by_node
from etude.model.flex import block_mask, flex
from etude.model.lines import along_lines, serves
from etude.model.merge import Call, calls_of, merge
from etude.model.plain import masked_attention

NAME = "etude"
"""The attention implementation to ask transformers for."""


@dataclass(slots=True, eq=False)
class ForestAttention:
    """A forest as attention reads it, made once for all layers; `slower` collects what the fast kernel could not do."""

    forest: Forest
    calls: list[Call]
    longest: int
    prefix: list[tuple[Tensor, Tensor]] | None = None
    """Of each layer, keys and values [1, K, P, D] of virtual tokens, whose places the forest has and the model's input has not."""
    masks: dict[int | None, BlockMask] = field(default_factory=dict)
    lines: Tensor | None = None
    slower: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, forest: Forest, prefix: list[tuple[Tensor, Tensor]] | None = None) -> "ForestAttention":
        return cls(forest, calls_of(forest.nodes), forest.longest_path, prefix)

    def edges(self) -> Tensor:
        """[lines + 1] int32, where each single path begins, and where the last one ends."""
        if self.lines is None:
            stops = [0, *(node.stop for node in self.forest.nodes)]
            self.lines = torch.tensor(stops, dtype=torch.int32, device=self.forest.tokens.device)
        return self.lines

    def mask(self, window: int | None) -> BlockMask:
        if window not in self.masks:
            self.masks[window] = block_mask(self.forest.position, self.forest.end, window)
        return self.masks[window]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    forest: ForestAttention | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [B, H, T, D], key and value [B, K, S, D] → [B, T, H, D].

    `sliding_window`, `softcap` and `s_aux` (sinks) are the names under which models hand over what is special about them.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if forest is None:
        return _ordinary(module, query, key, value, attention_mask, scale, softcap=softcap, sinks=s_aux), None
    if dropout:
        raise NotImplementedError("attention dropout would differ between a shared beginning and its copies; load the model with dropout 0")
    if forest.prefix is not None:
        keys, values = forest.prefix[module.layer_idx]  # type: ignore[bad-index]
        before = keys.shape[2]
        key, value = torch.cat((keys.to(key.dtype), key), 2), torch.cat((values.to(value.dtype), value), 2)
        query = F.pad(query, (0, 0, before, 0))  # nobody reads what the virtual tokens would ask
        return _on_forest(query, key, value, scale, forest, sliding_window, softcap, s_aux)[:, before:].contiguous(), None
    return _on_forest(query, key, value, scale, forest, sliding_window, softcap, s_aux), None


def _on_forest(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    forest: ForestAttention,
    sliding_window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """The fastest kernel that is exact here; [1, T, H, D]."""
    window = sliding_window if sliding_window and sliding_window < forest.longest else None
    if query.is_cuda:
        if softcap is None and sinks is None and serves(query, value, forest.forest):
            return along_lines(query, key, value, forest.edges(), forest.longest, scale, window)
        return flex(query, key, value, forest.mask(window), scale, softcap=softcap, sinks=sinks)
    special = {"sliding window": window is not None, "soft-cap": softcap is not None, "sinks": sinks is not None}
    special[f"no fused kernel on {query.device.type}"] = query.device.type != "cpu"
    if not any(special.values()):
        return _merged(query, key, value, forest, scale)
    forest.slower.update(name for name, present in special.items() if present)
    dtype = value.dtype
    query, key, value = query.float(), key.float(), value.float()
    return by_node(query, key, value, forest.forest.nodes, scale, window=window, softcap=softcap, sinks=sinks).to(dtype)


def _merged(query: Tensor, key: Tensor, value: Tensor, forest: ForestAttention, scale: float) -> Tensor:
    """The kernel knows one head size: where keys and values differ (latent attention), zeros fill the smaller."""
    size, value_size = query.shape[-1], value.shape[-1]
    if size == value_size:
        return merge(query, key, value, forest.calls, scale)
    widest = max(size, value_size)
    query, key, value = (F.pad(x, (0, widest - x.shape[-1])) for x in (query, key, value))
    return merge(query, key, value, forest.calls, scale)[..., :value_size].contiguous()


def _ordinary(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, **special: Any) -> Tensor:
    """Attention under a mask of transformers' making; None means causal, or everything for a single query."""
    if mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True):
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    return masked_attention(query, key, value, mask, scale, **special).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
