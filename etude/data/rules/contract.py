"""What is a rule of a corpus? A leaf that opens into a function: a document's text → the text that is kept, or why it is rejected."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from etude.errors import DataError
from etude.recipe.strict import Leaf


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document is left out."""

    reason: str
    """One of few words, by which rejections are counted."""


Judge = Callable[[str], str | Rejected]
"""A document's text (never blank) → the same text, another text, or a rejection."""


class Rule(Leaf):
    """One rule. The same text always gets the same answer, whatever was judged before."""

    def judge(self, changes: Counter[str]) -> Judge:
        """Open the rule, once in each process; `changes` takes what it changes inside documents, by kind."""
        raise NotImplementedError


def needs(module: str, package: str, what: str) -> Any:
    """A module that the extra `corpus` brings.

    Raises:
        DataError: it is not installed; the remedy is the command that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        brings = "install it with `uv sync --extra corpus`, or `pip install 'etude[corpus]'`"
        raise DataError(f"{what} needs the package {package}: {error}", brings) from error


def filters() -> Any:
    """`etude.data.rules.by_datatrove`, which needs datatrove."""
    return needs("etude.data.rules.by_datatrove", "datatrove", "a rule by datatrove")
