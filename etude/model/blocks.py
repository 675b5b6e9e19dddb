"""A decoder's blocks: the regions that are compiled one by one, so that one graph serves them all, or that are in memory one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from etude.errors import ModelError


def compile_blocks(model: PreTrainedModel) -> str:
    """torch.compile for each block; returns a sentence for the user."""
    names = set(model._no_split_modules or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    for block in blocks:
        block.compile(dynamic=True)
    return f"{len(blocks)} blocks will be compiled at their first use" if blocks else "nothing was compiled: the model names no blocks"


def stack_of(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a decoder's blocks, in the order in which they compute.

    Raises:
        ModelError: the model names none, or they do not stand in one list, or two of them share a weight.
    """
    names = set(model._no_split_modules or ())
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    stacks = [stack for stack in lists if len(stack) and all(type(block).__name__ in names for block in stack)]
    if len(stacks) != 1:
        found = "no list of blocks" if not stacks else f"{len(stacks)} lists of blocks"
        raise ModelError(f"{type(model).__name__} has {found} that could be streamed one by one", "leave train.placement.stream out")
    (stack,) = stacks
    inside = [id(p) for block in stack for p in block.parameters()]
    if len(set(inside)) < len(inside):
        raise ModelError(f"blocks of {type(model).__name__} share weights and cannot be streamed", "leave train.placement.stream out")
    return stack


@contextmanager
def first_blocks(model: PreTrainedModel) -> Iterator[tuple[int, int]]:
    """Within this the model ends behind the first blocks among which is one of every kind that it has, at least two.

    Yields:
        How many these are, and how many there are in all.
    """
    stack = stack_of(model)
    kinds = [_kind(model, number, block) for number, block in enumerate(stack)]
    count = next(n for n in range(min(2, len(kinds)), len(kinds) + 1) if set(kinds[:n]) == set(kinds))
    whole = stack._modules
    stack._modules = dict(list(whole.items())[:count])
    try:
        yield count, len(kinds)
    finally:
        stack._modules = whole


def _kind(model: PreTrainedModel, number: int, block: nn.Module) -> tuple:
    """What it is built of, and what its configuration says of its attention."""
    told = getattr(model.config.get_text_config(), "layer_types", None)
    parts = tuple((name, type(module), getattr(module, "sliding_window", None)) for name, module in block.named_modules())
    return (told[number] if told else None, parts)
