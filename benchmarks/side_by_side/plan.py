"""What is every side told to do? The same base, newborn adapter, rate, and the same rows in the same steps."""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar


class Unit(Protocol):
    """What a step has several of: a named tuple of plain values, such as a row or a pair."""

    @property
    def paths(self) -> list[int]:
        """Tokens of each sequence that a side without sharing reads for it."""
        ...

    @property
    def supervised(self) -> int:
        """Tokens that are learnt."""
        ...


Some = TypeVar("Some", bound=Unit)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Some]):
    """What a side is told to do."""

    model: str
    """Folder of the base model in Hugging Face layout, float32."""
    birth: str
    """Folder of the adapter that every side starts from, in peft's layout."""
    steps: list[list[Some]]
    """The units of each optimizer step, in order."""
    learning_rate: float
    """Constant."""
    threads: int
    """That torch computes with."""
    passes: int = 1
    """How often the steps go over the same units."""
    held_out: list[Some] = field(default_factory=list)
    """Units that no side learns from."""

    @property
    def batches(self) -> list[list[Some]]:
        """The steps of the first pass."""
        return self.steps[: len(self.steps) // self.passes]

    def only(self, passes: int) -> "Plan[Some]":
        """The same plan with fewer passes."""
        return replace(self, steps=self.batches * passes, passes=passes)

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_text(json.dumps({one.name: getattr(self, one.name) for one in fields(self)}))

    @classmethod
    def read(cls, folder: Path, unit: type[Some]) -> "Plan[Some]":
        found = json.loads((folder / "plan.json").read_text())
        found["steps"] = [[unit(*one) for one in step] for step in found["steps"]]
        return cls(**found | {"held_out": [unit(*one) for one in found["held_out"]]})
