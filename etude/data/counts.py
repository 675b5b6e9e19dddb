"""What happened to every row: read, left out and why, cut, split, kept. Nothing is dropped that is not counted here."""

from dataclasses import dataclass, field

EXAMPLES_KEPT = 10
"""Dropped rows of each kind that are kept to be shown."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """One row that was left out."""

    source: str
    row: int
    kind: str
    """What it is counted under."""
    why: str


@dataclass(slots=True)
class SourceCounts:
    """Rows unless another unit is named. read = left out by where, by limit + bad + too long (both kinds) + kept."""

    path: str
    """As the recipe names it."""
    read: int = 0
    left_out_by_where: int = 0
    left_out_by_limit: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    """Rows that could not be used, by what was wrong."""
    too_long: int = 0
    """Longer than the context and left out whole."""
    last_turn_too_long: int = 0
    """Longer than the context even without their earlier turns, and left out."""
    kept: int = 0
    truncated: int = 0
    """Kept without their earliest turns, which did not fit into the context."""
    turns_cut: int = 0
    """Messages that those rows lost."""
    answers_cut: int = 0
    """Assistant turns among them, which are not learnt."""
    split_documents: int = 0
    """Texts longer than the context, split into several."""
    pieces: int = 0
    """What those texts became."""
    unrolled: int = 0
    """Conversations whose template rewrites history: one sample for each answer."""
    prefilled: int = 0
    """Rows whose generation prompt begins the answer itself (as `<think>` does), which the row's own rendering leaves out."""
    openings: int = 0
    """Conversations that begin with the assistant; that first turn answers nothing and is not learnt."""
    touching: int = 0
    """Prompts and completions joined as plain text without any space between them."""
    stretches: int = 0
    """Rows that a text became which was all there is, so that some of it could be held out."""
    marked: int = 0
    """Texts that end in the end-of-text token already; it is not added again."""
    unknown: int = 0
    """Tokens that stand for characters which the tokenizer does not have; what they were is lost."""
    template_marks: int = 0
    """Rows that spell the marks of some chat template: rendered before, they are rendered again."""
    secrets: int = 0
    """Rows that hold what looks like a key or a token."""
    training: int = 0
    held_out: int = 0
    duplicates_of_held_out: int = 0
    """Taken out of training because a held-out row has the same prompt or is the same."""
    duplicates_in_training: int = 0
    """Rows that say what an earlier row said. They stay: repeating may be meant."""
    examples: int = 0
    """Training examples: rows, and pieces of long texts."""
    logical_tokens: int = 0
    """Tokens of the training samples, as if nothing were shared."""
    supervised_tokens: int = 0
    """Of those, the ones that are learnt."""
    loss_weight: float = 1.0
    """How much each of these counts in the loss."""
    notes: list[str] = field(default_factory=list)
    """What was decided about this source, such as its format."""
    dropped: list[Dropped] = field(default_factory=list)
    """The first rows of each kind that were left out."""

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def drop(self, dropped: Dropped) -> None:
        if sum(other.kind == dropped.kind for other in self.dropped) < EXAMPLES_KEPT:
            self.dropped.append(dropped)

    @property
    def left_out(self) -> int:
        """Rows read but not kept."""
        return self.left_out_by_where + self.left_out_by_limit + sum(self.bad.values()) + self.too_long + self.last_turn_too_long

    def lines(self) -> list[str]:
        """The counts in plain words; what is zero goes unsaid."""
        said = [f"{self.path}: {_n(self.read, 'row')} read, {self.kept:,} kept", *self.notes]
        bad = [(number, f"left out: {kind}") for kind, number in sorted(self.bad.items())]
        told = [
            (self.left_out_by_where, "left out by `where`"), (self.left_out_by_limit, "left out by `limit`"), *bad,
            (self.too_long, "left out: longer than the context"),
            (self.last_turn_too_long, "left out: the last question and answer alone do not fit"),
            (self.truncated, f"cut at the front to fit, losing {_n(self.turns_cut, 'turn')} ({self.answers_cut:,} of them answers)"),
            (self.split_documents, f"longer than the context, split into {self.pieces:,} pieces"),
            (self.unrolled, "whose template rewrites history: one sample for each answer"),
            (self.prefilled, "whose generation prompt begins the answer; learnt behind it, as it is asked"),
            (self.openings, "beginning with the assistant; that turn answers nothing and is not learnt"),
            (self.touching, "whose prompt and completion touch without a space: end the prompt as you mean it to end"),
            (self.marked, "ending in the end-of-text token already; not added twice"),
            (self.template_marks, "spelling the marks of a chat template, which are learnt as words: `etude data check` names them"),
            (self.secrets, "holding what looks like a key or a token: `etude data check` names them"),
            (self.duplicates_of_held_out, "taken out of training: same prompt as a held-out row, or the same row"),
            (self.duplicates_in_training, "repeating an earlier row of training, and kept"),
        ]  # fmt: skip
        said += [f"  {_n(number, 'row')} {what}" for number, what in told if number]
        said += [f"  {_n(self.unknown, 'token')} stand for characters that the tokenizer does not have"] if self.unknown else []
        learnt = f"{self.supervised_tokens:,} of {_n(self.logical_tokens, 'token')} learnt"
        learnt += f", each counting {self.loss_weight:g}" if self.loss_weight != 1.0 else ""
        said.append(f"  {_n(self.training, 'row')} for training ({learnt}), {self.held_out:,} held out")
        return said


@dataclass(slots=True)
class Counts:
    """The counts of every source; the held-out source, where it is one of its own, comes last."""

    sources: list[SourceCounts] = field(default_factory=list)

    def total(self, name: str) -> int:
        """The sum of one count over the sources."""
        return sum(getattr(source, name) for source in self.sources)

    @property
    def bad(self) -> dict[str, int]:
        """Unusable rows by what was wrong, over all sources."""
        kinds = sorted({kind for source in self.sources for kind in source.bad})
        return {kind: sum(source.bad.get(kind, 0) for source in self.sources) for kind in kinds}

    def lines(self) -> list[str]:
        """Plain-language lines, source by source."""
        return [line for source in self.sources for line in source.lines()]


def _n(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
