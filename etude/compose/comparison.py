"""Two models on rows held out of training, and what either has seen of them all the same: what `etude compare A B` measures."""

from dataclasses import dataclass, replace
from pathlib import Path

from etude import catalog
from etude.compose.artefacts import look_up, open_model
from etude.compose.general import general_text_of, lost_before
from etude.compose.judging import Measured, check, divergences, measure, trial_of
from etude.compose.overlap import overlaps
from etude.compose.verdict import Story, judged, write
from etude.compose.voice import Voice
from etude.data.prepare import prepare
from etude.data.rows import Cut
from etude.errors import LineageError, ModelError
from etude.evaluation.judgement import Cost, Judgement
from etude.lineage.record import Record
from etude.lineage.store import Store, now, open_store
from etude.lineage.surroundings import versions_here
from etude.model.device import best_device, choose_dtype, describe, use_threads
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.recipe.schema import Evaluate, Recipe, Stage


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A judgement and where its report lies."""

    judgement: Judgement
    report: Path
    notes: list[str]
    """What a reader should know before believing it."""


def compare(first: str, second: str, *, voice: Voice | None = None, project: Path | None = None) -> Compared:
    """Judge `second` against `first` on the held-out rows of the newer one's stage.

    Raises:
        LineageError: neither is an artefact of this project, so there are no held-out rows to compare on.
        ModelError: they do not share a tokenizer.
    """
    store = open_store(project)
    use_threads()
    record = _record(second, store) or _record(first, store)
    if record is None:
        raise LineageError(f"neither {first} nor {second} is an artefact of this project", "see `etude list`")
    recipe = Recipe.model_validate(record.recipe, context={"tables": catalog.TABLES})
    settings = recipe.evaluate or Evaluate.model_validate({}, context={"tables": catalog.TABLES})
    return compare_as(first, second, record, settings, store, voice or Voice())


def compare_as(first: str, second: str, record: Record, settings: Evaluate, store: Store, voice: Voice) -> Compared:
    """The same by settings of one's own, on the rows that the stage of `record` held out."""
    stage = Recipe.model_validate(record.recipe, context={"tables": catalog.TABLES}).stages[record.stage]
    device = best_device()
    dtype, _ = choose_dtype(stage.train.dtype, device)
    known = [look_up(name, store, voice) for name in (first, second)]
    reader, other = (one.outline for one in known)
    if reader.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ModelError(f"{first} and {second} do not read the same tokens", "compare models that share a tokenizer")
    prepared = prepare(stage.data, reader.tokenizer, roles=stage.objective.roles, stop_ids=reader.stop_ids, seed=stage.train.seed)
    notes = []
    if prepared.fingerprint != record.fingerprints.data:
        notes.append(f"the data has changed since {record.reference} was trained: rows held out now may have been trained on then")
        voice.say(notes[0])
    text = general_text_of(settings)
    trial = trial_of(prepared, text, reader.tokenizer, settings, stage.data.context)
    check(trial, settings)
    seen = list(dict.fromkeys(line for one in known for line in overlaps(trial, prepared, one.parent, store)))
    for line in seen:
        voice.say(line)
    measured: list[Measured] = []
    layouts: list[str] = []
    for name, one in zip((first, second), known, strict=True):
        voice.heading(name)
        side = open_model(one, store, dtype=dtype, device=device, voice=voice)
        layouts.append(choose_layout(side.model).name)
        if layouts[0] != layouts[-1]:
            raise ModelError(f"{first} runs as {layouts[0]}, {second} as {layouts[1]}", "compare models of one architecture")
        cut = Cut(stage.train.tokens_per_row, stage.data.minimum_shared, layouts[0])
        policy = Policy(side.model, layout=layouts[0], compute=dtype)
        measured.append(measure(policy, trial, cut=cut, stop_ids=side.stop_ids, settings=settings, voice=voice, who=name))
    story = _story(first, second, record, stage, notes, describe(device).name)
    apart = divergences(trial, measured[0], measured[1], cut)
    story = replace(story, grave=tuple(seen), before=lost_before(known[0].parent, store))
    judgement = judged(story, trial, measured[0], measured[1], apart, text, reader.tokenizer, settings)
    folder = store.root / "comparisons" / f"{_file_name(first)}-{_file_name(second)}"
    folder.mkdir(parents=True, exist_ok=True)
    write(judgement, folder)
    return Compared(judgement, folder / "report.html", [*seen, *notes])


def _record(name: str, store: Store) -> Record | None:
    try:
        return store.resolve(name)
    except LineageError:
        return None


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "@._-" else "-" for c in name).strip("-")[-60:]


def _story(first: str, second: str, record: Record, stage: Stage, notes: list[str], device: str) -> Story:
    return Story(
        parent=first,
        tuned=second,
        made=now().isoformat(timespec="seconds"),
        cost=Cost(),
        counts=None,
        journal=None,
        unit=stage.objective.unit,
        recipe=record.recipe,
        environment=versions_here() | {"device": device, "seed": str(stage.train.seed)},
        chat=f"etude chat {second}",
        files=f"etude show {second}",
        warnings=tuple(notes),
    )
