"""C4's rules: lines that are sentences, pages that are text."""

from collections import Counter
from typing import ClassVar

from pydantic import NonNegativeInt, PositiveInt

from etude.data.rules.contract import Judge, Rule, filters


class C4(Rule):
    """Takes out lines that end in no punctuation, are too short, or speak of cookies and scripts; rejects pages with too little left, with
    curly brackets or with lorem ipsum. The list of bad words is left out. By datatrove's filter.

    Source: https://jmlr.org/papers/volume21/20-074/20-074.pdf, section 2.2.
    """

    kind: ClassVar[str] = "c4"
    least_sentences: NonNegativeInt = 5
    """Fewest sentences that must be left."""
    least_words: NonNegativeInt = 3
    """Fewest words in a line."""
    longest_word: PositiveInt = 1000
    """Lines with a longer word are taken out."""
    end_punctuation: bool = True
    """Take out lines that do not end in a stop, question or exclamation mark, or quotation mark."""
    citations: bool = True
    """Take out marks such as [1] and [edit]."""
    curly_bracket: bool = True
    """Reject documents with a curly bracket, which are mostly code."""

    def judge(self, changes: Counter[str]) -> Judge:
        by = filters()
        made = by.C4QualityFilter(
            min_num_sentences=self.least_sentences,
            min_words_per_line=self.least_words,
            max_word_length=self.longest_word,
            filter_no_terminal_punct=self.end_punctuation,
            remove_citations=self.citations,
            filter_curly_bracket=self.curly_bracket,
            language=by.words,
        )
        return by.judged_by(made, changes)
