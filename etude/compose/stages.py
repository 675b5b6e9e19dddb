"""One stage of life: found finished, gone on with, or begun."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from etude.compose.begun import Begun, Setting
from etude.compose.comparison import compare_as, read_judgement, recipe_of
from etude.compose.processes import leads
from etude.compose.work import Work
from etude.core import ranks
from etude.errors import LineageError
from etude.evaluation.judgement import Judgement
from etude.lineage.clean import progress
from etude.lineage.record import Record
from etude.lineage.store import now
from etude.recipe.schema import Evaluate


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A stage's artefact."""

    record: Record
    folder: Path
    judgement: Judgement | None
    """None where it is not to be judged."""
    report: Path | None
    """The page about it; None where it was never judged."""
    reused: bool
    """Whether it was there already."""


def run_stage(setting: Setting, name: str, begun: Begun) -> Finished | None:
    """Run a stage, go on with it, or find it finished; None where it was asked to stop before it was published."""
    store, voice = setting.store, setting.voice
    with _working(setting, name, begun) as (folder, started):
        if (found := _finished(setting, begun)) is not None:
            voice.say(f"nothing has changed since {found.reference} was made; it is used as it is")
            finished = _as_it_is(setting, name, found)
        else:
            _tell_of_others(setting, begun, folder)
            work = Work(setting, name, begun, folder, started)
            outcome = work.train()
            if outcome.stopped:
                if outcome.finished:
                    voice.say("it is trained to its end, and neither judged nor published yet: the same command does that")
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


def _tell_of_others(setting: Setting, begun: Begun, folder: Path) -> None:
    """Where nothing of this stage is saved, but something of another that would have had its name: the user may think it goes on."""
    runs = setting.store.runs
    if not leads() or runs.step(folder):
        return
    for run in runs.all()[0]:
        if run.name == begun.artefact and run.folder != folder and runs.step(run.folder):
            what = f"the unfinished run {run.folder.name} ({progress(setting.store, run.folder)})"
            why = "had another parent, other data or other settings; it is kept, and goes on when they are as they were"
            setting.voice.say(f"begins at its first step: {what} {why}")


def _as_it_is(setting: Setting, name: str, found: Record) -> Finished:
    """An artefact that is there already; judged again where the recipe now says so in another way, once."""
    folder, settings = setting.store.folder(found), setting.recipe.evaluate
    if settings is None or found.parent is None or not leads():
        return Finished(found, folder, None, _report(setting, found), reused=True)
    if _judged_by(found) == settings and (judgement := read_judgement(folder)) is not None:
        return Finished(found, folder, judgement, _report(setting, found), reused=True)
    setting.voice.say("it was judged by another `evaluate`, or not at all; now by this one")
    stage, parent = setting.recipe.stages[name], found.parent.reference
    compared = compare_as(parent, found.reference, found, stage, settings, setting, kept=True)
    return Finished(found, folder, compared.judgement, compared.report, reused=True)


def _judged_by(found: Record) -> Evaluate | None:
    try:
        return recipe_of(found).evaluate
    except LineageError:  # written for another etude; what it was judged by cannot be told
        return None


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
