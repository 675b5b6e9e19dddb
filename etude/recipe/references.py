"""`${path.to.key}`: one value of a recipe said in terms of another.

The whole value as one reference takes the other's type; inside a longer text it is written in. `$${` is a literal `${`,
and `${{` is left alone, for Jinja behind a dollar sign. Nothing outside the recipe can be referred to.
"""

import difflib
import json
import re
from dataclasses import replace

from etude.recipe.document import DEEPEST, MOST_NODES, Node, Path, Problems, dotted

LONGEST_TEXT = 100_000

_REFERENCE = re.compile(r"(?P<literal>\$\$\{)|(?P<jinja>\$\{\{)|\$\{(?P<name>[^{}]*)\}|(?P<open>\$\{)")


def resolved(root: Node, problems: Problems) -> Node:
    """The tree with every reference replaced; what cannot be is reported and left broken."""
    return _Resolver(root, problems).at(())


class _Unresolvable(Exception):
    """What is wrong with a reference; empty where that was already said."""


class _Resolver:
    def __init__(self, root: Node, problems: Problems):
        self.root, self.problems = root, problems
        self.done: dict[Path, Node] = {}
        self.under_way: list[Path] = []
        self.nodes = 0

    def at(self, path: Path) -> Node:
        """The resolved value at `path`, which exists."""
        if path not in self.done:
            if path in self.under_way:
                circle = [*self.under_way[self.under_way.index(path) :], path]
                raise _Unresolvable(f"refers to itself: {' → '.join(dotted(step) or 'the recipe' for step in circle)}")
            self.under_way.append(path)
            try:
                self.done[path] = self.resolve(self.walk(path), path)
            finally:
                self.under_way.pop()
        return self.done[path]

    def walk(self, path: Path) -> Node:
        node = self.root
        for key in path:
            node = node.inside[key]
        return node

    def resolve(self, node: Node, path: Path) -> Node:
        if isinstance(node.value, dict):
            return replace(node, value={key: self.at((*path, key)) for key in node.value})
        if isinstance(node.value, list):
            return replace(node, value=[self.at((*path, index)) for index in range(len(node.value))])
        if not isinstance(node.value, str) or not node.refers:
            return node
        try:
            found = self.text(node, node.value)
            self.nodes += found.size
            if self.nodes > MOST_NODES or found.height + len(path) > DEEPEST:
                raise _Unresolvable(f"the references add up to more than {MOST_NODES:,} values, or to more than {DEEPEST} levels")
            return found
        except _Unresolvable as error:
            if str(error):
                self.problems.add(node.place, path, str(error))
            return replace(node, value=None, broken=True)

    def text(self, node: Node, text: str) -> Node:
        if (whole := _REFERENCE.fullmatch(text)) and whole["name"] is not None:
            target = self.target(whole["name"])
            # Complaints belong where the reference stands, relative paths where the value was written.
            return replace(target, key=node.key, place=replace(node.place, folder=target.place.folder))
        folder, pieces, end = node.place.folder, [], 0
        for match in _REFERENCE.finditer(text):
            pieces.append(text[end : match.start()])
            end = match.end()
            if match["open"]:
                raise _Unresolvable("`${` without its `}`; for the characters themselves write `$${`")
            if match["name"] is None:
                pieces.append("${" if match["literal"] else "${{")
                continue
            target = self.target(match["name"])
            if match.start() == 0:
                folder = target.place.folder
            pieces.append(_written(target, match["name"]))
        pieces.append(text[end:])
        if sum(map(len, pieces)) > LONGEST_TEXT:
            raise _Unresolvable(f"is longer than {LONGEST_TEXT:,} characters with its references written out")
        return replace(node, value="".join(pieces), place=replace(node.place, folder=folder))

    def target(self, name: str) -> Node:
        if ":" in name or not name:
            why = "the environment is not read, so that a recipe says the same on every machine" if name else "a reference needs a name"
            raise _Unresolvable(f"`${{{name}}}`: {why}; write the value, or give it as an override (`key=value`)")
        node, known = self.root, False
        path: Path = ()
        for part in name.split("."):
            if not known and node.refers:
                node, known = self.at(path), True  # it leads elsewhere; what lies below is resolved already
            key = int(part) if isinstance(node.value, list) and part.isascii() and part.isdigit() else part
            if key not in node.inside:
                said = node.broken or self.problems.partial
                raise _Unresolvable("" if said else _missing(name, dotted(path), part, list(map(str, node.inside))))
            node, path = node.inside[key], (*path, key)
        found = node if known else self.at(path)
        if found.broken:
            raise _Unresolvable("")
        return found


def _missing(name: str, above: str, part: str, inside: list[str]) -> str:
    near = difflib.get_close_matches(part, inside, 1)
    where = f"`{above}`" if above else "the recipe"
    hint = f"did you mean `{'.'.join(filter(None, [above, near[0]]))}`?" if near else f"written there: {', '.join(inside) or 'nothing'}"
    environment = "; the environment is not read" if name.isupper() else ""
    return f"`${{{name}}}`: {where} has no `{part}` written in it (defaults cannot be referred to); {hint}{environment}"


def _written(target: Node, name: str) -> str:
    if isinstance(target.value, (dict, list)):
        raise _Unresolvable(f"`${{{name}}}` is a whole mapping or list and cannot stand inside a text")
    return target.value if isinstance(target.value, str) else json.dumps(target.value)
