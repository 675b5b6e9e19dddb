"""How does a stage read a prepared corpus? Its documents are tokens already: cut where the context ends, as raw text is."""

import heapq
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from etude.core.sample import Example
from etude.data.counts import Dropped, SourceCounts
from etude.data.encoder import Encoder
from etude.data.samples import windows
from etude.data.shards import Shards, Split
from etude.data.split import Kept, kept_row
from etude.data.supervise import NOTHING
from etude.errors import DataError
from etude.lineage.corpora import SCHEME, corpus_folder
from etude.recipe.data import Data, Source

_OF_ROWS = ("format", "columns", "where", "render")
"""Keys of a source that say something about rows."""


def is_corpus(source: Source) -> bool:
    """Whether it names a prepared corpus."""
    return source.path.startswith(SCHEME)


def called(source: Source) -> str:
    """What messages and counts call it; documents of the two splits must not be taken for each other."""
    return f"{source.path} (held out)" if is_corpus(source) and source.split == "held_out" else source.path


def held_out_of(data: Data, project: Path | None) -> list[Source]:
    """What is held out as a whole: the source that `held_out` names or, where it says nothing, what the corpora hold out themselves.

    Raises:
        DataError: corpora stand beside other sources, and nothing says what of all is held out.
    """
    if isinstance(data.held_out, Source):
        return [data.held_out]
    corpora = [source for source in data.sources if is_corpus(source)]
    if not corpora or data.held_out != Data.model_fields["held_out"].default:
        return []
    if len(corpora) < len(data.sources):
        what = "data.held_out: a corpus holds out documents of its own, and nothing says what is held out of the other sources"
        raise DataError(what, "set it: a share or a number of all rows, or a source such as `{path: corpus:NAME, split: held_out}`")
    apart = [source.model_copy(update={"split": "held_out", "limit": None}) for source in corpora]
    return [source for source in apart if len(_opened(source, project).documents("held_out"))]


def corpus_rows(
    source: Source, context: int, encoder: Encoder, seed: int, counts: SourceCounts, project: Path | None
) -> Iterator[Kept]:
    """The documents of one split of a corpus, counted.

    Raises:
        DataError: the corpus is in another tokenizer's tokens or damaged, or the source says how rows are read.
        LineageError: there is no such corpus.
    """
    for key in _OF_ROWS:
        if getattr(source, key) != Source.model_fields[key].get_default(call_default_factory=True):
            raise DataError(f"{source.path}: `{key}` is for rows, and a corpus is tokens already", "set it where the corpus is prepared")
    if source.split not in ("train", "held_out"):
        raise DataError(f"{source.path}: a corpus has no split {source.split!r}", "take train or held_out")
    split: Split = source.split  # type: ignore[bad-assignment]
    shards, name = _opened(source, project), called(source)
    shards.check_tokenizer(encoder.tokenizer)
    documents, lead = shards.documents(split), shards.manifest["tokenizer"].get("lead", [])
    counts.note(f"{name}: {len(documents):,} documents of {documents.tokens:,} tokens in {shards.folder}")
    chosen = range(len(documents))
    if source.limit is not None:
        chosen = sorted(heapq.nsmallest(source.limit, chosen, key=lambda number: (_order(documents[number], seed), number)))
    counts.read += len(documents)
    counts.left_out_by_limit += len(documents) - len(chosen)
    for number in chosen:
        tokens = documents[number]
        found = windows(tokens[len(lead) :], lead, context)
        if not found:
            counts.bad[NOTHING] = counts.bad.get(NOTHING, 0) + 1
            counts.drop(Dropped(name, number + 1, NOTHING, "no token to learn"))
            continue
        counts.kept += 1
        if len(found) > 1:
            counts.split_documents += 1
            counts.pieces += len(found)
        examples = tuple(Example(samples, name, number + 1) for samples in found)
        counts.unknown += encoder.unknown_in(examples)
        yield kept_row(examples, None, _order(tokens, seed), None)


def _opened(source: Source, project: Path | None) -> Shards:
    return Shards.open(corpus_folder(source.path, project))


def _order(tokens: np.ndarray, seed: int) -> bytes:
    """16 bytes that depend on what a document says and on the seed."""
    return blake2b(tokens.tobytes(), digest_size=16, key=seed.to_bytes(16, "little", signed=True)).digest()
