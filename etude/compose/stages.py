"""One stage of life: found finished, gone on with, or begun."""

from dataclasses import dataclass
from pathlib import Path

from etude.compose.begun import Setting, begin
from etude.compose.work import Work
from etude.evaluation.judgement import Judgement
from etude.lineage.record import Record


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A stage's artefact; the judgement is None where it was found finished or is not to be judged."""

    record: Record
    folder: Path
    judgement: Judgement | None
    reused: bool


def run_stage(setting: Setting, name: str, parent: str) -> Finished | None:
    """Run a stage, go on with it, or find it finished; None where it was asked to stop before its end."""
    store, begun = setting.store, begin(setting, name, parent)
    with store.runs.open(begun.artefact, begun.identity, name, begun.opened.parent) as run:
        if (found := store.find(begun.identity)) is not None:
            setting.voice.say(f"nothing has changed since {found.reference} was made; it is used as it is")
            finished = Finished(found, store.folder(found), None, reused=True)
        else:
            work = Work(setting, name, begun, run.folder)
            outcome = work.train()
            if not outcome.finished:
                return None
            judgement = work.judge(outcome)
            record = work.publish(outcome, judgement)
            finished = Finished(record, store.folder(record), judgement, reused=False)
    store.runs.remove(run.folder)
    return finished
