"""The general text that a tuned model should still know: the user's, or what is installed."""

from etude.data.counts import SourceCounts
from etude.data.records import RowError, Text
from etude.data.sources import wanted
from etude.errors import DataError
from etude.evaluation.general_text import GeneralText, general_text
from etude.recipe.schema import Evaluate, Source


def general_text_of(settings: Evaluate) -> GeneralText | None:
    """None where nothing is to be kept.

    Raises:
        DataError: the recipe's own source has a row that is not text.
    """
    if settings.keep is None:
        return None
    source = settings.keep.source
    return general_text() if source is None else general_text(_texts(source), source.path)


def _texts(source: Source) -> list[str]:
    texts = []
    for row, reader in wanted(source, 0, SourceCounts(source.path)):
        record = row.values if isinstance(row.values, RowError) else reader(row.values)
        if isinstance(record, RowError):
            raise record.at(row.source, row.number)
        if not isinstance(record, Text):
            raise DataError(f"{row.source}:{row.number}: general text is wanted here, and this row is something else", "give texts")
        texts.append(record.text)
    return texts
