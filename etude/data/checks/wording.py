"""Is this what somebody meant to write? Answers that break off, loops, placeholders, refusals, remains of web pages, broken characters."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator

from etude.data.checks.contract import Finding, Place, Repair, Severity, excerpt, first, rows
from etude.data.checks.material import Entry, Material
from etude.data.ngrams import words
from etude.data.records import Text

PLACEHOLDER = re.compile(
    r"\s*(?:nan|null|none|n/?a|undefined|todo|tbd|lorem ipsum.*|\[?insert[ _].{1,40}|\{\{.*\}\}|x{3,})\s*", re.I | re.S
)
BOILERPLATE = re.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b|\bas a (?:large )?language model\b"
    r"|\bmy knowledge cut-?off\b|\bI(?:'m| am) sorry,? but (?:I|as)\b.{0,40}\b(?:can(?:no|')t|unable|not able)\b",
    re.I,
)
"""What distilled answers say of their writer (alpaca-data-cleaned and ShareGPT's cleaned copies leave the same out)."""
MARKUP = re.compile(
    r"</?(?:br|p|div|span|b|i|a|li|ul|ol|td|tr|table|strong|em|font|img)\b[^<>]{0,200}>|&(?:nbsp|amp|lt|gt|quot|#\d{2,5});", re.I
)
MOJIBAKE = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2(?:\u20ac|\u0080)[\u0080-\u00bf\u2018-\u2122\u0153]?|[\u0080-\u009f]")
"""The replacement character; UTF-8 read as Latin-1 or cp1252; cp1252 read as Latin-1. ftfy explains the kinds: https://ftfy.readthedocs.io"""
INVISIBLE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u200b\u2060\ufeff\u00ad]")
"""Control characters, zero-width spaces, byte-order marks, soft hyphens. Joiners are left: scripts and emoji need them."""
DANGLING = re.compile(
    r"(?:,|;|:|-|\b(?:the|a|an|and|or|of|to|with|in|for|is|are|was|that|which|because|but|by|from|his|her|their))\s*$", re.I
)
LONG_ANSWER = 20
"""Words from which an answer should end like a sentence."""
LOOP = 0.3
LOOP_WORDS = 24


def unfinished(material: Material) -> Iterator[Finding]:
    """Answers that break off: in the middle of a sentence, of JSON, of a block of code; or all at one length, where a limit cut them."""
    answers = [(entry, entry.answers[-1].rstrip()) for entry in material.usable if entry.answers]
    found: dict[Place, str] = {}
    readable = [text for _, text in answers if text[:1] in ("{", "[") and _is_json(text)]
    for entry, text in answers:
        if text.count("```") % 2:
            found[entry.place] = f"an open block of code: {excerpt(text[-80:])}"
        elif readable and text[:1] in ("{", "[") and not _is_json(text):
            found[entry.place] = f"JSON that ends early: {excerpt(text[-80:])}"
        elif len(text.split()) >= LONG_ANSWER and DANGLING.search(text):
            found[entry.place] = f"ends in … {excerpt(text[-60:])}"
    longest = Counter(len(text) for _, text in answers if len(text) >= 64)
    if longest:
        cap = max(longest)
        at_cap = [entry for entry, text in answers if len(text) == cap]
        if len(at_cap) >= max(5, 0.01 * len(answers)) and len({entry.answers[-1] for entry in at_cap}) > 1:
            found = {entry.place: f"cut at {cap:,} characters, as {len(at_cap):,} answers are" for entry in at_cap} | found
    yield from _finding(
        "answers that break off",
        "warning",
        list(found.items()),
        "end in the middle: the model learns to stop there",
        "write them again with a higher limit, or leave them out",
    )


def loops(material: Material) -> Iterator[Finding]:
    """Texts that say the same again and again: the commonest three words in a row, or one line, fill much of them.

    Source: the repetition rules of Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1, with wider bounds.
    """
    found = []
    for entry in material.usable:
        for text in (entry.answers or (entry.whole,))[:2]:
            said = words(text)
            if len(said) < LOOP_WORDS:
                continue
            phrase, times = Counter(zip(said, said[1:], said[2:])).most_common(1)[0]
            if times >= 4 and 3 * times > LOOP * len(said):
                found.append((entry.place, f"{' '.join(phrase)!r} {times} times in {len(said)} words"))
                break
    yield from _finding(
        "loops", "warning", found, "say the same again and again", "leave them out: a model that has seen loops writes loops"
    )


