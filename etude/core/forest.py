"""The batch: prefix trees laid out in one row, depth first.

Token `k` is visible to token `q` exactly where `k <= q < end[k]`. Plain packing is the case where every tree is a single
path. A prediction that several samples share is computed once and belongs to each of them, with a weight of its own.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Node(NamedTuple):
    """A run of tokens without a branch: [start, stop) are its own tokens, [stop, end) its descendants'."""

    start: int
    stop: int
    end: int
    depth: int
    """Position of its first token in every path through it."""
    parent: int
    """Index of the parent node, -1 for a root."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """T tokens, N distinct predictions, M memberships, S samples. Index tensors are int64, weights float32."""

    tokens: Tensor
    """[T]"""
    position: Tensor
    """[T] depth of each token in its own path, from 0."""
    end: Tensor
    """[T] where the token's subtree ends."""
    source: Tensor
    """[N] the token whose hidden state predicts; the last token of the parent for a child's first token."""
    target: Tensor
    """[N] the token id that is predicted."""
    member_sample: Tensor
    """[M] which sample …"""
    member_prediction: Tensor
    """[M] … holds which prediction …"""
    member_weight: Tensor
    """[M] … and how much it counts there."""
    member_old: Tensor
    """[M] the prediction's log-probability when the sample was written; 0 where nobody wrote it."""
    member_known: dict[str, Tensor]
    """[M] each: what else is known of the predictions in their samples, by name."""
    leaf: Tensor
    """[S] each sample's last token."""
    value: Tensor
    """[S] what an objective knows of each sample, such as its advantage."""
    role: tuple[str, ...]
    """S roles, such as "chosen"."""
    example: tuple[int, ...]
    """S numbers: samples of one example share theirs, which is its place in the step."""
    nodes: tuple[Node, ...]
    """Depth first, as laid out."""
    logical_tokens: int
    """Tokens as if nothing were shared: the sum of the samples' lengths."""

    @property
    def samples(self) -> int:
        return len(self.role)

    @property
    def computed_tokens(self) -> int:
        return len(self.tokens)

    @property
    def longest_path(self) -> int:
        return max(node.depth + node.stop - node.start for node in self.nodes)

    @property
    def single_paths(self) -> bool:
        """True where every tree is one path: plain packing."""
        return all(node.parent < 0 and node.stop == node.end for node in self.nodes)

    def per_sample(self, values: Tensor) -> Tensor:
        """Weighted sums of a value per prediction over each sample: [N] → [S], float32."""
        contributions = self.member_weight * values[self.member_prediction]  # [M]
        return torch.zeros(self.samples, device=values.device, dtype=contributions.dtype).index_add(0, self.member_sample, contributions)

    def weight_per_sample(self) -> Tensor:
        """[S] the weight of each sample's predictions together."""
        return torch.zeros(self.samples, device=self.leaf.device).index_add(0, self.member_sample, self.member_weight)

    def weight_per_prediction(self) -> Tensor:
        """[N] the weight of each distinct prediction over the samples that hold it: only for objectives linear in log-probabilities."""
        return torch.zeros(len(self.target), device=self.leaf.device).index_add(0, self.member_prediction, self.member_weight)

    def samples_with(self, role: str) -> Tensor:
        """[P] the samples of that role, ordered by example, so that the i-th chosen meets the i-th rejected."""
        found = sorted((example, i) for i, (r, example) in enumerate(zip(self.role, self.example, strict=True)) if r == role)
        return torch.tensor([i for _, i in found], dtype=torch.int64, device=self.leaf.device)

    def behind(self, count: int) -> "Forest":
        """The same trees on one root of `count` tokens, which all of them see: places that virtual tokens take. Their ids are 0."""
        places = torch.arange(count, device=self.tokens.device)
        size = len(self.tokens) + count
        root = Node(0, count, size, 0, -1)
        below = (Node(n.start + count, n.stop + count, n.end + count, n.depth + count, n.parent + 1) for n in self.nodes)
        return replace(
            self,
            tokens=torch.cat((torch.zeros_like(places), self.tokens)),
            position=torch.cat((places, self.position + count)),
            end=torch.cat((torch.full_like(places, size), self.end + count)),
            source=self.source + count,
            leaf=self.leaf + count,
            nodes=(root, *below),
        )

    def to(self, device: torch.device | str) -> "Forest":
        moved = {f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        known = {name: value.to(device) for name, value in self.member_known.items()}
        return replace(self, **moved, member_known=known)
