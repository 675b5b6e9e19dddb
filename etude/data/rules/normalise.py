"""One spelling of the same text: composed characters, one kind of line end, nothing invisible."""

import re
import unicodedata
from collections import Counter
from typing import ClassVar, Literal

from etude.data.rules.contract import Judge, Rule

# Control characters but tab and line feed; zero-width space, word joiner, byte-order mark, soft hyphen. The zero-width joiners stay:
# Persian, Indic scripts and emoji are spelled with them.
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff]")
_LINE_END = re.compile("\r\n|[\r\u2028\u2029]")
# Nobody writes C1 control characters: they are Windows-1252 read as Latin-1, and browsers show them so (https://encoding.spec.whatwg.org).
_WINDOWS = {code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
_MISREAD = re.compile("[" + "".join(map(chr, _WINDOWS)) + "]")
_BEFORE_LINE_END = re.compile(r"(?<![^\S\n])[^\S\n]++(?=\n|\Z)")  # each run of blanks is looked at once, however long it is
_BLANK_LINES = re.compile(r"\n{4,}")


class Normalise(Rule):
    """Unicode's composed form (NFC), line ends as `\\n`, no invisible characters, no blanks at line ends, two blank lines at most.

    Source: Unicode Standard Annex 15 (https://unicode.org/reports/tr15).
    """

    kind: ClassVar[str] = "normalise"
    form: Literal["NFC", "NFKC"] = "NFC"
    """NFC changes only how characters are stored; NFKC also what some of them are (`ﬁ` to `fi`, `²` to `2`)."""

    def judge(self, changes: Counter[str]) -> Judge:
        form = self.form

        def normalised(text: str) -> str:
            plain = _LINE_END.sub("\n", text)
            plain, misread = _MISREAD.subn(lambda found: _WINDOWS[ord(found[0])], plain)
            if misread:
                changes["misread Windows-1252 characters repaired"] += misread
            visible, removed = _INVISIBLE.subn("", plain)
            if removed:
                changes["invisible characters removed"] += removed
            composed = visible if unicodedata.is_normalized(form, visible) else unicodedata.normalize(form, visible)
            return _BLANK_LINES.sub("\n\n\n", _BEFORE_LINE_END.sub("", composed)).strip("\n")

        return normalised