def placeholders(material: Material) -> Iterator[Finding]:
    """Answers and prompts that are a placeholder: nan, null, to be done, an unfilled template."""
    labels = {label.strip().casefold() for label in material.labels}
    texts = lambda entry: (entry.asked, *entry.answers) if entry.answers else (entry.whole,)
    said = [(entry.place, text) for entry in material.usable for text in texts(entry)]
    found = [(place, text) for place, text in said if PLACEHOLDER.fullmatch(text) and text.strip().casefold() not in labels]
    yield from _finding("placeholders", "warning", found, "hold a placeholder where words should be", "fill them in, or leave them out")


def boilerplate(material: Material) -> Iterator[Finding]:
    """Answers in which another model speaks of itself, or refuses."""
    found = _matching(material, lambda entry: entry.answers[-1:], BOILERPLATE)
    yield from _finding(
        "another model's refusals",
        "warning",
        found,
        "speak as a language model or refuse",
        "leave them out, unless refusing is what should be learnt",
    )


def echoes(material: Material) -> Iterator[Finding]:
    """Answers that are their own prompt."""
    found = [
        (entry.place, entry.answers[-1])
        for entry in material.usable
        if entry.answers and len(entry.answers[-1]) >= 8 and _squeezed(entry.answers[-1]) == _squeezed(entry.asked)
    ]
    yield from _finding("echoes", "warning", found, "answer with the prompt itself", "find the answer, or leave them out")


def markup(material: Material) -> Iterator[Finding]:
    """Tags and entities of web pages."""
    found = _matching(material, lambda entry: (entry.whole,), MARKUP)
    fewer = len(found) * 2 < len(material.usable) or not found
    yield from _finding(
        "remains of web pages",
        "note",
        found,
        "hold HTML tags or entities" + ("" if fewer else ": more than half of all, so perhaps they are meant"),
        "take them out, unless HTML is what should be read and written",
    )


def garbled(material: Material) -> Iterator[Finding]:
    """Characters that a wrong encoding has broken."""
    found = []
    for entry in material.entries:
        for text in entry.strings:
            if match := MOJIBAKE.search(text):
                found.append((entry.place, excerpt(text, match.start())))
                break
    yield from _finding(
        "broken characters",
        "warning",
        found,
        "hold characters that a wrong encoding has broken",
        "read the source again in its own encoding; the package ftfy mends most of them",
    )


def invisible(material: Material) -> Iterator[Finding]:
    """Control characters and spaces of no width: tokens that nobody sees."""
    repairs = [
        Repair(entry.place, text, INVISIBLE.sub("", text)) for entry in material.entries for text in entry.strings if INVISIBLE.search(text)
    ]
    places = tuple(dict.fromkeys(repair.place for repair in repairs))
    if places:
        yield Finding(
            "invisible characters",
            "warning",
            rows(len(places), "hold characters that nobody sees and the tokenizer does"),
            "take them out",
            places,
            first(ascii(repair.old[max(0, _at(repair.old) - 20) :]) for repair in repairs),
            repairs=tuple(repairs),
        )


def spaces(material: Material) -> Iterator[Finding]:
    """Answers with white space at an end, where most have none: another first or last token for the same answer."""
    if any(isinstance(entry.record, Text) for entry in material.usable):
        return
    answers = [(entry.place, text) for entry in material.usable for text in entry.answers]
    odd = [(place, text) for place, text in answers if text != text.strip()]
    if odd and len(odd) * 2 < len(answers):
        yield Finding(
            "white space around answers",
            "warning",
            f"{rows(len(dict(odd)), 'have white space around the answer')}; {len(answers) - len(odd):,} answers have none",
            "take it away",
            tuple(dict.fromkeys(place for place, _ in odd)),
            first(repr(text) for _, text in odd),
            repairs=tuple(Repair(place, text, text.strip()) for place, text in odd),
        )


def _matching(material: Material, texts: Callable[[Entry], tuple[str, ...]], pattern: re.Pattern[str]) -> list[tuple[Place, str]]:
    return [
        (entry.place, excerpt(text, match.start()))
        for entry in material.usable
        for text in texts(entry)
        if (match := pattern.search(text)) is not None
    ]


def _finding(kind: str, severity: Severity, found: list[tuple[Place, str]], what: str, remedy: str) -> Iterator[Finding]:
    if found:
        places = tuple(dict.fromkeys(place for place, _ in found))
        yield Finding(kind, severity, rows(len(places), what), remedy, places, first(text for _, text in found))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _squeezed(text: str) -> str:
    return " ".join(text.split()).casefold()


def _at(text: str) -> int:
    found = INVISIBLE.search(text)
    return found.start() if found else 0
