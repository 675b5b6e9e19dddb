"""Where do weights lie that are not all on the device? In safetensors files that are mapped, a shard for each block; or in host memory.

Every tensor of a shard begins at a multiple of 64 bytes, as torch's own do: matrix kernels may round otherwise at odd addresses.
"""

import json
import math
import mmap
import struct
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.core import ranks
from etude.errors import ModelError
from etude.lineage.durable import lacking, new_aside, remove_tree, settle, size
from etude.model.device import memory_left

_ALIGNED, _PAGE = 64, 4096
_NOTE, _FORMAT = "streamed.json", 1
_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
_PADDING = "padding."


class Shelf:
    """Keeps named groups of tensors, one group at a time, and gives each back as tensors that take no memory of their own."""

    working: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda _bytes: None)
    """Within this it is filled; told the bytes of each group that was put."""

    @abstractmethod
    def found(self) -> dict[str, Any] | None:
        """What was noted when it was finished; None where it was not."""

    @abstractmethod
    def put(self, group: str, tensors: dict[str, Tensor]) -> None:
        """Keep copies."""

    @abstractmethod
    def get(self, group: str) -> dict[str, Tensor]:
        """What was put there, as it was, to the bit."""

    @abstractmethod
    def finish(self, note: dict[str, Any]) -> None:
        """Everything was put."""


class HostShelf(Shelf):
    """In the memory of the host; pinned where a GPU reads it.

    Args:
        bytes: how much will be put, by each process on the machine; that there is room is asked beforehand.
    """

    def __init__(self, pinned: bool, bytes: int = 0):
        self.pinned, self.bytes = pinned, bytes
        self.groups: dict[str, dict[str, Tensor]] = {}

    def found(self) -> dict[str, Any] | None:
        return None

    def put(self, group: str, tensors: dict[str, Tensor]) -> None:
        if not self.groups:
            self._ask_for_room()
        starts, size = _places(tensors)
        room = torch.empty(size, dtype=torch.uint8, pin_memory=self.pinned)
        self.groups[group] = {name: _view(room, starts[name], t.dtype, t.shape).copy_(t.detach()) for name, t in tensors.items()}

    def _ask_for_room(self) -> None:
        processes, (_, free) = ranks.here(), memory_left()
        short = free < processes * self.bytes
        if ranks.anywhere(short):  # asked of all before any takes its part
            each = f" in each of {processes} processes" if processes > 1 else ""
            what = f"no room in memory for the weights that are to be streamed: they take {size(self.bytes)}{each}, {size(free)} is free"
            raise ModelError(what, "take `stream: disk`")

    def get(self, group: str) -> dict[str, Tensor]:
        return self.groups[group]

    def finish(self, note: dict[str, Any]) -> None:
        pass


