"""A model that is yet to be born, as a base like any other: its tokenizer trained or taken, its weights drawn, kept in the project."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from etude.compose.artefacts import look_at
from etude.compose.newborn import NOTE, SCHEME
from etude.compose.voice import Voice
from etude.data.prepare import training_texts
from etude.errors import ModelError
from etude.lineage.fingerprint import fingerprint
from etude.lineage.store import Store
from etude.lineage.surroundings import versions_here
from etude.model.birth import born, configure, own_source
from etude.model.outline import Outline
from etude.model.quiet import quiet
from etude.model.tokenizer import plain_tokenizer, stop_tokens, tokenizer_digest
from etude.model.vocabulary.bpe import BytePairs
from etude.recipe.birth import TOKENS_PER_PARAMETER, Newborn, Vocabulary, best_size
from etude.recipe.schema import Recipe, Stage

ARITHMETIC = 2
"""Raised when the same description on the same text begins to give another newborn."""


@dataclass(frozen=True, slots=True, eq=False)
class _Unborn:
    """All that decides what a newborn is."""

    newborn: Newborn
    texts: list[str]
    """What its tokenizer is trained on; empty where that is taken."""
    taken: PreTrainedTokenizerBase | None
    """Another model's tokenizer."""
    said: list[str]
    name: str
    """Of its folder among the project's bases."""

    def tokenizer(self, say: Callable[[str], None]) -> PreTrainedTokenizerBase:
        """Its own; told what its user should know."""
        if self.taken is not None:
            return self.taken
        assert isinstance(self.newborn.tokenizer, Vocabulary), "what is not taken is trained"
        return BytePairs(size=self.newborn.tokenizer.size).learn(iter(self.texts), say)


def base_of(recipe: Recipe, store: Store, voice: Voice) -> str:
    """The reference of a recipe's base; a newborn is born first, where it has not been.

    It is called after everything that decides what it is (its description, its tokenizer or the text that trains one, the versions that
    draw its weights), and its fingerprint is that of its files, as of any base.

    Raises:
        ModelError, DataError: it cannot be made so, or its tokenizer's text cannot be read.
    """
    newborn = recipe.base
    if not isinstance(newborn, Newborn):
        return newborn
    unborn = _unborn(recipe, newborn, store, voice)
    notes: list[str] = []

    def write(folder: Path) -> None:
        with quiet(notes):
            tokenizer = unborn.tokenizer(notes.append)
            config, decided = configure(newborn, tokenizer)
            model = born(newborn, config, tokenizer, folder, notes.append)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        notes[:0] = [f"a {config.model_type} of {parameters:,} parameters is born", *unborn.said, *decided]
        about = {"recipe": newborn.model_dump(mode="json"), "versions": versions_here(), "notes": notes}
        (folder / NOTE).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")

    folder = store.base(unborn.name, write)
    for note in json.loads((folder / NOTE).read_text(encoding="utf-8"))["notes"]:
        voice.say(note)
    for line in _spent(recipe, newborn):
        voice.say(line)
    return SCHEME + unborn.name


def look_at_base(recipe: Recipe, store: Store, voice: Voice) -> Outline:
    """How a recipe's base reads text, as `look_at` has it; a newborn's weights are neither drawn nor written for that.

    Raises:
        as `base_of`.
    """
    newborn = recipe.base
    if not isinstance(newborn, Newborn):
        return look_at(newborn, store, voice)
    unborn = _unborn(recipe, newborn, store, voice)
    folder, reference = store.bases / unborn.name, SCHEME + unborn.name
    if (folder / NOTE).exists():
        return look_at(reference, store, voice)
    notes: list[str] = []
    with quiet(notes):
        tokenizer = unborn.tokenizer(notes.append)
        config, decided = configure(newborn, tokenizer)
        stop_ids, ends = stop_tokens(tokenizer, GenerationConfig.from_model_config(config))
    notes = [*unborn.said, *decided, *notes, ends]
    for note in notes:
        voice.say(note)
    return Outline(config, tokenizer, stop_ids, f"yet to be born as {unborn.name}", reference, folder, notes)


def first_stage(recipe: Recipe) -> tuple[str, Stage]:
    """The stage on whose training text a newborn's tokenizer is trained: the first that stands on the base."""
    found = next(((name, stage) for name, stage in recipe.stages.items() if stage.parent == "base"), None)
    if found is None:
        raise ModelError("the base is to be born, and no stage stands on it", "give a stage `parent: base`")
    return found


def _spent(recipe: Recipe, newborn: Newborn) -> Iterator[str]:
    """What `compute` comes to, in words, for stages that it says the end of."""
    if newborn.compute is None:
        return
    tokens = TOKENS_PER_PARAMETER * best_size(newborn.compute)
    for name, stage in recipe.stages.items():
        if stage.parent == "base" and stage.train.tokens == tokens and (step := stage.train.tokens_per_step):
            steps = f"{-(-tokens // step):,} steps of {step:,}"
            yield f"{newborn.compute:.1e} operations: the stage `{name}` learns from {tokens:,} tokens, in {steps} (`tokens_per_step`)"


def _unborn(recipe: Recipe, newborn: Newborn, store: Store, voice: Voice) -> _Unborn:
    texts, said = _texts(recipe, newborn)
    taken = None if isinstance(newborn.tokenizer, Vocabulary) else _taken(newborn.tokenizer, store, voice)
    return _Unborn(newborn, texts, taken, said, f"{recipe.name}-newborn-{_digest(newborn, texts, taken)[:12]}")


def _texts(recipe: Recipe, newborn: Newborn) -> tuple[list[str], list[str]]:
    if not isinstance(newborn.tokenizer, Vocabulary):
        return [], []
    name, stage = first_stage(recipe)
    texts = training_texts(stage.data, stage.train.seed)
    size = sum(len(text.encode()) for text in texts)
    what = f"the {len(texts):,} training texts ({size / 1e6:,.1f} MB) of the stage `{name}`"
    return texts, [f"its tokenizer was trained on {what}, and saw no held-out text of that stage"]


def _digest(newborn: Newborn, texts: list[str], taken: PreTrainedTokenizerBase | None) -> str:
    hashed = hashlib.sha256()
    for text in texts:
        hashed.update(hashlib.sha256(text.encode()).digest())
    drawn_by = {name: versions_here().get(name) for name in ("torch", "transformers", "tokenizers")}
    own = own_source(newborn.architecture) if ":" in newborn.architecture else ""
    said = {"newborn": newborn.model_dump(mode="json"), "texts": hashed.hexdigest(), "drawn by": drawn_by, "own": own}
    what = {"arithmetic": ARITHMETIC, **said}
    return fingerprint(what if taken is None else what | {"tokenizer": tokenizer_digest(taken)})


def _taken(reference: str, store: Store, voice: Voice) -> PreTrainedTokenizerBase:
    return plain_tokenizer(reference) or look_at(reference, store, voice).tokenizer
