"""Which general text shows whether a model is still what its parent was? The user's own, or what is installed with Python."""

import importlib
import inspect
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etude.errors import DataError

SHORTEST_PASSAGE = 400
SHORTEST_SENTENCE = 40
# Modules with long, readable docstrings; all in every build of CPython.
DOCUMENTED = [
    *("argparse", "collections", "datetime", "decimal", "difflib", "enum", "functools"),
    *("inspect", "logging", "os", "random", "subprocess", "threading"),
]


@dataclass(frozen=True, slots=True)
class GeneralText:
    """Passages to score, each a unit of the statistics, and where they are from."""

    passages: tuple[str, ...]
    """Of about 400 to 1,200 characters where the text has as many; the first ones already cover many topics."""
    sentence: str
    """What the text is, for the report. Figures on another text are not comparable."""


def general_text(texts: Sequence[str] | None = None, name: str = "") -> GeneralText:
    """The user's `texts`, said to be from `name`; by default prose that is installed with Python, read now.

    DataError where the user's texts hold too little to compare anything: fewer than two passages.
    """
    if texts is not None:
        passages = tuple(_spread([_passages(_paragraphs(text)) for text in texts]))
        if len(passages) < 2:
            held = f"{name or 'the general text'} holds {len(passages)} passages"
            raise DataError(held, "give text of some thousand characters, in paragraphs")
        return GeneralText(passages, f"{name or 'your text'}: {_size(passages)}")
    version = platform.python_version()
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions leave it out
        passages = _distinct(_docstrings())
        name = f"docstrings of Python {version}'s standard library (its language reference is not installed)"
        return GeneralText(passages, f"{name}: {_size(passages)}")
    passages = _distinct(topics[topic] for topic in sorted(topics))
    return GeneralText(passages, f"Python {version}'s own language reference, without grammar and code: {_size(passages)}")


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Passages of prose, each once: neighbouring topics and inherited docstrings repeat whole paragraphs."""
    return tuple(dict.fromkeys(_spread([_passages(_prose(text)) for text in texts])))


def _size(passages: Sequence[str]) -> str:
    return f"{len(passages):,} passages, {sum(map(len, passages)):,} characters"


def _paragraphs(text: str) -> list[str]:
    return [paragraph for part in re.split(r"\n\s*\n", text) if (paragraph := " ".join(part.split()))]


def _prose(text: str) -> list[str]:
    """Paragraphs of running text: no headings, grammar, code or tables; marks of emphasis and footnotes removed."""
    prose = []
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        is_set_apart = part.startswith((" ", ">>>", "*", "=", "-", "|", "+"))
        if is_set_apart or "::=" in part or re.search(r"^[*=\-~^\"']{3,}$", part, re.MULTILINE):
            continue
        plain = re.sub(r"(?<=\w)- (?=\w)", "-", " ".join(part.split()))  # a word broken at the end of a line
        plain = re.sub(r"\[\d+\]|(?<!\w)\*{1,2}(?=\w)|(?<=\w)\*{1,2}(?!\w)", "", plain)
        if len(plain) > SHORTEST_SENTENCE and re.search(r"[.:!?]\)?$", plain):
            prose.append(plain)
    return prose


def _passages(paragraphs: Iterable[str]) -> list[str]:
    """Neighbouring paragraphs joined until a passage is long enough to say something; a shorter rest goes to the last one."""
    passages, gathered = [], ""
    for paragraph in paragraphs:
        for piece in _cut(paragraph):
            gathered = f"{gathered}\n\n{piece}" if gathered else piece
            if len(gathered) >= SHORTEST_PASSAGE:
                passages.append(gathered)
                gathered = ""
    if gathered and passages:
        passages[-1] += f"\n\n{gathered}"
    elif gathered:
        passages.append(gathered)
    return passages


def _cut(paragraph: str) -> list[str]:
    """A long paragraph in pieces that end with sentences, so that one passage does not outweigh the others."""
    pieces, gathered = [], ""
    for sentence in re.split(r"(?<=[.!?]) ", paragraph):
        if gathered and len(gathered) + len(sentence) > 2 * SHORTEST_PASSAGE:
            pieces.append(gathered)
            gathered = ""
        gathered = f"{gathered} {sentence}" if gathered else sentence
    return [*pieces, gathered]


def _spread(topics: list[list[str]]) -> list[str]:
    """The first passage of every topic, then every second, and so on: any beginning of the list covers many topics."""
    longest = max(map(len, topics), default=0)
    return [passages[turn] for turn in range(longest) for passages in topics if turn < len(passages)]


def _docstrings() -> list[str]:
    texts = []
    for name in DOCUMENTED:
        module = importlib.import_module(name)
        members = [member for _, member in sorted(vars(module).items()) if inspect.isclass(member) and member.__module__ == name]
        texts.append("\n\n".join(doc for thing in (module, *members) if (doc := inspect.getdoc(thing))))
    return texts