class DiskShelf(Shelf):
    """In a folder that is written aside and appears whole; the first process writes, the others read. Mapped: its pages come and go.

    Args:
        folder: its name says what is in it; one that is there and whole is read and never written again.
        bytes: how much will be put, for which room is asked beforehand.
    """

    def __init__(self, folder: Path, bytes: int):
        self.folder, self.bytes = folder, bytes
        self.aside: Path | None = None

    def found(self) -> dict[str, Any] | None:
        try:
            note = json.loads((self.folder / _NOTE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return note if note.get("format") == _FORMAT else None

    def put(self, group: str, tensors: dict[str, Tensor]) -> None:
        if self.aside is None:
            if figures := lacking(self.folder.parent, self.bytes):
                raise ModelError(f"no room for the weights that are to be streamed: {figures}", "make room (`etude clean`)")
            self.aside = new_aside(self.folder.parent)
        write_shard(self.aside / f"{group}.safetensors", tensors)

    def get(self, group: str) -> dict[str, Tensor]:
        return map_shard((self.aside or self.folder) / f"{group}.safetensors")

    def finish(self, note: dict[str, Any]) -> None:
        assert self.aside is not None, "something was put"
        (self.aside / _NOTE).write_text(json.dumps({"format": _FORMAT} | note, indent=1) + "\n", encoding="utf-8")
        try:
            if self.found() is not None:
                raise FileExistsError(str(self.folder))
            if self.folder.exists():  # of that name, but of another format
                remove_tree(self.folder)
            settle(self.aside, self.folder)
        except FileExistsError:  # another run was faster: what it wrote is the same, and may be mapped already
            self.give_up()
        self.aside = None

    def give_up(self) -> None:
        """Leave nothing half-written."""
        if self.aside is not None:
            remove_tree(self.aside)
            self.aside = None


Put = Callable[[str, dict[str, Tensor]], None]
"""Keeps a group of tensors under a name."""


def fill(shelf: Shelf, write: Callable[[Put], dict[str, Any]]) -> dict[str, Any]:
    """Let `write(put)` put everything, once, and return its note; of several processes on one disk, the first does it.

    Raises:
        ModelError: no room, or the first process could not write.
    """
    if not isinstance(shelf, DiskShelf):
        with shelf.working as advance:
            return write(_telling(shelf, advance))
    problem: Exception | None = None
    if ranks.rank() == 0 and shelf.found() is None:
        try:
            with shelf.working as advance:
                shelf.finish(write(_telling(shelf, advance)))
        except Exception as error:  # noqa: BLE001 (raised below, when the others know)
            problem = error
        finally:  # also where somebody stops at once
            shelf.give_up()
    failed = ranks.anywhere(problem is not None)
    if problem is not None:
        raise problem
    note = shelf.found()
    if failed or note is None:
        raise ModelError(f"{shelf.folder}: the first process could not write it", "see its message; give all processes the same folders")
    return note


def _telling(shelf: Shelf, advance: Callable[[int], None]) -> Put:
    def put(group: str, tensors: dict[str, Tensor]) -> None:
        shelf.put(group, tensors)
        advance(sum(tensor.nbytes for tensor in tensors.values()))

    return put


def write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file that any reader reads; what aligns is named as padding."""
    starts, size = _places(tensors)
    header, end = dict[str, Any](), 0
    for name, tensor in tensors.items():
        if starts[name] > end:
            header[f"{_PADDING}{len(header)}"] = {"dtype": "U8", "shape": [starts[name] - end], "data_offsets": [end, starts[name]]}
        end = starts[name] + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [starts[name], end]}
    if size > end:
        header[f"{_PADDING}{len(header)}"] = {"dtype": "U8", "shape": [size - end], "data_offsets": [end, size]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _PAGE)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        begin = file.tell()
        for name, tensor in tensors.items():
            file.seek(begin + starts[name])
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        file.truncate(begin + size)


def map_shard(path: Path) -> dict[str, Tensor]:
    """Views of the mapped file: they take no memory until they are read, and then only what the system can take back at any time."""
    with path.open("rb") as file:
        # A private mapping: nobody writes to it, and whoever did would not change the file.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    (length,) = struct.unpack("<Q", mapped[:8])
    header = json.loads(mapped[8 : 8 + length])
    whole = torch.frombuffer(mapped, dtype=torch.uint8)
    return {
        name: _view(whole, 8 + length + one["data_offsets"][0], _TYPES[one["dtype"]], one["shape"])
        for name, one in header.items()
        if not name.startswith(_PADDING)
    }


def stored_type(folder: Path) -> torch.dtype | None:
    """Of all floating-point weights in a folder's safetensors files; None where they differ or cannot be read."""
    found = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no iterator)
        except (SafetensorError, OSError):
            return None
    types = {_TYPES.get(name) for name in found}
    types = {one for one in types if one is None or one.is_floating_point}
    return types.pop() if len(types) == 1 else None


def _places(tensors: dict[str, Tensor]) -> tuple[dict[str, int], int]:
    """Where each begins, and the size of all."""
    starts, end = {}, 0
    for name, tensor in tensors.items():
        starts[name] = end
        end += math.ceil(tensor.nbytes / _ALIGNED) * _ALIGNED
    return starts, max(end, _ALIGNED)


def _view(room: Tensor, start: int, dtype: torch.dtype, shape: Iterable[int]) -> Tensor:
    shape = tuple(shape)
    size = math.prod(shape) * dtype.itemsize
    return room[start : start + size].view(dtype).view(shape)
