"""What does one YAML text say, and where does each value stand?

YAML 1.2's core scalars (`1e-4` is a number, `on` and `yes` are text), read event by event so that every value keeps its
file, line and column. Duplicate keys, tags and merge keys are problems; aliases are followed up to a limit.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from yaml.reader import ReaderError

MOST_BYTES = 1_000_000
MOST_NODES = 10_000
DEEPEST = 40

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUTH = re.compile(r"(true|True|TRUE)|(false|False|FALSE)")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written. `file` is as shown to people, empty for an override; relative paths begin at `folder`."""

    file: str
    line: int
    column: int
    folder: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.file else "override"


@dataclass(slots=True)
class Node:
    """A value with the place of its first character and, inside a mapping, of its key.

    `value` is a scalar, a list of nodes or a dict of nodes. `broken` says that it could not be made out, which was
    already reported. `size` and `height` count the nodes below as if aliases were written out.
    """

    value: "str | int | float | bool | list[Node] | dict[str, Node] | None"
    place: Place
    key: Place | None = None
    broken: bool = False
    size: int = field(init=False)
    height: int = field(init=False)

    def __post_init__(self) -> None:
        inside = self.inside.values()
        self.size = 1 + sum(node.size for node in inside)
        self.height = 1 + max((node.height for node in inside), default=0)

    @property
    def inside(self) -> "dict[Any, Node]":
        """The nodes directly inside, by key or number."""
        return self.value if isinstance(self.value, dict) else dict(enumerate(self.value)) if isinstance(self.value, list) else {}

    @property
    def refers(self) -> bool:
        """Whether this is a text that may hold a `${…}`."""
        return isinstance(self.value, str) and "${" in self.value

    def plain(self) -> object:
        """The value alone, places left behind."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


Path = tuple[str | int, ...]
"""Keys and numbers that lead from the top to a value."""


@dataclass(slots=True)
class Problems:
    """What is wrong so far."""

    found: list[tuple[Place, Path, str]] = field(default_factory=list)
    """Where, which value (empty where a text as a whole is meant), what is wrong with it."""
    partial: bool = False
    """Whether a file that belongs to the recipe could not be read: what seems to be missing may stand there."""

    def add(self, place: Place, path: Path, what: str) -> None:
        """One more."""
        self.found.append((place, path, what))

    def lines(self) -> list[str]:
        """One for each, as `RecipeError` wants them: file by file, in reading order, overrides last."""
        in_order = sorted(self.found, key=lambda one: (not one[0].file, one[0].file, one[0].line, one[0].column))
        return list(dict.fromkeys(": ".join(filter(None, (str(place), dotted(path), what))) for place, path, what in in_order))


def dotted(path: Path) -> str:
    """`stages.sentiment.data.sources.0.path`; control characters in a key are shown escaped."""
    return ".".join(part if (part := str(key)).isprintable() and part else repr(part) for key in path)


def scalar(text: str) -> str | int | float | bool | None:
    """What a bare word means in YAML 1.2's core schema; OverflowError for an integer beyond 64 bits."""
    if _NULL.fullmatch(text):
        return None
    if truth := _TRUTH.fullmatch(text):
        return bool(truth[1])
    if _INTEGER.fullmatch(text):
        if len(text) > 40 or not -(2**63) <= (number := int(text, 0 if text[:2] in ("0o", "0x") else 10)) < 2**63:
            raise OverflowError("an integer beyond 64 bits")
        return number
    if _NUMBER.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float("nan") if special[3] else float(special[1] + "inf")
    return text


def read(text: str, file: str, folder: str, problems: Problems) -> Node | None:
    """The one document in `text`; what is wrong is added to `problems`, and None returned where nothing can be made of it."""
    start = Place(file, 1, 1, folder)
    if len(text) > MOST_BYTES:
        problems.add(start, (), f"more than {MOST_BYTES:,} characters: is this a recipe? For data, try `etude init FILE`")
        return None
    try:
        loader = yaml.SafeLoader(text)
    except ReaderError as error:
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1, error.position - before.rfind("\n"), folder)
        problems.add(place, (), f"the character {chr(error.character)!r} may not stand in YAML; escape it in double quotes")
        return None
    reader = _Reader(loader, start, problems)
    try:
        return reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        problems.add(reader.place(mark), (), _syntax(error))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets what chr() says of "\UFFFFFFFF" through as it is.
        problems.add(reader.place(loader.get_mark()), (), f"not valid YAML: {error}")
    except _TooMuch as error:
        problems.add(error.place, (), str(error))
    return None


_HINTS = {
    "'\\t'": "; indent with spaces, not with tabs",
    "mapping values are not allowed": "; put text that has `: ` in it in quotes, and check the indentation",
    "could not find expected ':'": "; is a `:` missing, or a quote not closed?",
    "'%'": "; put text that begins with % in quotes",
    "'@'": "; put text that begins with @ in quotes",
    "'`'": "; put text that begins with ` in quotes",
    "expected <block end>": "; check the indentation",
    "expected ',' or": "; text that begins with { or [ needs quotes",
}


