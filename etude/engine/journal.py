"""What happened in each step? Metrics as JSON, one object a line, on disk as they come, and true after a resume.

A line is `{"step": 3, "time": 1767225600.0, "loss": 0.5, …}`; time is in seconds since 1970. Strict JSON has no NaN and
no infinity: such a value is null, and `"not_finite": {"loss": "nan"}` says which it was. Lines with `"event"` tell of the run.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from etude.errors import TrainingError

RESERVED = ("step", "time", "event", "not_finite")


class Journal:
    """The metrics file of one run; the first process alone writes it.

    Args:
        path: `….jsonl`, continued where it exists.
        resume: steps done at the checkpoint that the run goes on from, so log all of a step before saving it; 0 for a
            start, before which nothing counts. Later lines belong to a course that is not continued: they are cut off,
            and counted in a `resumed` event and in `notes`.

    Raises:
        TrainingError: a line that is not JSON, but for the last, which a crash may have torn; that one is cut off and said.
    """

    def __init__(self, path: Path, resume: int = 0):
        self.path = path
        self.notes: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        torn, cut = _cut(path, resume) if path.exists() else (0, 0)
        continued = path.exists() and (resume > 0 or torn + cut > 0)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if continued:
            self._write({"step": resume, "time": time.time(), "event": "resumed", "cut_lines": cut, "torn_bytes": torn})
        if torn:
            self.notes.append(f"{path}: the last line was torn ({torn} bytes); cut off")
        if cut:
            self.notes.append(f"{path}: {cut} line(s) of steps after {resume} cut off; these steps are done again")

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write one line: numbers, strings, booleans, None, or anything that `float()` takes.

        Args:
            step: steps done, the one that the metrics are of included.
            metrics: name → value.

        Raises:
            ValueError: a name that the format itself uses.
        """
        if taken := [name for name in RESERVED if name in metrics]:
            raise ValueError(f"metrics may not be called {', '.join(taken)}")
        line: dict[str, Any] = {"step": step, "time": time.time()}
        odd: dict[str, str] = {}
        for name, value in metrics.items():
            plain = value if value is None or isinstance(value, (bool, int, str)) else float(value)
            if isinstance(plain, float) and not math.isfinite(plain):
                odd[name], plain = str(plain), None
            line[name] = plain
        self._write({**line, "not_finite": odd} if odd else line)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def rewind(self, step: int) -> None:
        """Cut off the lines of later steps: the run went back to this one."""
        self.sync()
        lines, whole = _lines(self.path)
        kept = [start for start, line in lines if line["step"] > step]
        os.truncate(self.path, kept[0] if kept else whole)
        self._write({"step": step, "time": time.time(), "event": "went back", "cut_lines": len(kept)})

    def sync(self) -> None:
        """Bring all lines to the disk, as before a checkpoint that counts on them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Bring all lines to the disk, for good."""
        self.sync()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All lines, in order, events too; a torn last line is left out.

    Raises:
        TrainingError: another line that is not a JSON object; the message gives its number.
    """
    return [line for _, line in _lines(path)[0]]


def _lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """Each line with the byte where it begins, and where the whole lines end."""
    found: list[tuple[int, dict[str, Any]]] = []
    start = 0
    content = path.read_bytes()
    for number, raw in enumerate(content.splitlines(keepends=True), 1):
        if not raw.endswith(b"\n"):
            break
        try:
            line = json.loads(raw)
            found.append((start, {**line, "step": int(line["step"])}))
        except (ValueError, TypeError, KeyError) as error:
            if start + len(raw) == len(content):
                break
            remedy = "mend or remove that line, or move the file away"
            raise TrainingError(f"{path}:{number}: not a line of metrics: {error}", remedy) from error
        start += len(raw)
    return found, start


def _cut(path: Path, resume: int) -> tuple[int, int]:
    """Cut the torn end and what came after step `resume` (at 0, all); how many bytes were torn, how many lines cut."""
    lines, whole = _lines(path)
    torn = path.stat().st_size - whole
    kept = next((i for i, (_, line) in enumerate(lines) if line["step"] > resume or not resume), len(lines))
    os.truncate(path, lines[kept][0] if kept < len(lines) else whole)
    return torn, len(lines) - kept
