"""What every data format answers: do these columns fit, and what does a row say?"""

from abc import abstractmethod
from typing import Any

from etude.data.records import Record
from etude.recipe.strict import Leaf


class Format(Leaf):
    """A way of writing rows. Its `record` is strict: a row is read whole or refused by the name of the field."""

    @classmethod
    @abstractmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        """The columns that make these first rows look like this format; empty where they do not."""

    @abstractmethod
    def record(self, row: dict[str, Any]) -> Record:
        """What the row says; RowError names the field that is wrong."""


def some(rows: list[dict[str, Any]], column: str, test: Any) -> bool:
    """Whether more than half of the rows that have the column pass the test there."""
    verdicts = [bool(test(row[column])) for row in rows if row.get(column) is not None]
    return bool(verdicts) and sum(verdicts) * 2 > len(verdicts)
