"""In which order is a corpus prepared, and by how many processes? Each step leaves files, and what has left its files is not done again."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude import catalog
from etude.data.corpus.clean import Cleaner, part_path
from etude.data.corpus.distinct import Part, find_duplicates, part_name, parts
from etude.data.corpus.documents import Document, parts_of, read_counts
from etude.data.corpus.plan import Plan, read_plan
from etude.data.corpus.tokenise import Writer
from etude.data.counts import SourceCounts
from etude.errors import DataError
from etude.lineage.durable import write_file

Advance = Callable[[float, str], None]
"""Megabytes done since the last call, and a word on how it goes."""
Submit = Callable[..., Future]


class Hands:
    """The two kinds of work on parts, by one process; what it opened is kept for the next part."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._cleaner: Cleaner | None = None
        self._writer: Writer | None = None

    def clean(self, source: int, name: str, documents: list[Document]) -> int:
        """Clean one part; returns its characters."""
        self._cleaner = self._cleaner or Cleaner(self.plan)
        self._cleaner.clean(source, name, documents)
        return sum(len(document.text) for document in documents)

    def tokenise(self, part: Part) -> int:
        """Tokenise one part; returns its bytes on disk."""
        self._writer = self._writer or Writer(self.plan)
        self._writer.tokenise(part)
        return part_path(self.plan.folder, part.name)(".parquet").stat().st_size


def clean_unit(plan: Plan, number: int, submit: Submit, stop: Callable[[], bool]) -> Iterator[Future | Callable[[], None]]:
    """The work of one unit: futures of its parts, and behind them what writes down that the unit is whole."""
    done = plan.folder / "units" / f"{number:06d}.json"
    if done.exists():
        return
    counts, count = SourceCounts(plan.recipe.sources[plan.units[number].source].path), 0
    for documents in parts_of(plan, number, counts):
        if stop():
            return
        name = part_name(number, count)
        count += 1
        if not part_path(plan.folder, name)(".json").exists():
            yield submit("clean", plan.units[number].source, name, documents)
    said = {"parts": count, **read_counts(counts)}
    yield lambda: write_file(done, json.dumps(said, ensure_ascii=False))


def run(plan: Plan, workers: int, bar: Callable[[str, float], Any], stop: Callable[[], bool] = lambda: False) -> bool:
    """Clean, find duplicates, tokenise: all steps until the parts are whole; False where `stop` asked to leave before.

    Args:
        plan: saved in its folder.
        workers: processes; the result is the same for any number.
        bar: a context manager of a label and a total in megabytes, which yields an `Advance`.
    """
    for name in ("units", "parts"):
        (plan.folder / name).mkdir(exist_ok=True)
    with _processes(plan, workers) as submit:
        if not _clean(plan, workers, submit, bar, stop):
            return False
        find_duplicates(plan)
        todo = [part for part in parts(plan) if not part_path(plan.folder, part.name)(".tokens.json").exists()]
        size = lambda part: part_path(plan.folder, part.name)(".parquet").stat().st_size
        with bar("tokenising", sum(map(size, todo)) / 1e6) as advance:
            work = (submit("tokenise", part) for part in todo)
            return all(_finished(work, workers, _told(advance), stop))


def _clean(plan: Plan, workers: int, submit: Submit, bar: Callable[[str, float], Any], stop: Callable[[], bool]) -> bool:
    with bar("cleaning", sum(unit.size for unit in plan.units) / 1e6) as advance:
        tell = _told(advance)
        for number, unit in enumerate(plan.units):
            told = 0

            def within(done: int, size: int = unit.size) -> None:
                nonlocal told  # text may be longer than its compressed file: the bar never runs ahead of the unit
                step = min(done, max(0, size - told))
                told += step
                tell(step, done)

            if not all(_finished(clean_unit(plan, number, submit, stop), workers, within, stop)) or stop():
                return False
            tell(max(0, unit.size - told), 0)
    return True


def _told(advance: Advance) -> Callable[..., None]:
    """Reports bytes as megabytes, with the speed since the beginning of this sitting."""
    began, read = time.monotonic(), 0

    def tell(done: int, text: int | None = None) -> None:
        nonlocal read
        read += done if text is None else text
        advance(done / 1e6, f"{read / 1e6 / max(time.monotonic() - began, 1e-6):.1f} MB/s")

    return tell


def _finished(
    work: Iterable[Future | Callable[[], None]], workers: int, tell: Callable[[int], None], stop: Callable[[], bool]
) -> Iterator[bool]:
    """Do the work with a few pieces under way; False where it was stopped. Nothing that was begun is left half done."""
    held: deque[Future | Callable[[], None]] = deque()

    def first() -> None:
        one = held.popleft()
        if isinstance(one, Future):
            tell(_result(one))
        else:
            one()

    for one in work:
        held.append(one)
        while len(held) > 2 * workers or (held and callable(held[0])):
            first()
        if stop():
            break
    stopped = stop()
    while held:
        one = held[0]
        if stopped and (not isinstance(one, Future) or one.cancel()):
            held.popleft()
        else:
            first()
    yield not stopped


@contextmanager
def _told_what_ended() -> Iterator[None]:
    """A process that was killed, in words."""
    try:
        yield
    except BrokenProcessPool as error:
        what = "a process ended before its work was done, perhaps for want of memory"
        raise DataError(what, "give the same command again with fewer `--workers`: what is done is kept") from error


def _result(future: Future) -> Any:
    with _told_what_ended():
        return future.result()


def here(hands: Hands) -> Submit:
    """Work that is done at once, in this process."""

    def submit(kind: str, *arguments: Any) -> Future:
        future: Future = Future()
        future.set_result(getattr(hands, kind)(*arguments))
        return future

    return submit


_hands: Hands | None = None


@contextmanager
def _processes(plan: Plan, workers: int) -> Iterator[Submit]:
    """How to hand out work: to this process alone, or to several."""
    if workers <= 1:
        yield here(Hands(plan))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_open, initargs=(str(plan.folder),)) as pool:

        def submit(kind: str, *arguments: Any) -> Future:
            with _told_what_ended():
                return pool.submit(_do, kind, *arguments)

        try:
            yield submit
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _open(folder: str) -> None:
    """In a new process: stop with the first process, not by Ctrl-C, and tokenise with one thread."""
    global _hands
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _hands = Hands(read_plan(Path(folder), catalog.TABLES))


def _do(kind: str, *arguments: Any) -> int:
    assert _hands is not None, "opened when the process began"
    return getattr(_hands, kind)(*arguments)
