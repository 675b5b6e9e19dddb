"""Can this model run forests? Asked of the model itself, by comparison with transformers' own forward, not of a list of names.

A small forest (three levels, and a lone tree behind it) is scored, with windows shrunk until they bite, and compared with each
sample alone through the model's own forward, eager attention and its own logits. Recurrent and convolutional layers, ALiBi,
attention that drops its arguments, or a head that does something unknown to its logits all show up as a difference.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from etude.core.forest import Forest, Node
from etude.errors import ModelError
from etude.model import attention
from etude.model.policy import Policy
from etude.model.streamed import shortened
from etude.model.virtual import without_virtual
from etude.model.widened import widened

_WINDOW = 8
"""Windows and chunks are shrunk to this many tokens, so that a forest of a few dozen meets them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's batches are laid out, and why."""

    name: str
    """`forest` or `padded`."""
    error: float
    """Largest difference of a log-probability from transformers' own, in nats."""
    tolerance: float
    """What was allowed, from the model's own rounding."""
    note: str
    """A sentence for the user; empty where all is as one would expect."""


def choose_layout(model: PreTrainedModel) -> Layout:
    """Decide once per loaded model, out loud. In float32 wherever it fits: the rounding of 30 layers in bfloat16 hides much.

    Raises:
        ModelError: neither layout gives the model's own log-probabilities.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), shortened(model), _windows_shrunk(model), widened(model, model.device), without_virtual(model):
            return _choose(model)
    finally:
        model.train(was_training)


def _choose(model: PreTrainedModel) -> Layout:
    if model.config._attn_implementation == attention.NAME and not model._can_set_attn_implementation():
        model.config._attn_implementation = "eager"  # its attention is its own: ours would only have changed the masks it is given
    shared, lone, compute = _forest(model, _TREE), _forest(model, _LINES), model.dtype
    expected, noise = _own(model, lone)
    tolerance = 2e-5 + 4 * noise
    why = "its attention does not take arguments of ours"
    if model.config._attn_implementation == attention.NAME:
        try:
            error = _difference(Policy(model, layout="forest", compute=compute), shared, expected)
        except (TypeError, RuntimeError, ValueError) as problem:
            why = f"its forward does not take a forest ({type(problem).__name__}: {str(problem).splitlines()[0][:80]})"
        else:
            if error <= tolerance:
                return Layout("forest", error, tolerance, "")
            why = f"in a forest its log-probabilities are off by {error:.2g} nats"
    error = _difference(Policy(model, layout="padded", compute=compute), lone, expected)
    if error > tolerance:
        raise ModelError(
            f"{type(model).__name__}: log-probabilities are {error:.2g} nats off transformers' own forward (allowed: {tolerance:.2g})",
            "this architecture does something between its last layer and its logits that etude does not know; please report it",
        )
    note = f"{type(model).__name__} runs in right-padded lines of one sample each, because {why}: exact, but nothing is shared or packed"
    return Layout("padded", error, tolerance, note)


# Runs of tokens as (length, parent): a beginning with three continuations, the last of which branches again; and a lone tree.
_TREE = ((13, -1), (9, 0), (17, 0), (5, 0), (6, 3), (4, 3), (11, -1))
_PATHS = ((0, 1), (0, 2), (0, 3, 4), (0, 3, 5), (6,))
_LINES = tuple((sum(_TREE[i][0] for i in path), -1) for path in _PATHS)


def _forest(model: PreTrainedModel, runs: tuple[tuple[int, int], ...]) -> Forest:
    """The tree, or its paths laid out alone, with every token predicted once for each path; made by hand, to check the builder too."""
    vocabulary = model.config.get_text_config().vocab_size
    words = torch.randint(min(vocabulary - 1, 3), vocabulary, (sum(n for n, _ in _TREE),), generator=torch.Generator().manual_seed(0))
    starts = [sum(n for n, _ in _TREE[:i]) for i in range(len(_TREE))]
    pieces = [words[s : s + n] for s, (n, _) in zip(starts, _TREE, strict=True)]
    if runs is _TREE:
        nodes, above = [], _TREE
        for i, (length, parent) in enumerate(above):
            end = max(starts[j] + above[j][0] for j in range(i, len(above)) if j == i or _below(j, i))
            depth = nodes[parent].depth + above[parent][0] if parent >= 0 else 0
            nodes.append(Node(starts[i], starts[i] + length, end, depth, parent))
        tokens, paths = words, [torch.cat([torch.arange(nodes[i].start, nodes[i].stop) for i in path]) for path in _PATHS]
    else:
        tokens = torch.cat([torch.cat([pieces[i] for i in path]) for path in _PATHS])
        edges = [0, *torch.tensor([n for n, _ in runs]).cumsum(0).tolist()]
        nodes = [Node(a, b, b, 0, -1) for a, b in pairwise(edges)]
        paths = [torch.arange(node.start, node.stop) for node in nodes]
    position, end = torch.empty_like(tokens), torch.empty_like(tokens)
    for node in nodes:
        position[node.start : node.stop] = torch.arange(node.depth, node.depth + node.stop - node.start)
        end[node.start : node.stop] = node.end
    source, target = (torch.cat(parts) for parts in ([p[:-1] for p in paths], [tokens[p[1:]] for p in paths]))
    count = len(source)
    return Forest(
        tokens=tokens,
        position=position,
        end=end,
        source=source,
        target=target,
        member_sample=torch.cat([torch.full((len(p) - 1,), i) for i, p in enumerate(paths)]),
        member_prediction=torch.arange(count),
        member_weight=torch.ones(count),
        member_old=torch.zeros(count),
        member_known={},
        leaf=torch.stack([p[-1] for p in paths]),
        value=torch.zeros(len(paths)),
        role=("",) * len(paths),
        example=tuple(range(len(paths))),
        nodes=tuple(nodes),
        logical_tokens=sum(map(len, paths)),
    ).to(model.device)


def _below(node: int, ancestor: int) -> bool:
    while node >= 0 and node != ancestor:
        node = _TREE[node][1]
    return node == ancestor


def _own(model: PreTrainedModel, lines: Forest) -> tuple[Tensor, float]:
    """Each sample alone through transformers' own forward: its log-probabilities, and how far rounding may move them.

    Rounding is what the model itself shows: the same sample with something behind it, which a causal model must not notice;
    the same sample under another implementation of attention; and one unit in the last place of the largest logit.
    """
    chosen = model.config._attn_implementation
    samples = [lines.tokens[node.start : node.stop] for node in lines.nodes]
    ordinary = [_log_probability(model, sample)[0] for sample in samples]
    if chosen == attention.NAME:
        model.set_attn_implementation("eager")
    try:
        alone = [_log_probability(model, sample) for sample in samples]
        longer = [_log_probability(model, torch.cat([sample, sample[:5]]))[0][: len(sample) - 1] for sample in samples]
    finally:
        if chosen == attention.NAME:
            model.set_attn_implementation(chosen)
    scores = torch.cat([score for score, _ in alone])
    seen = max(float((scores - torch.cat(others)).abs().max()) for others in (ordinary, longer))
    if model.dtype == torch.float32:
        seen = min(seen, torch.finfo(torch.float32).eps ** 0.5)  # more than that is no rounding, and must not excuse anything
    last_place = max(largest for _, largest in alone) * torch.finfo(model.dtype).eps
    return scores, seen + last_place


def _log_probability(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, float]:
    """Of each token but the first, and the size of the largest logit."""
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(-1, tokens[1:, None])[:, 0], float(logits.abs().max())


def _difference(policy: Policy, forest: Forest, expected: Tensor) -> float:
    difference = (policy(forest).log_probability - expected).abs().max()
    return float(difference) if torch.isfinite(difference) else float("inf")


def longest_path(configuration: PreTrainedConfig) -> int | None:
    """Tokens beyond which a path would change the rotary scaling of its neighbours in a row; None where nothing does."""
    config = configuration.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope] if "rope_type" in rope else [r for r in rope.values() if isinstance(r, dict)]
    dynamic = [r for r in kinds if r.get("rope_type") in ("dynamic", "longrope")]
    if not dynamic:
        return None
    return min(int(r.get("original_max_position_embeddings") or config.max_position_embeddings) for r in dynamic)


@contextmanager
def _windows_shrunk(model: PreTrainedModel) -> Iterator[None]:
    """Sliding windows and attention chunks, in the configuration and wherever a layer keeps its own copy."""
    config = model.config.get_text_config()
    found = [(thing, name) for thing in (config, *model.modules()) for name in ("sliding_window", "attention_chunk_size")]
    kept = [(thing, name, value) for thing, name in found if isinstance(value := getattr(thing, name, None), int) and value > _WINDOW]
    for thing, name, _ in kept:
        setattr(thing, name, _WINDOW)
    try:
        yield
    finally:
        for thing, name, value in kept:
            setattr(thing, name, value)
