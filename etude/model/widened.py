"""A model held in float32 for a moment, where memory allows: what is being compared is then not drowned in rounding."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from etude.model.device import describe
from etude.model.streamed import stream_of

_NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def widened(model: nn.Module, device: torch.device) -> Iterator[bool]:
    """Within this, weights of two bytes are float32; afterwards they are what they were, to the bit.

    Yields:
        False where the model stays as it is: quantised weights cannot be widened, and large ones may not fit.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    stream = stream_of(model)
    passing = {id(slot.owner) for slots in stream.slots for slot in slots} if stream is not None else set()
    narrow = [(t, t.dtype) for t in tensors if t.dtype in _NARROW]
    quantised = any(not p.is_floating_point() for p in model.parameters())
    staying = [(t, dtype) for t, dtype in narrow if id(t) not in passing]
    numbers = sum(t.numel() for t, _ in staying) + (stream.largest if stream is not None else 0)
    if narrow and (quantised or describe(device).free_memory < 1.5 * 4 * numbers):
        yield False
        return
    before = [t.data for t, _ in staying] if stream is not None else []  # pages of files: they are put back as they lay
    for t, _ in staying:
        t.data = t.data.float()
    try:
        with stream.widened() if stream is not None and narrow else nullcontext():
            yield True
    finally:
        for number, (t, dtype) in enumerate(staying):
            # Every value of the narrow type is one of float32, so nothing was lost on the way.
            t.data = before[number] if before else t.data.to(dtype)
