"""A small catalog of its own, so that these tests import no torch and do not change when leaves come or go."""

from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from etude.recipe.strict import Leaf


class Lora(Leaf):
    """Stands for the real one."""

    kind: ClassVar[str] = "lora"
    rank: PositiveInt = 16
    """Of every delta."""
    alpha: PositiveFloat | None = None
    """Its scale."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Which layers."""


class Full(Leaf):
    """No options."""

    kind: ClassVar[str] = "full"


class NextToken(Leaf):
    """No options."""

    kind: ClassVar[str] = "next-token"


class DPO(Leaf):
    """A preference objective."""

    kind: ClassVar[str] = "dpo"
    beta: PositiveFloat = 0.1
    """How close to the parent."""


class KTO(DPO):
    """Another one."""

    kind: ClassVar[str] = "kto"


class Tracker(Leaf):
    """Has an option that must be given."""

    kind: ClassVar[str] = "board"
    project: str
    """Where to."""


TABLES = {
    "adaptation": {"full": "recipe_leaves:Full", "lora": "recipe_leaves:Lora"},
    "objective": {"next-token": "recipe_leaves:NextToken", "dpo": "recipe_leaves:DPO", "kto": "recipe_leaves:KTO"},
    "optimizer": {"adamw": "etude.engine.optimizers.adamw:AdamW"},
    "schedule": {"constant": "etude.engine.schedules:Constant", "cosine": "etude.engine.schedules:Cosine"},
    "metric": {"accuracy": "etude.evaluation.metrics.accuracy:Accuracy", "macro-f1": "etude.evaluation.metrics.macro_f1:MacroF1"},
    "tracker": {"board": "recipe_leaves:Tracker", "absent": "no_such_module_here:Absent"},
}
