"""How does a run go on after it was stopped at any moment? Whole checkpoints, checked before they are believed.

A checkpoint is a folder `step-00000100` of safetensors and JSON: written aside, hashed, flushed, renamed. Reading
verifies every byte and falls back to the one before.
"""

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from etude.core import ranks
from etude.errors import TrainingError
from etude.lineage.durable import PREFIX, lacking, new_aside, remove_tree, settle
from etude.lineage.fingerprint import fingerprint_file

FORMAT = 1
NAME = re.compile(r"step-\d{8,}(-\d+)?")
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read back whole."""

    step: int
    """Steps done when it was saved."""
    tensors: dict[str, Tensor]
    """By name, on the CPU; names that were saved as one tensor are one tensor again."""
    state: dict[str, Any]
    """What JSON can hold."""
    path: Path
    """Its folder."""
    notes: list[str] = field(default_factory=list)
    """Why newer ones were passed over; print them."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: theirs alone; made when the first is saved.
        keep: how many whole ones stay, at least 1.
    """

    def __init__(self, folder: Path, keep: int):
        if keep < 1:
            raise ValueError(f"keep={keep}: at least one checkpoint must stay")
        self.folder, self.keep = folder, keep
        self._damaged: set[Path] = set()

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """Write a checkpoint; only the first process writes, the others wait for it.

        Args:
            step: steps done.
            tensors: any dense dtype, on any device; the same tensor under two names (tied weights) is stored once.
            state: strings, finite numbers, booleans, None, lists and string-keyed dicts.

        Returns:
            Its folder.

        Raises:
            TrainingError: no room, a disk that refuses, a state that JSON would alter, a checkpoint of a later step in
                the folder. What was there before is untouched.
        """
        if ranks.rank() > 0:
            if ranks.anywhere(False):
                raise TrainingError(f"step {step}: the first process could not write the checkpoint", "see its message")
            return self._paths()[-1]
        try:
            path = self._write(step, tensors, state)
        except Exception:  # not KeyboardInterrupt: who stops at once waits for nobody
            ranks.anywhere(True)
            raise
        ranks.anywhere(False)
        return path

    def _write(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        text = _as_json(state, step)
        later = [p for p in self._paths() if _step(p) > step and p not in self._damaged]
        if later:
            raise TrainingError(f"step {step} cannot be saved: {later[-1]} is of a later step", "resume from it, or move it away")
        stored, same = _distinct(tensors)
        self._need(sum(t.nbytes for t in stored.values()) + len(text), step)
        for left in self._half_written():
            shutil.rmtree(left)
        aside = new_aside(self.folder)
        try:
            save_file(stored, aside / TENSORS)
            (aside / STATE).write_text(text, encoding="utf-8")
            files = {n: {"bytes": (aside / n).stat().st_size, "sha256": fingerprint_file(aside / n)} for n in (TENSORS, STATE)}
            manifest = {"format": FORMAT, "step": step, "same": same, "files": files}
            (aside / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            target = self._free_name(step)
            settle(aside, target)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"step {step}: the checkpoint could not be written: {error}; {self._safe()}", _ROOM) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._prune(target)
        return target

    def newest(self) -> Loaded | None:
        """The newest whole checkpoint, or None where there is none at all; every byte is verified.

        Raises:
            TrainingError: there are checkpoints, but none is whole; or processes see different ones.
        """
        notes = [f"{path} was being written when its process ended; the next save removes it" for path in self._half_written()]
        unfinished, loaded = len(notes), None
        for path in reversed(self._paths()):
            try:
                loaded = _read(path, notes)
                break
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as problem:
                notes.append(f"checkpoint {path.name} is passed over: {problem}")
                self._damaged.add(path)
        step = loaded.step if loaded else -1
        if ranks.anywhere(step != ranks.first(step)):  # all of them stop, also the first
            seen = f"{self.folder}: processes see different checkpoints (here step {step})"
            raise TrainingError(seen, "give all of them the same folder")
        if loaded is None and len(notes) > unfinished:
            remedy = "move the folder away to start from the first step"
            raise TrainingError("\n".join([f"{self.folder}: no checkpoint is whole", *notes]), remedy)
        return loaded

    def _paths(self) -> list[Path]:
        """Oldest first: by step, then by the number of the attempt."""
        ours = (p for p in self.folder.glob("step-*") if NAME.fullmatch(p.name))
        return sorted(ours, key=lambda p: [int(number) for number in p.name.split("-")[1:]])

    def _half_written(self) -> list[Path]:
        """Nobody else writes here, so whatever is aside was left by a process that ended."""
        return sorted(self.folder.glob(PREFIX + "*"))

    def _free_name(self, step: int) -> Path:
        """A step saved again (the first was damaged, or a signal came at that very step) lies beside, as `step-…-2`."""
        name, attempt = f"step-{step:08d}", 1
        while (path := self.folder / (name if attempt == 1 else f"{name}-{attempt}")).exists():
            attempt += 1
        return path

    def _prune(self, newest: Path) -> None:
        whole = [p for p in self._paths() if p not in self._damaged and p != newest]
        for path in [*whole[: max(0, len(whole) - self.keep + 1)], *sorted(self._damaged)]:
            remove_tree(path)
        self._damaged.clear()

    def _need(self, needed: int, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if figures := lacking(self.folder, needed):
            raise TrainingError(f"step {step}: no room for the checkpoint: {figures}; {self._safe()}", _ROOM)

    def _safe(self) -> str:
        paths = [p for p in self._paths() if p not in self._damaged]
        return f"{paths[-1].name} is untouched" if paths else "there is no earlier one"


_ROOM = "make room (`etude clean` spares unfinished runs such as this one; or set fewer `keep_checkpoints`) and give the same command again"


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _as_json(state: dict[str, Any], step: int) -> str:
    problem = "comes back changed (tuples, or keys that are no strings)"
    try:
        text = json.dumps(state, allow_nan=False)
        if json.loads(text) == state:
            return text
    except (TypeError, ValueError) as error:
        problem = str(error)
    remedy = "keep arrays among the tensors, and plain values in the state"
    raise TrainingError(f"step {step}: the state cannot be saved as JSON: {problem}", remedy)


def _distinct(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What to store, contiguous on the CPU, and which names are the same tensor as a stored one."""
    first: dict[tuple, str] = {}
    stored: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in first:
            same[name] = first[place]
            continue
        first[place] = name
        flat = tensor.detach().cpu().contiguous()
        # A view is stored by value: safetensors refuses tensors that share memory in part.
        stored[name] = flat.clone() if flat.untyped_storage().nbytes() != flat.nbytes else flat
    return stored, same


def _read(path: Path, notes: list[str]) -> Loaded:
    """ValueError, KeyError, OSError … where anything is not as it was written."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise ValueError(f"it has format {manifest['format']}; this etude reads {FORMAT}")
    for name in (TENSORS, STATE):
        expected, file = manifest["files"][name], path / name
        if file.stat().st_size != expected["bytes"]:
            raise ValueError(f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}")
        if fingerprint_file(file) != expected["sha256"]:
            raise ValueError(f"{name} has another content than was written")
    if manifest["step"] != _step(path):
        raise ValueError(f"its manifest is of step {manifest['step']}")
    with safe_open(path / TENSORS, framework="pt", device="cpu") as file:
        # Cloned: a mapped file starts at odd addresses, and matrix kernels may round otherwise there than in a live run.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no iterator)
    tensors |= {name: tensors[first] for name, first in manifest["same"].items()}
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    return Loaded(manifest["step"], tensors, state, path, notes)
