"""Text for a tokenizer, read with a bar: from paths or recipes, and a sample of it kept to measure with."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from etude.compose.recipes import read_recipe
from etude.compose.voice import Voice
from etude.data.texts import Texts, expected_bytes
from etude.recipe.data import Source

Paths = Sequence[str | os.PathLike[str] | Source]
_PIECE = 4000
"""Characters of a text that are measured together."""
_KEPT = 256
"""Pieces that are kept, at least half of them."""


def sources_of(paths: Paths, columns: Mapping[str, str] | None = None) -> list[Source]:
    """Sources from paths; a recipe (`.yaml`) stands for all that its stages read.

    Args:
        columns: renames columns of the paths, `{theirs: ours}`.

    Raises:
        EtudeError: a recipe cannot be read.
    """
    found: list[Source] = []
    for path in paths:
        if isinstance(path, Source):
            found.append(path)
        elif (name := os.fspath(path)).endswith((".yaml", ".yml")):
            stages = read_recipe(name).recipe.stages.values()
            found += [source for stage in stages for source in stage.data.sources if source not in found]
        else:
            found.append(Source(path=name, columns=dict(columns or {})))
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
        self.texts = Texts(sources_of(paths, columns))
        self.expected = sum(expected_bytes(source) for source in self.texts.sources)
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
