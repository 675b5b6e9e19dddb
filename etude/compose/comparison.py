"""Two models on rows held out of training, and what either has seen of them all the same: what `etude compare A B` measures."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from etude import catalog
from etude.compose.artefacts import Known, asking, look_up
from etude.compose.begun import Setting, settled
from etude.compose.general import general_text_of, lost_before
from etude.compose.judging import Measured, divergences, measure
from etude.compose.overlap import overlaps
from etude.compose.streaming import open_compared
from etude.compose.trial import check, set_aside, trial_of
from etude.compose.verdict import Story, judged, write
from etude.compose.voice import Voice
from etude.core.scores import Outputs
from etude.data.prepare import prepare
from etude.data.rows import Cut
from etude.errors import LineageError, ModelError
from etude.evaluation.general_text import GeneralText
from etude.evaluation.judgement import Cost, Judgement
from etude.lineage.fingerprint import fingerprint
from etude.lineage.record import Record
from etude.lineage.store import Store, now, open_store
from etude.lineage.surroundings import versions_here
from etude.model.device import best_device, choose_dtype, describe, use_threads
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.contract import Objective
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
    recipe = recipe_of(record)
    settings = recipe.evaluate or Evaluate.model_validate({}, context={"tables": catalog.TABLES})
    setting = Setting(recipe, record.recipe, store, best_device(), voice or Voice())
    return compare_as(first, second, record, recipe.stages[record.stage], settings, setting)


def recipe_of(record: Record) -> Recipe:
    """The recipe that made an artefact.

    Raises:
        LineageError: this etude cannot read it: it was written for another.
    """
    try:
        recipe = Recipe.model_validate(record.recipe, context={"tables": catalog.TABLES})
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        where = f"{'.'.join(map(str, first['loc']))}: {first['msg']}{more}"
        raise LineageError(
            f"{record.reference}: the recipe in its record cannot be read by this etude: {where}",
            f"run its stage again by a recipe as it is written now, or take etude {record.versions.get('etude', 'of then')}",
        ) from error
    if record.stage not in recipe.stages:
        raise LineageError(f"{record.reference}: the recipe in its record has no stage {record.stage!r}", "run its stage again")
    return recipe


def compare_as(
    first: str, second: str, record: Record, stage: Stage, settings: Evaluate, setting: Setting, *, kept: bool = False
) -> Compared:
    """The same by settings of one's own.

    Args:
        record: whose held-out rows are asked.
        stage: its stage, as it reads them, and where its base lies.
        kept: take the judgement of the same two by the same settings that was made before, where there is one.
    """
    store, voice = setting.store, setting.voice
    known = [look_up(name, store, voice) for name in (first, second)]
    text = general_text_of(settings)
    place = lambda rows: store.root / "comparisons" / _folder_name(known, rows, settings, text)
    if kept and (found := read_judgement(folder := place(record.fingerprints.data))) is not None:
        voice.say(f"judged before by the same `evaluate`: {folder.name}")
        return Compared(found, folder / "report.html", [])
    dtype, _ = choose_dtype(stage.train.dtype, setting.device)
    reader, other = (one.outline for one in known)
    if reader.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ModelError(f"{first} and {second} do not read the same tokens", "compare models that share a tokenizer")
    asked = {"roles": stage.objective.roles, "stop_ids": reader.stop_ids, "seed": stage.train.seed, "project": store.root}
    prepared = prepare(stage.data, reader.tokenizer, **asked)
    notes = []
    if prepared.fingerprint != record.fingerprints.data:
        notes.append(f"the data has changed since {record.reference} was trained: rows held out now may have been trained on then")
        voice.say(notes[0])
    objective = settled(stage.objective, prepared, reader.tokenizer, voice)
    prepared, _ = set_aside(prepared, stage.train)
    trial = trial_of(prepared, text if objective.writes else None, reader.tokenizer, settings, stage.data.context, objective)
    check(trial, settings)
    seen = list(dict.fromkeys(line for one in known for line in overlaps(trial, prepared, one.parent, store)))
    for line in seen:
        voice.say(line)
    measured: list[Measured] = []
    layouts: list[str] = []
    for name, one in zip((first, second), known, strict=True):
        voice.heading(name)
        side = open_compared(one, stage, setting, dtype)
        layouts.append(choose_layout(side.model).name)
        if layouts[0] != layouts[-1]:
            raise ModelError(f"{first} runs as {layouts[0]}, {second} as {layouts[1]}", "compare models of one architecture")
        cut = Cut(stage.train.tokens_per_row, stage.data.minimum_shared, layouts[0])
        policy = Policy(side.model, layout=layouts[0], compute=dtype)
        head = side.outputs[1] if side.outputs is not None and side.outputs[1].at == "leaf" else None
        _check_head(name, head, objective, last=len(measured) == 1)
        how = dict(stop_ids=side.stop_ids, settings=settings, voice=voice, who=name, by_head=head is not None)
        measured.append(measure(policy, trial, cut=cut, **how))
    names = [one.parent.reference for one in known]
    story = _story(names[0], names[1], record, stage, notes, describe(setting.device).name, known[1].outputs)
    apart = divergences(trial, measured[0], measured[1], cut)
    story = replace(story, grave=tuple(seen), before=lost_before(known[0].parent, store))
    judgement = judged(story, trial, measured[0], measured[1], apart, text, reader.tokenizer, settings)
    folder = place(prepared.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    write(judgement, folder)
    return Compared(judgement, folder / "report.html", [*seen, *notes])


def _check_head(name: str, head: Outputs | None, objective: Objective, *, last: bool) -> None:
    """What scores is compared with what scores the same; only the first may be without a head, as a parent is.

    Raises:
        ModelError: it cannot be.
    """
    if head is not None and head != objective.outputs:
        raise ModelError(f"{name} scores {', '.join(head.labels[:5])}, which these rows do not ask for", "compare what scores the same")
    if head is None and last and not objective.writes:
        raise ModelError(f"{name} has no head that scores", "name it first: it is then what the other is compared with")


def read_judgement(folder: Path) -> Judgement | None:
    """The judgement in a folder; None where it, or the report beside it, is missing, torn or of another layout."""
    try:
        judgement = Judgement.from_json((folder / "judgement.json").read_text(encoding="utf-8"), str(folder))
    except (OSError, UnicodeDecodeError, LineageError):
        return None
    return judgement if (folder / "report.html").exists() else None


def _folder_name(known: list[Known], rows: str, settings: Evaluate, text: GeneralText | None) -> str:
    """Both sides by what their names stand for now, and a hash of how they are judged and on which rows: others have another page."""
    how = {
        "sides": [one.parent.fingerprint for one in known],
        "rows": rows,
        "evaluate": settings.model_dump(mode="json", exclude_defaults=True),
        "text": list(text.passages) if text is not None else [],
    }
    sides = [_file_name(one.parent.reference) for one in known]
    return f"{'-'.join(sides)}-{fingerprint(how)[:8]}"


def _record(name: str, store: Store) -> Record | None:
    try:
        return store.resolve(name)
    except LineageError:
        return None


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "@._-" else "-" for c in name).strip("-")[-60:]


def _story(
    first: str, second: str, record: Record, stage: Stage, notes: list[str], device: str, outputs: tuple[str, Outputs] | None
) -> Story:
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
        chat=asking(second, outputs),
        files=f"etude show {second}",
        warnings=tuple(notes),
    )
