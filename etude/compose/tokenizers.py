"""A tokenizer from text, and what a tokenizer does to a text: the functions behind `etude tokenizer train` and `show`."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from etude.catalog import TABLES
from etude.compose.artefacts import look_at
from etude.compose.reading import Paths, Reading
from etude.compose.seen_tokens import SeenTokens
from etude.compose.voice import Voice
from etude.errors import EtudeError
from etude.lineage.durable import new_aside, settle
from etude.lineage.store import open_store
from etude.lineage.surroundings import versions_here
from etude.model.tokenizer import plain_tokenizer
from etude.model.vocabulary.contract import Vocabulary
from etude.model.vocabulary.foreign import ForeignLetter
from etude.model.vocabulary.measure import Written, written
from etude.recipe.options import leaf

NOTE = "made_from.json"
"""What a tokenizer or an extended base was made from, beside its files."""
SOME_TEXT = "The 3 hedgehogs didn't cost 1,234.50 €: naïve, schön, Привет, 你好 🙂\n\tdef f(x):\n\t    return x ** 2\n"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A tokenizer that was learnt."""

    tokenizer: PreTrainedTokenizerBase
    folder: Path
    """Where it lies, in Hugging Face layout."""
    size: int
    """Tokens, the marks among them."""
    sample: Written
    """How it writes a sample of what it was learnt from."""
    lines: tuple[str, ...]
    """What was read and left out, and what it has no token for."""


def tokenizer_train(
    paths: Paths,
    *,
    to: str | os.PathLike[str],
    kind: str | Vocabulary = "bpe",
    options: Mapping[str, Any] | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    voice: Voice | None = None,
) -> Trained:
    """Learn a tokenizer from text and save it as a Hugging Face tokenizer; the same text gives the same `tokenizer.json`, to the byte.

    Args:
        paths: what a recipe's source can be: files, folders, globs, `hub:owner/name`, `package:…`; recipes (`.yaml`) for what they learn.
        to: a folder that is made.
        kind: a name of the catalog's table `tokenizer`, or such a leaf.
        options: of that kind, as a mapping or as `key=value` texts.
        columns: renames columns, `{theirs: ours}`, so that the text stands in `text`.

    Raises:
        EtudeError: an option or file that cannot be read, with its name; no text; a chat template that cannot be used.
    """
    folder, voice = free_folder(to), voice or Voice()
    vocabulary = kind if isinstance(kind, Vocabulary) else _chosen(kind, options)
    reading, lines = Reading(paths, columns), list[str]()

    def say(line: str) -> None:
        lines.append(line)
        voice.say(line)

    with reading.watched(voice) as texts:
        try:
            tokenizer = vocabulary.learn(iter(texts), say)
        except ForeignLetter as error:
            raise ForeignLetter(error.letter, reading.place) from error
    for line in reading.texts.lines():
        say(line)
    sample = written(tokenizer, reading.sample.pieces)
    about = {
        "what": "a tokenizer",
        **vocabulary.model_dump(mode="json"),
        "read": [{"path": counts.path, "rows": counts.kept} for counts in reading.texts.counts],
        "texts": reading.texts.texts,
        "bytes": reading.texts.bytes,
        "bytes_per_token": sample.bytes_per_token,
    }
    appear(folder, tokenizer.save_pretrained, about)
    return Trained(tokenizer, folder, len(tokenizer), sample, tuple(lines))


def _chosen(kind: str, options: Mapping[str, Any] | Sequence[str]) -> Vocabulary:
    given, overrides = (options, ()) if isinstance(options, Mapping) else ({}, options)
    chosen = leaf("tokenizer", kind, given, overrides, tables=TABLES)
    assert isinstance(chosen, Vocabulary), "the table holds no others"
    return chosen


def tokenizer_show(
    name: str | os.PathLike[str], text: str | None = None, *, voice: Voice | None = None, project: Path | None = None
) -> SeenTokens:
    """What a tokenizer does to a text: its pieces, bytes a token, whether the text comes back, marks, chat template.

    Args:
        name: a folder with a tokenizer, or a model by any of its names; no weights are read.
        text: by default a line with a little of everything.

    Raises:
        EtudeError: there is no such tokenizer.
    """
    tokenizer = plain_tokenizer(name) or look_at(os.fspath(name), open_store(project), voice or Voice()).tokenizer
    return SeenTokens(tokenizer, SOME_TEXT if text is None else text)


def free_folder(to: str | os.PathLike[str]) -> Path:
    """A folder that may be written. EtudeError where something is there."""
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EtudeError(f"{folder} exists already", "name another folder, or move that one away")
    return folder


def appear(folder: Path, write: Callable[[Path], object], about: Mapping[str, Any]) -> None:
    """Write a folder aside, with a note of what it is from, and give it its name when it is whole. EtudeError where the disk refuses."""
    try:
        aside = new_aside(folder.absolute().parent)
        try:
            write(aside)
            note = json.dumps({**about, "versions": versions_here()}, indent=1, ensure_ascii=False)
            (aside / NOTE).write_text(note + "\n", encoding="utf-8")
            if folder.exists():  # it was empty
                folder.rmdir()
            settle(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise EtudeError(f"{folder}: could not be written: {error}", "make room, or name another folder") from error
