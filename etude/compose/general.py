"""The general text that a tuned model should still know: the user's, or what is installed. And what earlier stages lost of it."""

from etude.data.counts import SourceCounts
from etude.data.records import RowError, Text
from etude.data.sources import wanted
from etude.errors import DataError
from etude.evaluation.general_text import GeneralText, general_text
from etude.evaluation.judge import GENERAL_LOSS
from etude.lineage.record import Parent
from etude.lineage.store import Store
from etude.lineage.tree import ancestors
from etude.recipe.data import Source
from etude.recipe.schema import Evaluate


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


def lost_before(model: Parent, store: Store) -> dict[str, float]:
    """By how many nats a token the loss on general text rose in each stage that `model` came from, the first one first.

    From the records of these stages, each measured as its own recipe said; a stage that measured nothing is not among them.
    """
    if model.kind != "artefact":
        return {}
    record = store.resolve(model.reference)
    rises = {}
    for one in reversed((record, *ancestors(record, store.records()))):
        after, before = one.metrics.get(GENERAL_LOSS), one.metrics.get(f"{GENERAL_LOSS} (parent)")
        if isinstance(after, (int, float)) and isinstance(before, (int, float)):
            rises[one.reference] = after - before
    return rises
