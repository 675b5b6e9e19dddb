"""Gopher's rules of repetition: does it say the same again and again?"""

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field

from etude.data.rules.contract import Judge, Rule, filters

Share = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[str, Field(pattern=r"^[1-9][0-9]?$")]


class GopherRepetition(Rule):
    """Rejects documents with too many repeated lines, paragraphs or word sequences. By datatrove's filter.

    Source: https://arxiv.org/abs/2112.11446, table A1.
    """

    kind: ClassVar[str] = "gopher-repetition"
    lines: Share = 0.3
    """Largest share of lines that stood before; 0 sets no bound, here and in the three below."""
    paragraphs: Share = 0.3
    """Largest share of paragraphs that stood before."""
    line_characters: Share = 0.2
    """Largest share of characters in such lines."""
    paragraph_characters: Share = 0.2
    """Largest share of characters in such paragraphs."""
    commonest: dict[Words, Share] = {"2": 0.2, "3": 0.18, "4": 0.16}
    """By number of words: largest share of characters in the commonest sequence of so many words."""
    repeated: dict[Words, Share] = {"5": 0.15, "6": 0.14, "7": 0.13, "8": 0.12, "9": 0.11, "10": 0.1}
    """By number of words: largest share of characters in sequences of so many words that stood before."""

    def judge(self, changes: Counter[str]) -> Judge:
        by = filters()
        made = by.GopherRepetitionFilter(
            dup_line_frac=self.lines,
            dup_para_frac=self.paragraphs,
            dup_line_char_frac=self.line_characters,
            dup_para_char_frac=self.paragraph_characters,
            top_n_grams=tuple((int(words), share) for words, share in self.commonest.items()),
            dup_n_grams=tuple((int(words), share) for words, share in self.repeated.items()),
            language=by.words,
        )
        return by.judged_by(made, changes)
