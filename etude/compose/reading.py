"""Text for a tokenizer, read with a bar: from paths or recipes, and a sample of it kept to measure with."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from etude.compose.corpora import read_corpus_recipe
from etude.compose.recipes import read_recipe
from etude.compose.voice import Voice
from etude.data.texts import Portion, Texts, expected_bytes, held_out_rows
from etude.recipe.data import Source
from etude.recipe.schema import Recipe

Paths = Sequence[str | os.PathLike[str] | Source]
_PIECE = 4000
"""Characters of a text that are measured together."""
_KEPT = 256
"""Pieces that are kept, at least half of them."""


def portions_of(paths: Paths, columns: Mapping[str, str] | None = None) -> list[Portion]:
    """What is to be read; a recipe (`.yaml`) stands for all that its stages or its corpus learn from, without what they hold out.

    Args:
        columns: renames columns of the paths, `{theirs: ours}`.

    Raises:
        EtudeError: a recipe cannot be read, or the rows that it holds out cannot be found.
    """
    found: list[Portion] = []
    for path in paths:
        if isinstance(path, Source):
            found.append(Portion(path))
        elif (name := os.fspath(path)).endswith((".yaml", ".yml")):
            more = _of_corpus(name) if _is_corpus(name) else _of_stages(read_recipe(name).recipe)
            found += [portion for portion in more if portion.source not in [one.source for one in found]]
        else:
            found.append(Portion(Source(path=name, columns=dict(columns or {}))))
    return found


def _is_corpus(name: str) -> bool:
    """Whether a file is a corpus recipe: it has sources of its own. What cannot be read is told by who reads it next."""
    try:
        written = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(written, dict) and "sources" in written and "stages" not in written


def _of_corpus(name: str) -> list[Portion]:
    """Its documents after its rules. Duplicates and documents that hold a benchmark's questions are read too."""
    corpus = read_corpus_recipe(name).recipe
    judges = [rule.judge(Counter()) for rule in corpus.rules]
    return [Portion(source, judges=judges, share=corpus.held_out) for source in corpus.sources]


def _of_stages(recipe: Recipe) -> list[Portion]:
    """What stages read, each source once; a row that any of them holds out is left out of all."""
    aside: dict[int, set[bytes]] = {}
    for stage in recipe.stages.values():
        aside.setdefault(stage.train.seed, set()).update(held_out_rows(stage.data, stage.train.seed))
    found: list[Portion] = []
    for stage in recipe.stages.values():
        for source in stage.data.sources:
            if source not in [one.source for one in found]:
                found.append(Portion(source, stage.train.seed, stage.data, aside))
    return found


class Sample:
    """Pieces spread evenly over all texts that pass by."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._every, self._passed = 1, 0

    def offer(self, text: str) -> None:
        """Perhaps keep some of it."""
        for at in range(0, len(text), _PIECE):
            if self._passed % self._every == 0:
                self.pieces.append(text[at : at + _PIECE])
                if len(self.pieces) == 2 * _KEPT:
                    self.pieces, self._every = self.pieces[::2], 2 * self._every
            self._passed += 1


class Reading:
    """Texts on their way, counted and sampled."""

    def __init__(self, paths: Paths, columns: Mapping[str, str] | None = None):
        self.texts = Texts(portions_of(paths, columns))
        self.expected = sum(expected_bytes(portion.source) for portion in self.texts.portions)
        self.sample = Sample()

    @contextmanager
    def watched(self, voice: Voice) -> Iterator[Iterable[str]]:
        """The texts, drawn as a bar in bytes with their speed."""
        with voice.bar("reading", max(1, self.expected), "bytes") as advance:
            yield self._texts(advance)

    def _texts(self, advance: Callable[[float, str], None]) -> Iterator[str]:
        began, shown = time.perf_counter(), 0
        for text in self.texts:
            self.sample.offer(text)
            yield text
            # Files hold more than their texts, and packed ones less than is guessed: the bar moves on, but never past its end.
            now = min(self.texts.bytes, self.expected)
            advance(now - shown, f"{self.texts.bytes / 1e6 / max(1e-3, time.perf_counter() - began):.1f} MB/s")
            shown = now
        advance(max(1, self.expected) - shown, "learning from it")

    @property
    def place(self) -> str:
        """The row that was read last, as `file:row`."""
        row = self.texts.row
        return f"{row.source}:{row.number}" if row is not None else "nothing read yet"
