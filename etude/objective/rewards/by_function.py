"""A function of the user's own as a reward."""

import importlib.util
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

from etude.errors import TrainingError
from etude.objective.rewards.contract import Reward
from etude.recipe.strict import FileText


class ByFunction(Reward):
    """Calls `function(prompt, expected, answer)` of a Python file and takes the number that it returns."""

    kind: ClassVar[str] = "python"
    file: FileText = "reward.py"
    """The file; it is run as the recipe's own code."""
    function: str = "reward"
    """Its function."""

    @property
    def own_code(self) -> str:
        return _file(self.file).read_text(encoding="utf-8")

    def score(self, prompt: str, expected: str, answer: str) -> float:
        worth = _function(self.file, self.function)(prompt, expected, answer)
        if not isinstance(worth, (int, float)) or not math.isfinite(worth):
            raise TrainingError(f"{self.file}: {self.function} returned {worth!r}", "let it return a finite number for every answer")
        return float(worth)


def _file(file: str) -> Path:
    if not Path(file).is_file():
        raise TrainingError(f"reward: there is no file {file}", "write a Python file with a function of prompt, expected, answer")
    return Path(file)


@cache
def _function(file: str, name: str) -> Callable[[str, str, str], float]:
    spec = importlib.util.spec_from_file_location("etude_reward", _file(file))
    assert spec is not None and spec.loader is not None, "a file that is there can be read"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := getattr(module, name, None)):
        raise TrainingError(f"{file} has no function {name!r}", "name one of its functions in `function`")
    return found
