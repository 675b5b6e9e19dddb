"""A base that writes another language or domain in fewer tokens: what lies behind `etude tokenizer extend`."""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from etude.compose.artefacts import Known, look_up, open_model
from etude.compose.reading import Paths, Reading
from etude.compose.tokenizers import appear, free_folder
from etude.compose.voice import Voice
from etude.errors import DataError, EtudeError, ModelError
from etude.lineage.durable import lacking
from etude.lineage.store import Store, open_store
from etude.model.quiet import quiet
from etude.model.tokenizer import load_tokenizer, plain_tokenizer
from etude.model.vocabulary.continued import Continued, check_byte_level, continued, counted
from etude.model.vocabulary.measure import Written, written
from etude.model.vocabulary.new_rows import add_rows


@dataclass(frozen=True, slots=True)
class ExtendedBase:
    """A tokenizer with more tokens, and the model that knows them where there was one."""

    folder: Path
    """Where it lies, in Hugging Face layout; a base for recipes if it is a model."""
    added: range
    """The new ids."""
    before: Written
    """How the base wrote a sample of the texts."""
    after: Written
    """How it writes the same sample now."""
    lines: tuple[str, ...]
    """What was read and left out, and what was done to the weights."""


def tokenizer_extend(
    base: str | os.PathLike[str],
    paths: Paths,
    *,
    to: str | os.PathLike[str],
    add: int = 1024,
    minimum_count: int = 2,
    columns: Mapping[str, str] | None = None,
    voice: Voice | None = None,
    project: Path | None = None,
) -> ExtendedBase:
    """Go on with a byte-level BPE's merges on new text: old ids stay, new tokens begin as the mean of the old ones they are made of.

    Args:
        base: a model by any of its names (its weights are extended too, adapters melted in), or a folder with a tokenizer alone.
        paths: as `tokenizer_train` takes them.
        to: a folder that is made.
        add: how many tokens.
        minimum_count: how often a pair must occur to become one.
        columns: renames columns, `{theirs: ours}`.

    Raises:
        EtudeError: the base is no byte-level BPE, or quantised; a file cannot be read; nothing is to be joined; there is no room.
    """
    folder, voice = free_folder(to), voice or Voice()
    if add < 1:
        raise EtudeError(f"{add} tokens cannot be added", "add 1 or more")
    tokenizer, store, known = plain_tokenizer(base), None, None
    if tokenizer is None:
        store = open_store(project)
        known = look_up(os.fspath(base), store, voice)
        tokenizer = known.outline.tokenizer
    old = tokenizer.backend_tokenizer  # type: ignore[missing-attribute]
    check_byte_level(old)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        voice.say(line)

    reading = Reading(paths, columns)
    with reading.watched(voice) as texts:
        words = counted(old, texts)
    for line in reading.texts.lines():
        say(line)
    if not reading.texts.bytes:
        raise DataError("no text to learn new tokens from", "name files that hold text")
    with voice.bar("learning", add, "tokens") as advance:
        result = continued(old, words, add, minimum_count=minimum_count, learnt=lambda: advance(1, ""))
    if (found := len(result.parts)) < add:
        say(f"no more pairs occur {minimum_count} times: {found:,} tokens were added instead of {add:,}")
    if result.unused:
        say(f"{result.unused:,} of the new tokens occur in this text only within longer new ones")
    extended = _with(tokenizer, result.tokenizer)
    before, after = written(tokenizer, reading.sample.pieces), written(extended, reading.sample.pieces)
    say(f"bytes a token, on a sample of the text: {before.bytes_per_token:.2f} before, {after.bytes_per_token:.2f} after")
    ids = range(min(result.parts), max(result.parts) + 1)
    about = {
        "what": "a tokenizer with more tokens" if known is None else "a base whose tokenizer has more tokens",
        "base": os.fspath(base) if known is None else known.parent.reference,
        "base_fingerprint": None if known is None else known.parent.fingerprint,
        "new_tokens": [ids.start, ids.stop],
        "minimum_count": minimum_count,
        "read": [{"path": counts.path, "rows": counts.kept} for counts in reading.texts.counts],
        "bytes": reading.texts.bytes,
        "bytes_per_token": {"before": before.bytes_per_token, "after": after.bytes_per_token},
        "rows": lines,
    }

    def write(aside: Path) -> None:
        notes: list[str] = []
        with quiet(notes):
            extended.save_pretrained(aside)
            if known is not None and store is not None:
                _save_model(known, store, result, aside, voice, say)
        for note in notes:
            say(note)
        _check_read_back(aside, extended, reading.sample.pieces)

    if known is not None and (figures := lacking(folder, _bytes(known.outline.folder))):
        raise EtudeError(f"no room for {folder}: {figures}", "make room, or name a folder on another disk")
    appear(folder, write, about)
    return ExtendedBase(folder, ids, before, after, tuple(lines))


def _with(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerBase:
    """The same marks and template over other merges."""
    other: Any = copy.deepcopy(tokenizer)
    other._tokenizer = backend
    return other


def _save_model(known: Known, store: Store, result: Continued, aside: Path, voice: Voice, say: Any) -> None:
    written_in = known.outline.config.dtype
    dtype = written_in if isinstance(written_in, torch.dtype) else torch.float32
    opened = open_model(known, store, dtype=dtype, device=torch.device("cpu"), voice=voice, merge=True)
    for line in add_rows(opened.model, result.parts):
        say(line)
    opened.model.save_pretrained(aside)


def _check_read_back(folder: Path, extended: PreTrainedTokenizerBase, texts: list[str]) -> None:
    """Some families' tokenizers are built anew from their parts when they are read, not from what was saved."""
    again = load_tokenizer(folder)
    if again.get_vocab() != extended.get_vocab() or any(again(text)["input_ids"] != extended(text)["input_ids"] for text in texts[:64]):
        raise ModelError(
            f"transformers reads the extended tokenizer, a {type(extended).__name__}, otherwise than it was saved", "take another base"
        )


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
