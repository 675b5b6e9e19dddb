"""Learned tokens that stand before every sample and are never predicted: embeddings that go through the model, or keys and values."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel


class VirtualTokens(nn.Module):
    """What an adaptation hangs on a model; whoever runs the model looks for it there."""

    count: int
    """How many; positions of real tokens begin behind them."""
    off: bool
    """True while the model is to be its parent."""

    @abstractmethod
    def embeddings(self) -> Tensor | None:
        """[P, hidden size] what the first block reads, differentiable; None where `keys_values` are given."""

    @abstractmethod
    def keys_values(self) -> list[tuple[Tensor, Tensor]] | None:
        """Of each layer, [1, key heads, P, head size] each, rotated already, differentiable; None where `embeddings` are given."""


def put_on(model: PreTrainedModel, virtual: VirtualTokens) -> None:
    """From now on they stand before everything that etude lets the model read."""
    model.virtual_tokens = virtual


def virtual_of(model: PreTrainedModel) -> VirtualTokens | None:
    """Those that a model has, unless they are switched off."""
    found = getattr(model, "virtual_tokens", None)
    return found if isinstance(found, VirtualTokens) and not found.off else None


@contextmanager
def without_virtual(model: PreTrainedModel) -> Iterator[None]:
    """Within this the model has none."""
    virtual = virtual_of(model)
    if virtual is None:
        yield
        return
    virtual.off = True
    try:
        yield
    finally:
        virtual.off = False


def ahead_of(model: PreTrainedModel) -> int:
    """How many virtual tokens stand before everything that the model reads."""
    virtual = virtual_of(model)
    return 0 if virtual is None else virtual.count


def begin_cache(model: PreTrainedModel, cache: DynamicCache) -> None:
    """Let an empty cache of one row begin with the model's virtual tokens, where it has some."""
    virtual = virtual_of(model)
    if virtual is None:
        return
    if (layers := virtual.keys_values()) is not None:
        for number, (key, value) in enumerate(layers):
            cache.update(key.to(model.dtype), value.to(model.dtype), number)
        return
    embeddings = virtual.embeddings()
    assert embeddings is not None, "either embeddings or keys and values are learnt"
    position = torch.arange(virtual.count, device=model.device)[None]
    model.base_model(inputs_embeds=embeddings[None].to(model.dtype), position_ids=position, past_key_values=cache, use_cache=True)
