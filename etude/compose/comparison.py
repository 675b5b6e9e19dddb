"""Two models on the rows that neither was trained on: what `etude compare A B` measures."""

from dataclasses import dataclass
from pathlib import Path

from etude import catalog
from etude.compose.artefacts import Opened, open_model
from etude.compose.general import general_text_of
from etude.compose.judging import Measured, Trial, divergences, measure, trial_of
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
    voice, store = voice or Voice(), open_store(project)
    use_threads()
    record = _record(second, store) or _record(first, store)
    if record is None:
        raise LineageError(f"neither {first} nor {second} is an artefact of this project", "see `etude list`")
    recipe = Recipe.model_validate(record.recipe, context={"tables": catalog.TABLES})
    stage, settings = recipe.stages[record.stage], recipe.evaluate or Evaluate.model_validate({}, context={"tables": catalog.TABLES})
    device = best_device()
    dtype, _ = choose_dtype(stage.train.dtype, device)
    text = general_text_of(settings)
    trial: Trial | None = None
    measured: list[Measured] = []
    opened: list[Opened] = []
    notes: list[str] = []
    cuts: list[Cut] = []
    for name in (first, second):
        voice.heading(name)
        side = open_model(name, store, dtype=dtype, device=device, voice=voice)
        layout = choose_layout(side.model)
        cuts.append(Cut(stage.train.tokens_per_row, stage.data.minimum_shared, layout.name))
        if trial is None:
            prepared = prepare(stage.data, side.tokenizer, roles=stage.objective.roles, stop_ids=side.stop_ids, seed=stage.train.seed)
            if prepared.fingerprint != record.fingerprints.data:
                notes.append(f"the data has changed since {record.reference} was trained: rows held out now may have been trained on then")
            trial = trial_of(prepared.held_out, prepared.questions, text, side.tokenizer, settings, stage.data.context)
        elif side.tokenizer.get_vocab() != opened[0].tokenizer.get_vocab():
            raise ModelError(f"{first} and {second} do not read the same tokens", "compare models that share a tokenizer")
        if layout.name != cuts[0].layout:
            raise ModelError(f"{first} runs as {cuts[0].layout}, {second} as {layout.name}", "compare models of one architecture")
        policy = Policy(side.model, layout=layout.name, compute=dtype)
        result = measure(policy, trial, cut=cuts[-1], stop_ids=side.stop_ids, settings=settings, voice=voice, who=name)
        measured.append(result)
        opened.append(side)
    assert trial is not None
    for note in notes:
        voice.say(note)
    story = _story(first, second, record, stage, notes, describe(device).name)
    apart = divergences(trial, measured[0], measured[1], cuts[0])
    judgement = judged(story, trial, measured[0], measured[1], apart, text, opened[1].tokenizer, settings)
    folder = store.root / "comparisons" / f"{_file_name(first)}-{_file_name(second)}"
    folder.mkdir(parents=True, exist_ok=True)
    write(judgement, folder)
    return Compared(judgement, folder / "report.html", notes)


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
        recipe=record.recipe,
        environment=versions_here() | {"device": device, "seed": str(stage.train.seed)},
        chat=f"etude chat {second}",
        files=f"etude show {second}",
        warnings=tuple(notes),
    )
