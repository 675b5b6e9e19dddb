"""Where does a newborn lie, and is it made of a class of the user's own? What looking models up must know of them."""

import json

from etude.compose.voice import Voice
from etude.errors import ModelError
from etude.lineage.record import Record
from etude.lineage.store import Store
from etude.lineage.tree import ancestors
from etude.model.birth import check_own_class, use_own_class
from etude.model.outline import Outline, outline

SCHEME = "newborn:"
"""Before the name of a folder among the project's bases: the reference of a newborn."""
NOTE = "newborn.json"
"""Beside its weights: what it was made of."""


def outline_of(reference: str, store: Store, voice: Voice) -> Outline:
    """A newborn before its weights are read.

    Raises:
        ModelError: it was cleaned away, or the class that it was made of has changed since.
    """
    folder = store.bases / reference.removeprefix(SCHEME)
    if not (folder / NOTE).exists():
        raise ModelError(f"{reference} is no longer there", "run its recipe again: the same one is born")
    _use(json.loads((folder / NOTE).read_text(encoding="utf-8"))["recipe"])
    check_own_class(folder)
    found = outline(str(folder), bases=store.bases, say=voice.say)
    return Outline(
        found.config, found.tokenizer, found.stop_ids, f"born in this project as {folder.name}", reference, folder, found.notes
    )


def use_class_of(record: Record, store: Store) -> None:
    """Let transformers know the class that an artefact, or what it comes from, was made of: a recipe run in this project named it.

    Raises:
        ModelError: it cannot be read, or its code has changed since.
    """
    for one in (record, *ancestors(record, store.records())):
        _use(one.recipe.get("base"))
    check_own_class(store.folder(record))


def _use(base: object) -> None:
    if isinstance(base, dict) and ":" in str(base.get("architecture", "")):
        use_own_class(str(base["architecture"]))
