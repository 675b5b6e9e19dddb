"""Which keys and values can be copied from row to row, shifted and grown, and how is that done?"""

import copy
import inspect

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

# Layers that hold the tokens' keys and values and nothing else. By name: older versions of transformers have fewer of them.
_ATTENTION_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}


def why_not_shared(model: PreTrainedModel) -> str:
    """Why this model's cache cannot be copied and shifted; empty where it can."""
    if model._is_stateful or "past_key_values" not in inspect.signature(model.forward).parameters:
        return "it keeps a recurrent state beside, or instead of, keys and values"
    other = sorted({type(layer).__name__ for layer in DynamicCache(config=model.config).layers} - _ATTENTION_LAYERS)
    return f"its cache has layers of another kind ({', '.join(other)})" if other else ""


class GrowingLayer(DynamicLayer):
    """Keys and values with room ahead, so that a step writes one column instead of copying all of them."""

    _key_room: Tensor | None = None
    _value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            return super().update(key_states, value_states, *args, **kwargs)
        self.keys, self._key_room = _append(self.keys, key_states, self._key_room)
        self.values, self._value_room = _append(self.values, value_states, self._value_room)
        return self.keys, self.values


def _append(held: Tensor, new: Tensor, room: Tensor | None, ahead: int = 64) -> tuple[Tensor, Tensor]:
    """`held` [B, heads, T, size] with `new` behind it, as a view of a buffer, and the buffer.

    The buffer is `room` where `held` is its beginning and it suffices, else a new one with `ahead` free columns.
    """
    before, after = held.shape[2], held.shape[2] + new.shape[2]
    if room is None or held.data_ptr() != room.data_ptr() or after > room.shape[2]:
        room = held.new_empty(*held.shape[:2], after + ahead, held.shape[3])
        room[:, :, :before] = held
    room[:, :, before:after] = new
    return room[:, :, :after], room


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """A cache whose every layer keeps all tokens: one that forgets what leaves its window could not be shifted.

    The masks still apply the windows.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() if isinstance(layer, DynamicLayer) else layer for layer in cache.layers]
    return cache


def copied(cache: DynamicCache, rows: int) -> DynamicCache:
    """A cache of its own for `rows` rows, each with what the one row of `cache` holds."""
    own = copy.deepcopy(cache)
    own.batch_repeat_interleave(rows)
    return own


def move_padding_left(cache: DynamicCache, padding: Tensor) -> None:
    """Shift each row's keys and values [B, heads, T, size] right by its `padding` [B], over the padding at its end."""
    if not padding.any():
        return
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            column = torch.arange(layer.keys.shape[2], device=layer.keys.device) - padding.to(layer.keys.device)[:, None]  # [B, T]
            column = column.clamp(min=0)[:, None, :, None]
            layer.keys = layer.keys.gather(2, column.expand_as(layer.keys))
            layer.values = layer.values.gather(2, column.expand_as(layer.values))
