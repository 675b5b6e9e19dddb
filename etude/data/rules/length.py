"""Documents that are too short to say anything, or too long to be one text."""

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from etude.data.rules.contract import Judge, Rejected, Rule


class Length(Rule):
    """Rejects by length: `too short`, `too long`.

    Source: every corpus paper has such bounds, such as Gopher's 50 to 100,000 words (https://arxiv.org/abs/2112.11446, A.1.1).
    """

    kind: ClassVar[str] = "length"
    least_words: Annotated[int, Field(ge=0)] = 10
    """Fewest words, as white space parts them: 0 for scripts without blanks between words."""
    least_characters: Annotated[int, Field(ge=0)] = 0
    """Fewest characters: for scripts without blanks between words."""
    most_characters: PositiveInt | None = 10_000_000
    """Most characters; null sets no bound."""

    def judge(self, changes: Counter[str]) -> Judge:
        words, least, most = self.least_words, self.least_characters, self.most_characters

        def measured(text: str) -> str | Rejected:
            if len(text) < least or len(text.split(None, words)) < words:
                return Rejected("too short")
            return Rejected("too long") if most is not None and len(text) > most else text

        return measured
