"""A base, and a voice that remembers."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import small_project

from etude.compose.voice import Advance, Voice


class Listener(Voice):
    """Keeps what was said, and which long work was done."""

    def __init__(self):
        self.lines: list[str] = []
        self.bars: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def heading(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def bar(self, label: str, total: float, unit: str) -> Iterator[Advance]:
        self.bars.append(label)
        yield lambda _amount, _note: None

    @property
    def trained(self) -> bool:
        return any(label.startswith("training") for label in self.bars)


@pytest.fixture
def voice() -> Listener:
    return Listener()


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return small_project.make_base(tmp_path_factory.mktemp("bases") / "little")


@pytest.fixture
def project(tmp_path):
    """A folder with answers, pairs and no artefact."""
    small_project.answers(tmp_path / "answers.jsonl")
    small_project.pairs(tmp_path / "pairs.jsonl")
    return tmp_path