def _syntax(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (error.problem, error.context) if part)
    if error.context and error.context_mark and error.problem_mark and error.context_mark.line != error.problem_mark.line:
        said += f" that begins in line {error.context_mark.line + 1}"
    return f"not valid YAML: {said}" + next((hint for sign, hint in _HINTS.items() if sign in said), "")


Event = Any  # PyYAML's stubs do not say which event carries which field


class _TooMuch(Exception):
    def __init__(self, place: Place, what: str):
        super().__init__(what)
        self.place = place


class _Reader:
    """Recursive descent over PyYAML's events."""

    def __init__(self, loader: yaml.SafeLoader, start: Place, problems: Problems):
        self.loader, self.start, self.problems = loader, start, problems
        self.anchors: dict[str, Node] = {}
        self.nodes = 0

    def place(self, mark: yaml.Mark) -> Place:
        return Place(self.start.file, mark.line + 1, mark.column + 1, self.start.folder)

    def complain(self, event: Event, what: str) -> None:
        self.problems.add(self.place(event.start_mark), (), what)

    def document(self) -> Node | None:
        self.loader.get_event()  # the stream begins
        if self.loader.check_event(yaml.StreamEndEvent):
            self.problems.add(self.start, (), "there is nothing in it; a recipe needs at least `base` and `stages`")
            return None
        self.loader.get_event()  # the document begins
        root = self.node(self.loader.get_event(), 1)
        self.loader.get_event()  # the document ends
        if not self.loader.check_event(yaml.StreamEndEvent):
            self.complain(self.loader.get_event(), "a second document begins here; a recipe is one document")
        return root

    def node(self, event: Event, depth: int) -> Node:
        place = self.place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, place, depth)
        self.count(place, 1, depth)
        if event.tag is not None:
            self.complain(event, f"tags such as {event.tag.replace('tag:yaml.org,2002:', '!!')} are not read; write the value plainly")
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node([self.node(inner, depth + 1) for inner in self.until(yaml.SequenceEndEvent)], place)
        else:
            node = self.mapping(place, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def until(self, end: type[yaml.Event]) -> Iterator[Event]:
        while not self.loader.check_event(end):
            yield self.loader.get_event()
        self.loader.get_event()

    def count(self, place: Place, nodes: int, depth: int) -> None:
        self.nodes += nodes
        if self.nodes > MOST_NODES:
            raise _TooMuch(place, f"more than {MOST_NODES:,} values, with every alias written out; a recipe is not that long")
        if depth > DEEPEST:
            raise _TooMuch(place, f"nested more than {DEEPEST} deep; no recipe is")

    def alias(self, event: Event, place: Place, depth: int) -> Node:
        # An anchor is known only once its node is complete, so no node can hold itself.
        if (meant := self.anchors.get(event.anchor)) is None:
            self.complain(event, f"nothing before this is anchored as &{event.anchor}")
            return Node(None, place, broken=True)
        self.count(place, meant.size, depth + meant.height - 1)
        return meant

    def halved(self, event: Event) -> bool:
        half = any("\ud800" <= character <= "\udfff" for character in event.value)
        if half:
            self.complain(event, "half of a surrogate pair is not a character; write the character itself")
        return half

    def scalar(self, event: Event, place: Place) -> Node:
        if self.halved(event):
            return Node(None, place, broken=True)
        if event.style is not None:
            return Node(event.value, place)
        try:
            return Node(scalar(event.value), place)
        except OverflowError:
            self.complain(event, "this integer is beyond 64 bits")
            return Node(None, place, broken=True)

    def mapping(self, place: Place, depth: int) -> Node:
        entries: dict[str, Node] = {}
        first: dict[str, Place] = {}
        for event in self.until(yaml.MappingEndEvent):
            key = self.place(event.start_mark)
            name = self.key(event, depth)
            node = replace(self.node(self.loader.get_event(), depth + 1), key=key)
            if name is None:
                continue
            if name in entries:
                self.complain(event, f"`{name}` stands here a second time; the first is in line {first[name].line}")
            else:
                entries[name], first[name] = node, key
        return Node(entries, place)

    def key(self, event: Event, depth: int) -> str | None:
        if not isinstance(event, yaml.ScalarEvent):
            self.complain(event, "a key must be a plain word; text that begins with { or [ or * needs quotes")
            self.node(event, depth + 1)
            return None
        if event.tag is not None or event.anchor is not None:
            self.complain(event, "a key may have no tag and no anchor")
        elif event.value == "<<" and event.style is None:
            self.complain(event, "merge keys (`<<`) are not YAML 1.2; write the keys out, or use `extends` and `${…}`")
        elif not self.halved(event):
            return event.value
        return None
