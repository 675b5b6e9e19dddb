"""One part of a corpus, tokenised: without its duplicates, the held-out documents apart, in the tokenizer's own way."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from etude.data.corpus.clean import packed, part_path
from etude.data.corpus.distinct import Part, duplicates_of
from etude.data.corpus.plan import Plan, Writing
from etude.data.encoder import Encoder
from etude.data.shards import SPLITS, tokenizer_hash
from etude.errors import DataError
from etude.lineage.durable import write_file, write_whole


@dataclass
class SplitCounts:
    """Of one split."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


@dataclass
class TokenCounts:
    """What became of the cleaned documents of one part."""

    source: int
    exact_duplicates: int = 0
    near_duplicates: int = 0
    spelling_marks: int = 0
    """Documents that spell a special token; it is written as plain text, and is none."""
    train: SplitCounts = field(default_factory=SplitCounts)
    held_out: SplitCounts = field(default_factory=SplitCounts)


def writing(tokenizer: Any, reference: str) -> Writing:
    """What a process must know of a tokenizer.

    Raises:
        DataError: it has no end-of-text token, or is no fast one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DataError(f"{reference}: its tokenizer has no tokenizer.json", "take one that the `tokenizers` library can read")
    if tokenizer.eos_token_id is None:
        raise DataError(f"{reference}: its tokenizer has no end-of-text token", "set `eos_token` in its tokenizer_config.json")
    encoder = Encoder(tokenizer, frozenset({tokenizer.eos_token_id}))
    return Writing(
        backend=backend.to_str(),
        sha256=tokenizer_hash(tokenizer),
        reference=reference,
        lead=tuple(encoder.lead),
        end=tokenizer.eos_token_id,
        vocabulary=max(tokenizer.get_vocab().values()) + 1,  # not how many there are: ids may have holes
    )


class Writer:
    """A plan's tokenizer, opened; one a process."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.tokenizer = Tokenizer.from_str(plan.writing.backend)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True  # what a document spells is text: it can forge no end and no turn
        marks = sorted((token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special), key=len)
        self._marks = re.compile("|".join(re.escape(mark) for mark in reversed(marks))) if marks else None

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text's tokens as a stage would read it: what the tokenizer puts first, the text, one end of text."""
        lead, end = list(self.plan.writing.lead), self.plan.writing.end
        made = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array([*lead, *one.ids, end], np.int32) for one in made]

    def tokenise(self, part: Part) -> None:
        """Write `parts/NAME.npz`, the duplicates that were left out and, last, the counts."""
        place = part_path(self.plan.folder, part.name)
        table = pq.read_table(place(".parquet"))
        texts, files, rows = (table.column(name).to_pylist() for name in ("text", "file", "row"))
        keys = np.load(place(".keys.npy"), allow_pickle=False)[:, :2]
        counts = TokenCounts(part.source)
        out: list[dict[str, Any]] = []
        left_out = duplicates_of(self.plan.folder, part)
        for at, (exact, file, row) in sorted(left_out.items()):
            kind = "exact duplicate" if exact else "near duplicate"
            counts.exact_duplicates += exact
            counts.near_duplicates += not exact
            place_of = {"source": part.source, "file": files[at], "row": rows[at]}
            out.append({**place_of, "by": "deduplicate", "reason": kind, "of": f"{file}:{row}", "text": texts[at]})
        apart = held_out(keys, self.plan.recipe.held_out)
        arrays: dict[str, np.ndarray] = {}
        for split in SPLITS:
            chosen = [at for at in range(len(texts)) if at not in left_out and bool(apart[at]) == (split == "held_out")]
            tokens = self.encode([texts[at] for at in chosen])
            counts.spelling_marks += sum(self._marks is not None and self._marks.search(texts[at]) is not None for at in chosen)
            lengths = np.array([len(one) for one in tokens], np.int64)
            flat = np.concatenate(tokens) if tokens else np.zeros(0, np.int32)
            arrays |= {f"{split}_tokens": flat, f"{split}_lengths": lengths, f"{split}_hashes": keys[chosen].reshape(-1, 2)}
            said: SplitCounts = getattr(counts, split)
            said.documents, said.tokens = len(chosen), int(lengths.sum())
            said.bytes = sum(len(texts[at].encode()) for at in chosen)
        write_whole(place(".npz"), lambda path: _save(path, arrays))
        write_whole(place(".duplicates.gz"), lambda path: path.write_bytes(packed(out)))
        write_file(place(".tokens.json"), json.dumps(asdict(counts)))


def held_out(keys: np.ndarray, share: float) -> np.ndarray:
    """[documents] bool: which are kept apart, by their content's hash alone.

    Args:
        keys: [documents, 2] uint64, the two halves of each document's hash.
    """
    return keys[:, 1] < np.uint64(min(int(share * 2**64), 2**64 - 1))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
