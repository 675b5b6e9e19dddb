"""Which rows are held out? Those with the smallest digests of what they say; whatever training shares with them leaves training."""

import hashlib
from dataclasses import dataclass

import numpy as np

from etude.core.sample import Example
from etude.data.counts import Counts
from etude.data.records import Question
from etude.errors import DataError
from etude.recipe.data import Source


@dataclass(frozen=True, slots=True)
class Kept:
    """A usable row."""

    examples: tuple[Example, ...]
    prompt: bytes | None
    """Digest of the tokens before the last answer; None for raw text."""
    whole: bytes
    """Digest of all tokens, weights and roles."""
    said: int
    """Short digest of the prompt, or of all that is learnt where there is none, in however many pieces: for other runs to compare with."""
    order: bytes
    """Digest of the row's content and the seed: where it stands in the draw."""
    question: Question | None


def kept_row(examples: tuple[Example, ...], prompt: list[int] | None, order: bytes, question: Question | None) -> Kept:
    """A usable row with its digests.

    Args:
        prompt: tokens before the last answer; None for raw text.
    """
    asked = None if prompt is None else hashlib.blake2b(np.asarray(prompt, np.int32).tobytes(), digest_size=16).digest()
    said = int.from_bytes((asked or _learnt(examples))[:8], "little")
    return Kept(examples, asked, _digest(examples), said, order, question)


def _digest(examples: tuple[Example, ...]) -> bytes:
    """16 bytes over everything that is learnt from."""
    hashed = hashlib.blake2b(digest_size=16)
    for example in examples:
        for sample in example.samples:
            hashed.update(f"{sample.role}:{len(sample)};".encode())
            hashed.update(sample.tokens.tobytes())
            hashed.update(sample.weight.tobytes())
        hashed.update(b"|")
    return hashed.digest()


def _learnt(examples: tuple[Example, ...]) -> bytes:
    """16 bytes over the learnt tokens alone: pieces of a text repeat the token before them, so any cut of it gives the same."""
    hashed = hashlib.blake2b(digest_size=16)
    for example in examples:
        for sample in example.samples:
            hashed.update(sample.tokens[sample.weight > 0].tobytes())
    return hashed.digest()


@dataclass(frozen=True, slots=True)
class Divided:
    """The rows of each source that are trained on, and the held-out rows together."""

    train: list[list[Kept]]
    held_out: list[Kept]
    """In the order of the draw, not of any file: the first n of them are a fair sample of all."""


def split(kept: list[list[Kept]], held_out: float | int | Source, counts: Counts) -> Divided:
    """Divide the rows and count. Where `held_out` is a source, its rows are the last of `kept`.

    A share is rounded to whole rows, and to one row at least. Rows keep their side when the file is put in another order, and nearly all
    keep it when rows are added. DataError where nothing would be left to train on.
    """
    if isinstance(held_out, Source):
        *sources, aside = kept
        counts.sources[-1].held_out = len(aside)
        aside = sorted(aside, key=lambda one: one.order)
    else:
        sources = kept
        total = sum(map(len, sources))
        number = how_many(held_out, total)
        if number and number >= total:
            raise DataError(f"data.held_out: {number:,} rows to hold out, and {total:,} can be used", "hold out fewer, or give more rows")
        if held_out > 0 and not number:
            counts.sources[0].note("a single row cannot be divided: nothing is held out")
        ranked = sorted((one.order, s, i) for s, rows in enumerate(sources) for i, one in enumerate(rows))
        chosen = {(s, i) for _, s, i in ranked[:number]}
        aside = [sources[s][i] for _, s, i in ranked[:number]]
        for s, rows in enumerate(sources):
            counts.sources[s].held_out = sum((s, i) in chosen for i in range(len(rows)))
        sources = [[one for i, one in enumerate(rows) if (s, i) not in chosen] for s, rows in enumerate(sources)]
    return Divided(_without_shared(sources, aside, counts), aside)


def how_many(held_out: float | int, total: int) -> int:
    """Rows to hold out: a share is rounded to whole rows, and to one row at least; of a single row nothing."""
    return held_out if isinstance(held_out, int) else (max(1, round(held_out * total)) if held_out > 0 and total > 1 else 0)


def _without_shared(sources: list[list[Kept]], aside: list[Kept], counts: Counts) -> list[list[Kept]]:
    """Training rows without those that a held-out row repeats, and the counts of what is left."""
    prompts, wholes = {one.prompt for one in aside if one.prompt is not None}, {one.whole for one in aside}
    seen: set[bytes] = set()
    left = []
    for count, rows in zip(counts.sources, sources, strict=False):
        train = [one for one in rows if one.prompt not in prompts and one.whole not in wholes]
        count.duplicates_of_held_out = len(rows) - len(train)
        count.training = len(train)
        for one in train:
            count.duplicates_in_training += one.whole in seen
            seen.add(one.whole)
            count.examples += len(one.examples)
            for example in one.examples:
                count.logical_tokens += sum(map(len, example.samples))
                count.supervised_tokens += sum(int((sample.weight > 0).sum()) for sample in example.samples)
        left.append(train)
    for count, train in zip(counts.sources, left, strict=False):
        if not train:
            shared = f"; {count.duplicates_of_held_out:,} have the same prompt as a held-out row" if count.duplicates_of_held_out else ""
            raise DataError(
                f"{count.path}: no row left to train on; {count.read:,} read, {count.kept:,} usable, {count.held_out:,} held out{shared}",
                "look at what was left out with `etude data show`; where all rows share one prompt, hold out a source of its own, or 0",
            )
    return left
