"""What a run tells whoever watches. The command line draws it, a notebook may, and by default nobody listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[float, str], None]
"""Takes how much was done since the last call, and a word on how it goes."""


class Voice:
    """Says nothing; subclasses speak."""

    def say(self, line: str) -> None:
        """A sentence that should be read."""

    def heading(self, line: str) -> None:
        """What begins now."""

    @contextmanager
    def bar(self, label: str, total: float, unit: str) -> Iterator[Advance]:
        """Long work, with its total in `unit`; yields how to report on it."""
        yield lambda _amount, _note: None
