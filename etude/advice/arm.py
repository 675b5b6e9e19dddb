"""The nouns of the learn/forget frontier: arms that were trained and judged alike, and what they were."""

import json
from dataclasses import asdict, dataclass, field

from etude.evaluation.judgement import Axis


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of adapting, trained and judged."""

    kind: str
    """Of adaptation, as the recipe would name it."""
    learning_rate: float
    """Peak rate that it was trained with."""
    artefact: str
    """What came of it, as `name@version`."""
    report: str | None
    """Path of its own report; None where it was not judged."""
    task: Axis
    """What the stage was for; its parent's figure is the same for all arms."""
    general: Axis | None
    """Loss on general text; None where the recipe keeps nothing."""
    trainable: int
    """Parameters that could change."""
    parameters: int
    """Of the model in all."""
    file_bytes: int
    """What is kept of it on disk, tokenizer and report included."""
    peak_memory: int
    """Bytes, of the whole process that trained and judged it."""
    seconds: float
    """Of training alone."""
    best: bool = False
    """Whether no other arm is at least as good at both, and better at one."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """What was compared, and what could not be."""

    recipe: str
    """Name of the recipe."""
    stage: str
    """Which of its stages was trained in each way."""
    parent: str
    """What all arms were trained from."""
    made: str
    """When, as an ISO time."""
    arms: tuple[Arm, ...]
    """Best at the task first."""
    missing: dict[str, str] = field(default_factory=dict)
    """Kinds without a result, and why."""
    page: str = ""
    """The HTML page; a JSON file of the same lies beside it."""

    def to_json(self) -> str:
        """All figures, as one object."""
        arms = [
            asdict(arm) | {"task": arm.task.model_dump(mode="json"), "general": arm.general and arm.general.model_dump(mode="json")}
            for arm in self.arms
        ]
        return json.dumps(asdict(self) | {"arms": arms}, ensure_ascii=False, indent=1)
