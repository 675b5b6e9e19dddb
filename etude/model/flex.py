"""Forest attention on a GPU: FlexAttention with a block mask read off the trees' own intervals.

Blocks are found from the largest and smallest `end` in each block of keys, in a few small tensor operations: the [T, T] mask
that `create_block_mask` would evaluate never exists.
"""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

_BLOCK = 128
_compiled = None


def block_mask(position: Tensor, end: Tensor, window: int | None = None, block: int = _BLOCK) -> BlockMask:
    """The block mask of a forest.

    Args:
        position, end: [T] as in `core.Forest`, on the device that attends.
        window: a query sees keys fewer than this many positions back on its own path.
    """
    length = len(end)
    count = -(-length // block)

    def edge(values: Tensor, fill: int, largest: bool) -> Tensor:
        padded = torch.full((count * block,), fill, device=values.device, dtype=values.dtype)
        padded[:length] = values
        rows = padded.view(count, block)
        return rows.amax(1) if largest else rows.amin(1)

    starts = torch.arange(count, device=end.device) * block
    lasts = (starts + block).clamp(max=length) - 1
    behind = starts[None, :] < starts[:, None]  # [queries, keys]: the block of keys lies wholly before
    reaches = edge(end, 0, True)[None, :] > starts[:, None]
    spans = edge(end, length, False)[None, :] > lasts[:, None]
    some = (behind & reaches) | (starts[None, :] == starts[:, None])
    full = behind & spans & (lasts[None, :] < starts[:, None])
    if window is not None:
        furthest = edge(position, 0, True)[:, None] - edge(position, int(1e9), False)[None, :]
        full &= furthest < window
    partial = some & ~full

    def mask(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        sees = (k <= q) & (q < end[k])
        return sees if window is None else sees & (position[q] - position[k] < window)

    def listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
        numbers = blocks.sum(1, dtype=torch.int32)
        indices = torch.argsort(blocks.int(), dim=1, descending=True, stable=True).int()
        return numbers[None, None], indices[None, None]

    return BlockMask.from_kv_blocks(*listed(partial), *listed(full), BLOCK_SIZE=block, mask_mod=mask, seq_lengths=(length, length))


def flex(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float, *, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """Attention over a forest: query [1, H, T, D], key [1, K, T, D], value [1, K, T, E] → [1, T, H, E]."""
    global _compiled
    if _compiled is None:
        _compiled = torch.compile(flex_attention, dynamic=True) if query.is_cuda else flex_attention

    def capped(score: Tensor, *_index: Tensor) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    score_mod = capped if softcap is not None else None
    out, read = _compiled(
        query, key, value, score_mod=score_mod, block_mask=mask, scale=scale, enable_gqa=True, return_aux=AuxRequest(lse=sinks is not None)
    )
    if sinks is not None:
        assert read.lse is not None, "it was asked for"
        # A key without a value takes its share of the sum and gives nothing
        out = out * torch.sigmoid(read.lse - sinks.float().view(1, -1, 1)).unsqueeze(-1).to(out.dtype)
    return out.transpose(1, 2).contiguous()
