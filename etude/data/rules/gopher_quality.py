"""Gopher's rules of quality: does it look like prose?"""

from collections import Counter
from typing import ClassVar

from pydantic import NonNegativeFloat, NonNegativeInt

from etude.data.rules.contract import Judge, Rule, filters


class GopherQuality(Rule):
    """Rejects documents whose words, symbols, bullets or ellipses are not those of prose; 0 switches a bound off. By datatrove's filter.

    Source: https://arxiv.org/abs/2112.11446, A.1.1.
    """

    kind: ClassVar[str] = "gopher-quality"
    least_words: NonNegativeInt = 50
    """Fewest words that are more than punctuation."""
    most_words: NonNegativeInt = 100_000
    """Most words."""
    shortest_mean_word: NonNegativeFloat = 3
    """Smallest mean length of words, in characters."""
    longest_mean_word: NonNegativeFloat = 10
    """Largest mean length of words, in characters."""
    symbols: NonNegativeFloat = 0.1
    """Most hashes, or ellipses, for each word."""
    bullets: NonNegativeFloat = 0.9
    """Largest share of lines that begin with a bullet."""
    ellipses: NonNegativeFloat = 0.3
    """Largest share of lines that end in an ellipsis."""
    alphabetic: NonNegativeFloat = 0.8
    """Smallest share of words with a letter in them."""
    least_stop_words: NonNegativeInt = 2
    """Fewest different stop words."""
    stop_words: list[str] | None = None
    """Words that every text of the language holds; by default English: the, be, to, of, and, that, have, with."""

    def judge(self, changes: Counter[str]) -> Judge:
        by = filters()
        made = by.GopherQualityFilter(
            min_doc_words=self.least_words,
            max_doc_words=self.most_words,
            min_avg_word_length=self.shortest_mean_word,
            max_avg_word_length=self.longest_mean_word,
            max_symbol_word_ratio=self.symbols,
            max_bullet_lines_ratio=self.bullets,
            max_ellipsis_lines_ratio=self.ellipses,
            max_non_alpha_words_ratio=self.alphabetic,
            min_stop_words=self.least_stop_words,
            stop_words=self.stop_words,
            language=by.words,
        )
        return by.judged_by(made, changes)
