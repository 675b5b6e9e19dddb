"""How does a model that was read become one whose blocks lie on a shelf, converted block by block and never held whole?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from etude.model.blocks import stack_of
from etude.model.pages import of_files
from etude.model.shards import DiskShelf, Put, Shelf, fill
from etude.model.streamed import Slot, Stream

Shelves = Callable[[str, int], Shelf]
"""A shelf by what is to lie on it, and how many bytes that will be."""


def shelve(model: PreTrainedModel, shelves: Shelves, *, dtype: torch.dtype, device: torch.device) -> Stream:
    """Let a frozen model's blocks come and go; all else is put on the device, in the type that computes.

    Files in which a base lies as it will compute are its shelf already. What lies otherwise is written to one first, once.

    Args:
        model: on the processor, its weights as they were read.
        shelves: where weights are kept.
        dtype: as which the model would have been loaded.

    Raises:
        ModelError: it has no blocks that could be streamed, or there is no room for them.
    """
    stack, types = stack_of(model), held_types(model, dtype)
    outside = dict(model.named_parameters())
    blocks = [dict(block.named_parameters()) for block in stack]
    inside = {id(p) for block in blocks for p in block.values()}
    outside = {name: p for name, p in outside.items() if id(p) not in inside}
    everything = [*outside.values(), *(p for block in blocks for p in block.values())]
    shelf = shelves(str(dtype).removeprefix("torch."), sum(p.numel() * types[id(p)].itemsize for p in everything))

    def write(put: Put) -> dict[str, Any]:
        for index, block in enumerate(blocks):
            put(group(index), {name: p.data.to(types[id(p)]) for name, p in block.items()})
        put("rest", {name: p.data.to(types[id(p)]) for name, p in outside.items()})
        return {"blocks": len(blocks), "type": str(dtype)}

    as_they_lie = isinstance(shelf, DiskShelf) and all(p.dtype == types[id(p)] for p in everything)
    if as_they_lie and of_files(p for block in blocks for p in block.values()):
        homes: list[dict[str, Tensor]] = [{name: p.data for name, p in block.items()} for block in blocks]
    else:
        fill(shelf, write)
        homes = [shelf.get(group(index)) for index in range(len(blocks))]
        rest = shelf.get("rest")
        for name, p in outside.items():
            p.data = rest[name]
    for p in outside.values():
        p.data = p.data.to(device)
    slots = [[Slot(p, "data", home[name]) for name, p in block.items()] for block, home in zip(blocks, homes, strict=True)]
    stream = Stream(model, slots, device, copies=device.type != "cpu" or not isinstance(shelf, DiskShelf))
    stream.shelves = shelves
    model.to(device)  # type: ignore[bad-argument-type] (buffers; the blocks' places are there already)
    return stream


def held_types(model: PreTrainedModel, dtype: torch.dtype) -> dict[int, torch.dtype]:
    """By the identity of each parameter, the type in which transformers would hold it in a model that is loaded in `dtype`."""
    kept = model._keep_in_fp32_modules_strict or ()
    return {
        id(p): p.dtype if not p.is_floating_point() or any(part in name for part in kept) else dtype for name, p in model.named_parameters()
    }


def group(index: int) -> str:
    """What a block's weights are called on a shelf."""
    return f"block-{index:05d}"
