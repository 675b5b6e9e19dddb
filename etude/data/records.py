"""What a row of data says, whatever its file looked like: text, a prompt with its completion, a conversation, a pair, a rated answer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etude.errors import DataError


class RowError(DataError):
    """One row that cannot be used. `kind` is what it is counted under; the message names the field; `at` adds file and row."""

    def __init__(self, kind: str, message: str, remedy: str = ""):
        super().__init__(message, remedy)
        self.kind = kind

    def at(self, source: str, row: int) -> "RowError":
        """The same error, with its place."""
        return RowError(self.kind, f"{source}:{row}: {self.message}", self.remedy)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, as a chat template takes it."""

    role: str
    """system, developer, user, assistant or tool."""
    content: str
    """What is said; empty where an assistant only calls tools."""
    train: bool | None = None
    """Whether the turn is learnt, where the row says so itself; None leaves it to `train_on`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever else templates read: tool_calls, name, tool_call_id, reasoning_content …"""

    def same(self, other: "Message") -> bool:
        """Whether the model would read the same turn."""
        return (self.role, self.content, self.extra) == (other.role, other.content, other.extra)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, of which some assistant turns are learnt."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    """Functions the assistant may call, as JSON schemas."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain strings: user and assistant turns where the tokenizer has a chat template, else one text after the other."""

    prompt: str
    completion: str
    system: str | None = None

    def conversation(self) -> Conversation:
        system = () if self.system is None else (Message("system", self.system),)
        return Conversation((*system, Message("user", self.prompt), Message("assistant", self.completion)))


@dataclass(frozen=True, slots=True)
class Text:
    """Raw text, every token of which is learnt."""

    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt. Of each, only the turns behind the common prompt are learnt."""

    chosen: Conversation | Completion
    rejected: Conversation | Completion


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer that was liked or not."""

    answer: Conversation | Completion
    desirable: bool


Record = Text | Completion | Conversation | Pair | Rated


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A held-out row as it will be asked: what the model reads, and what it should say."""

    tokens: np.ndarray
    """[L] int32, everything before the last answer, generation prompt included."""
    messages: tuple[dict[str, Any], ...]
    """The same turns for people to read."""
    expected: str
    """The row's own answer."""
    source: str
    """File or data set it came from."""
    row: int
    """Row number in that source, counted from 1."""
