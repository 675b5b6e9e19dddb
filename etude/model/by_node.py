"""Forest attention written out node by node: for what the fused kernel does not know (windows, soft-caps, sinks).

A node's queries see the keys of their ancestors and of the node itself, gathered into one piece. Slower than the merge, exact
for everything, and counted where it is used.
"""

import torch
from torch import Tensor

from etude.core.forest import Node
from etude.model.plain import masked_attention


def by_node(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    nodes: tuple[Node, ...],
    scale: float,
    *,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention over a forest, differentiable.

    Args:
        query: [1, H, T, D]; key: [1, K, T, D]; value: [1, K, T, E].
        window: a query sees keys fewer than this many positions back on its own path.
        softcap: scores become `softcap * tanh(score / softcap)`.
        sinks: [H] logits of a key without a value that every query may rest on.

    Returns:
        [1, T, H, E].
    """
    paths: list[list[tuple[int, int]]] = []  # for each node, the runs of tokens on the way to it, itself included
    pieces = []
    for node in nodes:
        above = paths[node.parent] if node.parent >= 0 else []
        path = [*above, (node.start, node.stop)]
        paths.append(path)
        depth, first = node.depth, 0
        if window is not None:  # what lies further back than any of this node's queries can see is not gathered
            first = max(0, depth - window + 1)
            path = _from(path, first)
        k, v = (torch.cat([x[:, :, a:b] for a, b in path], 2) if len(path) > 1 else x[:, :, path[0][0] : path[0][1]] for x in (key, value))
        at = torch.arange(depth, depth + node.stop - node.start, device=query.device)[:, None]
        seen = torch.arange(first, first + k.shape[2], device=query.device)[None]
        mask = seen <= at if window is None else (seen <= at) & (at - seen < window)
        q = query[:, :, node.start : node.stop]
        out = masked_attention(q, k, v, mask, scale, softcap, sinks)
        pieces.append(out)
    return torch.cat(pieces, 2).transpose(1, 2).contiguous()


def _from(path: list[tuple[int, int]], first: int) -> list[tuple[int, int]]:
    """The part of a path from its `first` position on."""
    kept, position = [], 0
    for a, b in path:
        if position + b - a > first:
            kept.append((a + max(0, first - position), b))
        position += b - a
    return kept
