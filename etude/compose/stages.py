"""One stage of life: found finished, gone on with, or begun."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from etude.compose.begun import Begun, Setting, begin
from etude.compose.comparison import compare_as
from etude.compose.processes import first_alone, leads
from etude.compose.work import Work
from etude.core import ranks
from etude.errors import LineageError
from etude.evaluation.judgement import Judgement
from etude.lineage.record import Record
from etude.lineage.store import now


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A stage's artefact."""

    record: Record
    folder: Path
    judgement: Judgement | None
    """None where it is not to be judged, or was judged in the same way when it was made."""
    report: Path | None
    """The page about it; None where it was never judged."""
    reused: bool
    """Whether it was there already."""


def run_stage(setting: Setting, name: str, parent: str) -> Finished | None:
    """Run a stage, go on with it, or find it finished; None where it was asked to stop before its end."""
    store, voice = setting.store, setting.voice
    with first_alone():  # a base may have to be downloaded or converted
        begun = begin(setting, name, parent)
    with _working(setting, name, begun) as (folder, started):
        if (found := _finished(setting, begun)) is not None:
            voice.say(f"nothing has changed since {found.reference} was made; it is used as it is")
            finished = _as_it_is(setting, found)
        else:
            work = Work(setting, name, begun, folder, started)
            outcome = work.train()
            if not outcome.finished:
                return None
            judgement = None
            if leads():
                judgement = work.publish(outcome, work.judge(outcome))
            ranks.barrier()
            record = _finished(setting, begun)
            assert record is not None, "it was published a moment ago"
            finished = Finished(record, store.folder(record), judgement, _report(setting, record), reused=False)
    if leads() and folder.exists():
        store.runs.remove(folder)
    return finished


def _as_it_is(setting: Setting, found: Record) -> Finished:
    """An artefact that is there already; judged again where the recipe now says so in another way."""
    folder, settings = setting.store.folder(found), setting.recipe.evaluate
    if settings is None or found.parent is None or found.recipe["evaluate"] == setting.mapping["evaluate"] or not leads():
        return Finished(found, folder, None, _report(setting, found), reused=True)
    setting.voice.say("it was judged by another `evaluate`, so it is judged again")
    compared = compare_as(found.parent.reference, found.reference, found, settings, setting.store, setting.voice)
    return Finished(found, folder, compared.judgement, compared.report, reused=True)


def _report(setting: Setting, record: Record) -> Path | None:
    report = setting.store.folder(record) / "report.html"
    return report if report.exists() else None


@contextmanager
def _working(setting: Setting, name: str, begun: Begun) -> Iterator[tuple[Path, datetime]]:
    """The stage's folder and when it began, locked by the first process; the others follow it there."""
    runs = setting.store.runs
    if not leads():
        ranks.barrier()
        yield runs.place(begun.artefact, begun.identity), now()
        return
    with runs.open(begun.artefact, begun.identity, name, begun.known.parent) as run:
        ranks.barrier()
        yield run.folder, run.started


def _finished(setting: Setting, begun: Begun) -> Record | None:
    """The stage's artefact, if it is there; all processes take the first one's word.

    Raises:
        LineageError: this process does not see what the first one sees.
    """
    found = setting.store.find(begun.identity)
    if bool(ranks.first(found is not None)) != (found is not None):
        raise LineageError(f"{begun.artefact}: processes see different projects or data", "give all of them the same folders")
    return found
