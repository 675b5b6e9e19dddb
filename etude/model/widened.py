"""A model held in float32 for a moment, where memory allows: what is being compared is then not drowned in rounding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from etude.model.device import describe

_NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def widened(model: nn.Module, device: torch.device) -> Iterator[bool]:
    """Within this, weights of two bytes are float32; afterwards they are what they were, to the bit.

    Yields:
        False where the model stays as it is: quantised weights cannot be widened, and large ones may not fit.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    narrow = [(t, t.dtype) for t in tensors if t.dtype in _NARROW]
    quantised = any(not p.is_floating_point() for p in model.parameters())
    if narrow and (quantised or describe(device).free_memory < 1.5 * sum(4 * t.numel() for t, _ in narrow)):
        yield False
        return
    for t, _ in narrow:
        t.data = t.data.float()
    try:
        yield True
    finally:
        for t, dtype in narrow:
            t.data = t.data.to(dtype)  # every value of the narrow type is one of float32, so nothing was lost on the way
