"""Samples → one forest: which beginnings are shared, and where every token, prediction and sample lies in the row.

Samples are sorted, so that shared beginnings are neighbours; the length that each shares with the one before it (`shared`)
then says everything about the trees. No tree is ever walked by comparing samples again.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from etude.core.forest import Forest, Node
from etude.core.sample import Sample


def sort_key(sample: Sample) -> bytes:
    """Bytes that sort as the tokens do; a beginning sorts before what continues it."""
    return sample.tokens.astype(">i4").tobytes()


def shared_length(a: Sample, b: Sample) -> int:
    """How many tokens two samples have in common from the start."""
    n = min(len(a), len(b))
    different = a.tokens[:n] != b.tokens[:n]
    return int(different.argmax()) if different.any() else n


def shared_lengths(samples: Sequence[Sample]) -> list[int]:
    """For sorted samples, what each shares with the one before it; 0 for the first."""
    return [0, *(shared_length(a, b) for a, b in pairwise(samples))]


def forest_of(samples: Sequence[Sample], example: Sequence[int], *, minimum_shared: int = 1, share: bool = True) -> Forest:
    """Lay samples out as a forest on the CPU.

    Args:
        samples: S paths; their order is kept as the sample numbers of the forest.
        example: S numbers, the place in the step of the example that each sample belongs to.
        minimum_shared: a run of tokens shorter than this is not worth a node of its own and is laid out once per sample.
        share: False lays every sample out alone (plain packing).

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("a forest needs at least one sample")
    keys = [sort_key(sample) for sample in samples]
    order = sorted(range(len(samples)), key=lambda i: keys[i])
    shared = shared_lengths([samples[i] for i in order]) if share else [0] * len(order)

    layout = _Layout(samples)
    # Each entry: a run [low, high) of the sorted samples, all alike in their first `depth` tokens, below node `parent`.
    stack = [(low, high, 0, -1) for low, high in reversed(_runs(0, len(order), shared, minimum_shared))]
    while stack:
        low, high, depth, parent = stack.pop()
        stop = min(shared[low + 1 : high], default=len(samples[order[low]]))
        node = layout.add(depth, stop, parent, order[low:high])
        ended = low
        while ended < high and len(samples[order[ended]]) == stop:
            ended += 1  # a beginning sorts before what continues it, so those that end here come first
        stack.extend((a, b, stop, node) for a, b in reversed(_runs(ended, high, shared, stop + minimum_shared)))
    return layout.forest(tuple(example))


def _runs(low: int, high: int, shared: Sequence[int], least: int) -> list[tuple[int, int]]:
    """Cut [low, high) wherever neighbours share fewer than `least` tokens."""
    cuts = [low, *(i for i in range(low + 1, high) if shared[i] < least), high]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


class _Layout:
    """Collects nodes depth first and ends as a forest."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = samples
        self.nodes: list[Node] = []
        self.size = 0
        self.predictions = 0
        self.leaf = [0] * len(samples)
        self.tokens: list[np.ndarray] = []
        self.position: list[np.ndarray] = []
        self.source: list[np.ndarray] = []
        self.target: list[np.ndarray] = []
        self.members: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.known: dict[str, list[np.ndarray]] = {name: [] for name in samples[0].known}

    def add(self, depth: int, stop: int, parent: int, holders: Sequence[int]) -> int:
        """Append tokens [depth, stop) of the path that `holders` share; returns the node's number."""
        start, length = self.size, stop - depth
        tokens = self.samples[holders[0]].tokens[depth:stop]
        self.tokens.append(tokens)
        self.position.append(np.arange(depth, stop))
        # The token before: inside the node the one to the left, for its first token the parent's last.
        before = np.arange(start - 1, start + length - 1)
        if parent >= 0:
            before[0] = self.nodes[parent].stop - 1
        weights = np.stack([self.samples[i].weight[depth:stop] for i in holders])  # [H, length]
        supervised = np.flatnonzero(weights.any(axis=0))
        if len(supervised):
            self.source.append(before[supervised])
            self.target.append(tokens[supervised])
            holder, prediction = np.nonzero(weights[:, supervised])
            numbers, weight = np.asarray(holders), weights[:, supervised][holder, prediction]
            self.members.append(
                (numbers[holder], prediction + self.predictions, weight, self._old(holders, depth, stop)[:, supervised][holder, prediction])
            )
            for name, values in self.known.items():
                of_holders = np.stack([self.samples[i].known[name][depth:stop] for i in holders])  # [H, length]
                values.append(of_holders[:, supervised][holder, prediction])
            self.predictions += len(supervised)
        for i in holders:
            if len(self.samples[i]) == stop:
                self.leaf[i] = start + length - 1
        self.nodes.append(Node(start, start + length, start + length, depth, parent))
        self.size += length
        return len(self.nodes) - 1

    def _old(self, holders: Sequence[int], depth: int, stop: int) -> np.ndarray:
        """[H, length] what the holders' tokens were worth when they were written."""
        nothing = np.zeros(stop - depth, np.float32)
        return np.stack([nothing if (old := self.samples[i].old) is None else old[depth:stop] for i in holders])

    def forest(self, example: tuple[int, ...]) -> Forest:
        nodes = self.nodes
        for i in range(len(nodes) - 1, -1, -1):  # children come after their parent, so ends travel upwards
            if (parent := nodes[i].parent) >= 0:
                nodes[parent] = nodes[parent]._replace(end=max(nodes[parent].end, nodes[i].end))
        end = np.empty(self.size, dtype=np.int64)
        for node in nodes:
            end[node.start : node.stop] = node.end
        columns = zip(*self.members, strict=True) if self.members else ([[]], [[]], [[]], [[]])
        sample, prediction, weight, old = (np.concatenate(column) for column in columns)
        return Forest(
            tokens=_integers(np.concatenate(self.tokens)),
            position=_integers(np.concatenate(self.position)),
            end=_integers(end),
            source=_integers(np.concatenate([[], *self.source])),
            target=_integers(np.concatenate([[], *self.target])),
            member_sample=_integers(sample),
            member_prediction=_integers(prediction),
            member_weight=torch.from_numpy(np.asarray(weight, dtype=np.float32)),
            member_old=torch.from_numpy(np.asarray(old, dtype=np.float32)),
            member_known={
                name: torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *values])) for name, values in self.known.items()
            },
            leaf=_integers(self.leaf),
            value=torch.tensor([sample.value for sample in self.samples], dtype=torch.float32),
            role=tuple(sample.role for sample in self.samples),
            example=example,
            nodes=tuple(nodes),
            logical_tokens=sum(len(sample) for sample in self.samples),
        )


def _integers(values: object) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.int64))
