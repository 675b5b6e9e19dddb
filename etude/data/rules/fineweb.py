"""FineWeb's own rules, found by comparing models trained with and without them."""

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from etude.data.rules.contract import Judge, Rule, filters

Share = Annotated[float, Field(ge=0, le=1)]


class FineWeb(Rule):
    """Rejects lists and menus: lines without punctuation, short lines, repeated characters, many line ends. By datatrove's filter.

    Source: https://arxiv.org/abs/2406.17557, section 3.6.
    """

    kind: ClassVar[str] = "fineweb"
    punctuated_lines: Share = 0.12
    """Smallest share of lines that end in punctuation."""
    short_lines: Share = 0.67
    """Largest share of short lines."""
    short_line: PositiveInt = 30
    """Most characters of a short line."""
    repeated_characters: Share = 0.01
    """Largest share of characters in lines that stood before."""
    line_ends: Annotated[float, Field(ge=0)] = 0.3
    """Most line ends for each word."""

    def judge(self, changes: Counter[str]) -> Judge:
        by = filters()
        made = by.FineWebQualityFilter(
            line_punct_thr=self.punctuated_lines,
            short_line_thr=self.short_lines,
            short_line_length=self.short_line,
            char_duplicates_ratio=self.repeated_characters,
            new_line_ratio=self.line_ends,
            language=by.words,
        )
        return by.judged_by(made, changes)
