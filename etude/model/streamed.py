"""A frozen base larger than memory: one block at a time where it computes, the next one on its way, forward and backward.

Blocks' weights lie on a shelf (files or host memory). On a processor that computes from mapped files they stay where they lie, and
pages are read ahead and given back. Elsewhere a block is copied for the time it computes, and for the backward pass autograd keeps a
note of which weight it needs instead of the weight. Either way the same kernels meet the same numbers: the same result, to the bit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from etude.model.blocks import first_blocks, stack_of
from etude.model.pages import Range, give_back, ranges_of, read_ahead
from etude.model.shards import Shelf


@dataclass(slots=True, eq=False)
class Slot:
    """A place for a weight, and the weight."""

    owner: Any
    """A parameter, or what else holds a tensor."""
    field: str
    """`data`, or what the owner calls it."""
    home: Tensor
    """Where it lies between its uses; nobody writes to it."""

    def put(self, tensor: Tensor) -> None:
        """From now on this is there."""
        setattr(self.owner, self.field, tensor)

    def blank(self, device: torch.device) -> Tensor:
        """What stands there meanwhile: the same shape without memory, and no number, so that a use out of turn is seen."""
        nothing = float("nan") if self.home.is_floating_point() else 0
        return torch.full((), nothing, dtype=self.home.dtype, device=device).expand(self.home.shape)


@dataclass(frozen=True, slots=True)
class _Note:
    """Which weight a backward pass needs, instead of the weight."""

    block: int
    slot: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Stream:
    """The blocks of one model, coming and going.

    Args:
        model: frozen; its blocks' weights are replaced by `slots`.
        slots: of each block, every weight in it.
        device: where it computes.
        copies: whether blocks are copied there; else `home`s are computed with where they lie, which are then pages of files.
    """

    shelves: Callable[[str, int], Shelf]
    """Gives a shelf for other weights of the same model, by what they are and how many bytes."""

    def __init__(self, model: PreTrainedModel, slots: Sequence[list[Slot]], device: torch.device, *, copies: bool):
        self.model, self.device, self.copies = model, device, copies
        self.blocks = stack_of(model)
        self.slots = list(slots)
        self.visits, self.bytes, self.waited = 0, 0, 0.0
        """Blocks that were brought, how many bytes that was, and how many seconds the computation stood still for it."""
        self.towards = 1
        self._at: int | None = None
        self._wide = False
        self._ahead: dict[int, Future] = {}
        self._left: torch.cuda.Event | None = None
        """Over when the device has computed the block that was taken away last."""
        self._placed: dict[int, tuple[int, int]] = {}
        self._worker = ThreadPoolExecutor(1, "streaming")
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ranges: list[list[Range]] = []
        self._settle()
        for index, block in enumerate(self.blocks):
            block.register_forward_pre_hook(partial(self._before, index))
            block.register_forward_hook(partial(self._behind, index))
        model.base_model.forward = self._noting(model.base_model.forward)
        model.stream = self  # type: ignore[bad-argument-type] (no module, and not to be found among them)

    @property
    def pass_bytes(self) -> int:
        """Of one pass over all blocks."""
        return sum(slot.home.nbytes for slots in self.slots for slot in slots)

    @property
    def largest(self) -> int:
        """Numbers in the largest block."""
        return max(sum(slot.home.numel() for slot in slots) for slots in self.slots)

    def replace(self, slots: Sequence[list[Slot]]) -> None:
        """Other weights from now on, in the same blocks."""
        self._leave()
        self.slots = list(slots)
        self._settle()

    @contextmanager
    def widened(self) -> Iterator[None]:
        """Within this blocks are float32 while they compute; for forward passes alone, one block at a time and none ahead."""
        self._leave()
        copies, self.copies, self._wide = self.copies, True, True
        self._settle()
        try:
            yield
        finally:
            self._leave()
            self.copies, self._wide = copies, False
            self._settle()

    def time_first(self) -> float:
        """Seconds that the first block takes to come."""
        self._leave()
        began = time.perf_counter()
        self._put(0, self._bring(0))
        self._at = 0
        if self._side is not None:
            torch.cuda.synchronize(self.device)
        return max(1e-9, time.perf_counter() - began)

    def enter(self, index: int) -> None:
        """Have this block's weights in their places, and the next one's on their way."""
        if index != self._at:
            self._leave(but=index)
            began = time.perf_counter()
            coming = self._ahead.pop(index, None) or self._worker.submit(self._bring, index, self._left)
            self._put(index, coming.result())
            self.waited += time.perf_counter() - began
            self.visits += 1
            self.bytes += sum(slot.home.nbytes for slot in self.slots[index])
            self._at = index
        following = self._following(index)
        if following not in self._ahead and following != index and not self._wide:
            self._ahead = {following: self._worker.submit(self._bring, following, self._left)}

    def _following(self, index: int) -> int:
        """The next block of this pass, or the first of the pass to come."""
        last = len(self.blocks) - 1
        if self.towards > 0 and index == last:
            return max(0, last - 1) if torch.is_grad_enabled() else 0
        return max(0, index + self.towards)

    def _settle(self) -> None:
        """Everything where it stands between its uses."""
        for slots in self.slots:
            for slot in slots:
                slot.put(slot.blank(self.device) if self.copies else slot.home)
        self._ranges = [] if self.copies else [ranges_of(slot.home for slot in slots) for slots in self.slots]

    def _bring(self, index: int, after: torch.cuda.Event | None = None) -> Any:
        """In a thread of its own: a block's tensors where they compute, or its pages in memory; on a GPU not before `after`.

        Python queues work far ahead of a GPU, and every block that was brought for it would lie there until its turn.
        """
        if after is not None:
            after.synchronize()
        if not self.copies:
            return read_ahead(self._ranges[index])
        if self._side is None:
            return [slot.home.to(self.device, torch.float32 if self._widens(slot) else None, copy=True) for slot in self.slots[index]]
        with torch.cuda.stream(self._side):
            tensors = [slot.home.to(self.device, non_blocking=True) for slot in self.slots[index]]
            tensors = [t.float() if self._widens(slot) else t for t, slot in zip(tensors, self.slots[index], strict=True)]
        return tensors, self._side.record_event()

    def _widens(self, slot: Slot) -> bool:
        return self._wide and slot.home.dtype in (torch.bfloat16, torch.float16)

    def _put(self, index: int, brought: Any) -> None:
        if not self.copies:
            return
        if self._side is not None:
            brought, copied = brought
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)
            for tensor in brought:
                tensor.record_stream(current)  # its memory is not another block's before this one has computed
        for number, (slot, tensor) in enumerate(zip(self.slots[index], brought, strict=True)):
            slot.put(tensor)
            self._placed[tensor.untyped_storage().data_ptr()] = (index, number)

    def _leave(self, but: int | None = None) -> None:
        """Take the block away that is in its place, and what was on its way unless it is wanted now."""
        self._ahead = {index: coming for index, coming in self._ahead.items() if index == but}
        if self._at is None:
            return
        if self.copies:
            self._placed.clear()
            for slot in self.slots[self._at]:
                slot.put(slot.blank(self.device))
            if self._side is not None:  # behind what the allocator waits for before it gives this block's memory to another
                self._left = torch.cuda.Event(blocking=True)
                self._left.record(torch.cuda.current_stream(self.device))
        else:
            give_back(self._ranges[self._at])
        self._at = None

    def _before(self, index: int, _block: nn.Module, _inputs: Any) -> None:
        self.enter(index)

    def _behind(self, index: int, _block: nn.Module, _inputs: Any, output: Any) -> None:
        """The gradient of what a block gives is the first thing of its backward pass: a layer may read its weight without asking."""
        given = output[0] if isinstance(output, tuple) else output
        if isinstance(given, Tensor) and given.requires_grad:
            given.register_hook(partial(self._turn, index))

    def _turn(self, index: int, _gradient: Tensor) -> None:
        self.towards = -1
        self.enter(index)

    def _noting(self, forward: Any) -> Any:
        """Outside of activation checkpointing's own hooks, which keep a block's inputs alone."""

        @wraps(forward)
        def noting(*inputs: Any, **named: Any) -> Any:
            self.towards = 1
            with saved_tensors_hooks(self._pack, self._unpack) if self.copies else nullcontext():
                return forward(*inputs, **named)

        return noting

    def _pack(self, tensor: Tensor) -> Any:
        place = self._placed.get(tensor.untyped_storage().data_ptr()) if self._placed else None
        if place is None:
            return tensor
        return _Note(*place, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def _unpack(self, kept: Any) -> Tensor:
        if not isinstance(kept, _Note):
            return kept
        self.enter(kept.block)
        slot = self.slots[kept.block][kept.slot]
        weight = getattr(slot.owner, slot.field).detach()
        weight = weight if weight.dtype == kept.dtype else weight.view(kept.dtype)
        return torch.as_strided(weight, kept.shape, kept.stride, kept.offset)


def stream_of(model: nn.Module) -> Stream | None:
    """That of a model whose blocks come and go."""
    found = getattr(model, "stream", None)
    return found if isinstance(found, Stream) else None


def shortened(model: PreTrainedModel) -> AbstractContextManager:
    """Within this a streamed model is its first blocks, one of every kind: what is asked of its code costs no pass over all weights."""
    return first_blocks(model) if stream_of(model) is not None else nullcontext()
