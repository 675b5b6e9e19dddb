"""A model that is yet to be born, as a base like any other: its tokenizer trained or taken, its weights drawn, kept in the project."""

import hashlib
import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from etude.compose.artefacts import look_at
from etude.compose.newborn import NOTE, SCHEME
from etude.compose.voice import Voice
from etude.data.prepare import training_texts
from etude.errors import ModelError
from etude.lineage.fingerprint import fingerprint
from etude.lineage.store import Store
from etude.lineage.surroundings import versions_here
from etude.model.birth import born, configure, own_source
from etude.model.quiet import quiet
from etude.model.tokenizer import plain_tokenizer
from etude.model.vocabulary.bpe import BytePairs
from etude.recipe.birth import Newborn, Vocabulary
from etude.recipe.schema import Recipe, Stage

ARITHMETIC = 2
"""Raised when the same description on the same text begins to give another newborn."""


def base_of(recipe: Recipe, store: Store, voice: Voice) -> str:
    """The reference of a recipe's base; a newborn is born first, where it has not been.

    It is called after everything that decides what it is (its description, its tokenizer's text, the versions that draw its weights),
    and its fingerprint is that of its files, as of any base.

    Raises:
        ModelError, DataError: it cannot be made so, or its tokenizer's text cannot be read.
    """
    newborn = recipe.base
    if not isinstance(newborn, Newborn):
        return newborn
    texts, said = _texts(recipe, newborn)
    name = f"{recipe.name}-newborn-{_digest(newborn, texts)[:12]}"
    notes: list[str] = []

    def write(folder: Path) -> None:
        with quiet(notes):
            tokenizer = _tokenizer(newborn, texts, notes, store, voice)
            config, decided = configure(newborn, tokenizer)
            model = born(newborn, config, tokenizer, folder, notes.append)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        notes[:0] = [f"a {config.model_type} of {parameters:,} parameters is born", *said, *decided]
        about = {"recipe": newborn.model_dump(mode="json"), "versions": versions_here(), "notes": notes}
        (folder / NOTE).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")

    folder = store.base(name, write)
    for note in json.loads((folder / NOTE).read_text(encoding="utf-8"))["notes"]:
        voice.say(note)
    return SCHEME + name


def first_stage(recipe: Recipe) -> Stage:
    """The stage on whose training text a newborn's tokenizer is trained: the first that stands on the base."""
    found = next((stage for stage in recipe.stages.values() if stage.parent == "base"), None)
    if found is None:
        raise ModelError("the base is to be born, and no stage stands on it", "give a stage `parent: base`")
    return found


def _texts(recipe: Recipe, newborn: Newborn) -> tuple[list[str], list[str]]:
    if not isinstance(newborn.tokenizer, Vocabulary):
        return [], []
    stage = first_stage(recipe)
    texts = training_texts(stage.data, stage.train.seed)
    size = sum(len(text.encode()) for text in texts)
    return texts, [f"its tokenizer was trained on the {len(texts):,} training texts ({size / 1e6:,.1f} MB), and saw no held-out text"]


def _digest(newborn: Newborn, texts: list[str]) -> str:
    hashed = hashlib.sha256()
    for text in texts:
        hashed.update(hashlib.sha256(text.encode()).digest())
    drawn_by = {name: versions_here().get(name) for name in ("torch", "transformers", "tokenizers")}
    own = own_source(newborn.architecture) if ":" in newborn.architecture else ""
    said = {"newborn": newborn.model_dump(mode="json"), "texts": hashed.hexdigest(), "drawn by": drawn_by, "own": own}
    return fingerprint({"arithmetic": ARITHMETIC, **said})


def _tokenizer(newborn: Newborn, texts: list[str], notes: list[str], store: Store, voice: Voice) -> PreTrainedTokenizerBase:
    if isinstance(newborn.tokenizer, Vocabulary):
        return BytePairs(size=newborn.tokenizer.size).learn(iter(texts), notes.append)
    return plain_tokenizer(newborn.tokenizer) or look_at(newborn.tokenizer, store, voice).tokenizer
