"""Relative to what? Paths written in a recipe become absolute, from the folder of the file they were written in."""

import os
import re
from collections.abc import Callable
from dataclasses import replace

from etude.recipe.document import Node, Problems
from etude.recipe.shape import Shape

SCHEMES = ("package:", "python:", "hub:", "corpus:")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def absolute(problems: Problems) -> Callable[[Node, Shape], Node]:
    """A change for `shape.transform`: texts marked as paths, made absolute by their rule."""

    def change(node: Node, shape: Shape) -> Node:
        text = node.value
        if shape.located is None or not isinstance(text, str) or not text or text.startswith(SCHEMES):
            return node
        if url := _URL.match(text):
            name = text.removeprefix("hf://datasets/")
            if name == text and shape.located.rule == "always":
                return node
            hint = f"did you mean `hub:{name}`?" if name != text else "bring it here first, or use `hub:` or `package:`"
            problems.add(node.place, (), f"{text!r}: nothing is read from {url[1]}://; {hint}")
            return replace(node, broken=True)
        if shape.located.rule == "always" or _is_a_path(text, node.place.folder):
            return replace(node, value=os.path.abspath(os.path.join(node.place.folder, os.path.expanduser(text))))
        return node

    return change


def _is_a_path(text: str, folder: str) -> bool:
    evident = text in (".", "..") or text.startswith(("./", "../", "~", "/")) or text.endswith(".gguf")
    return evident or os.path.isdir(os.path.join(folder, text))
