"""Where answers are compared or rated: is it clear which is better, and is it more than length?"""

from collections.abc import Iterator

from etude.data.checks.contract import Finding, Place, first, rows
from etude.data.checks.material import Material
from etude.data.records import Pair, Rated

LONGER = 0.75
FEWEST = 20
ONE_SIDED = 0.9


def length(material: Material) -> Iterator[Finding]:
    """The chosen answer is nearly always the longer, or the shorter, one: the easiest thing to learn is length.

    Source: Singhal et al. 2023, A long way to go, https://arxiv.org/abs/2310.03716.
    """
    pairs = [entry for entry in material.training if isinstance(entry.record, Pair)]
    gaps = [len(entry.answers[0]) - len(entry.answers[1]) for entry in pairs]
    told = [gap for gap in gaps if gap]
    if len(told) < FEWEST:
        return
    longer = sum(gap > 0 for gap in told) / len(told)
    for share, which in ((longer, "longer"), (1 - longer, "shorter")):
        if share >= LONGER:
            yield Finding(
                "preference by length",
                "warning",
                f"of {share:.0%} of {len(told):,} pairs the chosen answer is the {which} one: length alone tells them apart",
                f"add pairs in which the {'shorter' if which == 'longer' else 'longer'} answer is better, or use an objective that divides "
                "by length (simpo, dpo with `variant: ipo`)",
            )


def against_itself(material: Material) -> Iterator[Finding]:
    """An answer that is chosen in one pair and rejected in another one of the same prompt."""
    chosen: dict[tuple[str, str], Place] = {}
    rejected: dict[tuple[str, str], Place] = {}
    liked: dict[tuple[str, str], Place] = {}
    for entry in material.training:
        if isinstance(entry.record, Pair):
            chosen.setdefault((entry.asked, entry.answers[0]), entry.place)
            rejected.setdefault((entry.asked, entry.answers[1]), entry.place)
        elif isinstance(entry.record, Rated):
            side = chosen if entry.record.desirable else liked
            side.setdefault((entry.asked, "".join(entry.answers)), entry.place)
    rejected |= liked
    both = [(chosen[key], rejected[key]) for key in chosen if key in rejected]
    if both:
        places = tuple(sorted({place for pair in both for place in pair}))
        yield Finding(
            "preferred and rejected",
            "error",
            f"{len(both):,} answers are preferred in one row and rejected in another, to the same prompt",
            "decide, or leave both out",
            places,
            first(f"{one} and {other}" for one, other in both),
            drop=places,
        )


def ratings(material: Material) -> Iterator[Finding]:
    """Nearly all answers are rated alike."""
    rated = [entry.record.desirable for entry in material.training if isinstance(entry.record, Rated)]
    liked = sum(rated)
    if len(rated) >= FEWEST and max(liked, len(rated) - liked) > ONE_SIDED * len(rated):
        yield Finding(
            "ratings on one side",
            "warning",
            f"{liked:,} of {rows(len(rated))} are liked",
            "give more of the others, or weigh them (`desirable_weight`, `undesirable_weight` of kto)",
        )
