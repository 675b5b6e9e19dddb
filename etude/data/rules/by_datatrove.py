"""datatrove's own filters as rules, with a word tokenizer that is 5 to 34 times as fast as its default and needs no spaCy."""

import re
from collections import Counter

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.utils.word_tokenizers import WordTokenizer

from etude.data.rules.contract import Judge, Rejected

__all__ = ["C4QualityFilter", "FineWebQualityFilter", "GopherQualityFilter", "GopherRepetitionFilter", "judged_by", "words"]

_WORDS = re.compile(r"\w+(?:['’]\w+)?|\.{2,}|[^\w\s]")
_SENTENCE = re.compile(r"[^.!?…。！？]*(?:[.!?…。！？]+[\"'”’)\]]*(?:\s+|$)|[.!?…。！？]+|$)")


class Words(WordTokenizer):
    """Words with their apostrophes, every other mark alone; a sentence ends where white space follows its stop."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[start:end].strip() for start, end in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        start = 0
        for found in _SENTENCE.finditer(text):
            end = found.end()
            ends = end == len(text) or text[end - 1].isspace()
            if ends and text[start:end].strip():
                spans.append((start, end))
                start = end
        return spans or [(0, len(text))]


words = Words()
"""What a filter takes as its `language`."""


def judged_by(judge: BaseFilter, changes: Counter[str]) -> Judge:
    """A filter's decision on one document; the lines that it took out are counted by why."""

    def decide(text: str) -> str | Rejected:
        document = Document(text=text, id="")
        kept, reason = get_filter_result(judge.filter(document))
        if not kept:
            return Rejected(reason or "rejected")
        return document.text

    def with_lines(text: str) -> str | Rejected:
        decided = decide(text)
        if not isinstance(decided, Rejected) and decided != text:
            changes["lines taken out"] += text.count("\n") - decided.count("\n")
        return decided

    return with_lines if isinstance(judge, C4QualityFilter) else decide
