"""What will the model see, and what will it learn? Rows with their mask in colour, lengths, counts, and what was left out and why."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etude.core.sample import Example, Sample
from etude.data.prepare import Prepared

LEARNT, READ, MARK = "bold green", "dim", "reverse"
BAR = 40
"""Characters of the longest bar."""


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tokens of one kind, as text."""

    text: str
    learnt: bool
    special: bool
    """One of the tokenizer's marks, not something that was written."""


def spans(sample: Sample, tokenizer: Any) -> list[Span]:
    """A sample as text, cut where the mask or the kind of token changes (never inside a character: tokens are decoded together)."""
    special = set(tokenizer.all_special_ids) | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    tokens = zip(sample.tokens.tolist(), (sample.weight > 0).tolist(), strict=True)
    groups = groupby(tokens, key=lambda token: (token[1], token[0] in special))
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return [Span(decode([i for i, _ in group]), *kind) for kind, group in groups]


def coloured(sample: Sample, tokenizer: Any) -> Text:
    """What is learnt in green, what is only read dim, marks reversed."""
    text = Text()
    for span in spans(sample, tokenizer):
        text.append(span.text, style=f"{LEARNT if span.learnt else READ}{f' {MARK}' if span.special else ''}")
    return text


def renderables(prepared: Prepared, tokenizer: Any, rows: int = 3) -> list[RenderableType]:
    """For a rich console: some rows of each source, lengths, what was left out, counts."""
    shown: list[RenderableType] = []
    for _, examples in prepared.train:
        for example in examples[:rows]:
            shown.append(Text(f"{example.source}:{example.row}", style="bold"))
            shown.extend(Group(Text(_caption(sample), style="italic"), coloured(sample, tokenizer), Text()) for sample in example.samples)
    shown.append(Text.assemble(("learnt", LEARNT), "  ", ("only read", READ), "  ", ("mark", f"{READ} {MARK}")))
    shown.append(_lengths_table(prepared))
    dropped = [one for source in prepared.counts.sources for one in source.dropped]
    if dropped:
        table = Table("row", "left out because", "in detail", title="left out", title_justify="left")
        for one in dropped:
            table.add_row(f"{one.source}:{one.row}", one.kind, Text(one.why))
        shown.append(table)
    shown.extend(Text(line) for line in prepared.counts.lines())
    return shown


def as_json(prepared: Prepared, tokenizer: Any, rows: int = 3) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "fingerprint": prepared.fingerprint,
        "rows": [_as_json(example, tokenizer) for _, examples in prepared.train for example in examples[:rows]],
        "lengths": [{"from": low, "to": high, "samples": number} for low, high, number in _histogram(_lengths(prepared))],
        "counts": [asdict(source) for source in prepared.counts.sources],
    }


def _as_json(example: Example, tokenizer: Any) -> dict[str, Any]:
    samples = [
        {
            "role": sample.role,
            "tokens": len(sample),
            "learnt": int((sample.weight > 0).sum()),
            "spans": [{"text": span.text, "learnt": span.learnt, "special": span.special} for span in spans(sample, tokenizer)],
        }
        for sample in example.samples
    ]
    return {"source": example.source, "row": example.row, "samples": samples}


def _caption(sample: Sample) -> str:
    return f"{sample.role + ', ' if sample.role else ''}{len(sample):,} tokens, {int((sample.weight > 0).sum()):,} learnt"


def _lengths(prepared: Prepared) -> np.ndarray:
    """[S] tokens of every training sample."""
    return np.array([len(sample) for _, examples in prepared.train for example in examples for sample in example.samples])


def _histogram(lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Buckets that double: (shortest, longest, samples), from the first that holds any to the last."""
    if not len(lengths):
        return
    high = 1 << int(lengths.min() - 1).bit_length()
    low = high // 2 + 1
    while low <= lengths.max():
        yield low, high, int(((lengths >= low) & (lengths <= high)).sum())
        low, high = high + 1, high * 2


def _lengths_table(prepared: Prepared) -> RenderableType:
    lengths = _lengths(prepared)
    buckets = list(_histogram(lengths))
    most = max(number for _, _, number in buckets)
    median, high = np.percentile(lengths, [50, 95])
    title = f"tokens a sample: half have up to {median:,.0f}, 95 % up to {high:,.0f}, the longest {lengths.max():,}"
    table = Table("tokens", "samples", "", box=None)
    for low, top, number in buckets:
        table.add_row(f"{low:,}–{top:,}", f"{number:,}", "█" * max(bool(number), round(BAR * number / most)))
    return Group(Text(title, style="italic"), table)
