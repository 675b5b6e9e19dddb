"""How does etude's supervised fine-tuning compare with TRL's, on the same rows, model, LoRA and learning rate, on this processor?

    uv run --group benchmark python benchmarks/sft.py [--quick] [--write]

Every side lives in a process of its own. They take turns step by step, the others idle, so that a drift of the machine meets all.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side.contest import Base, Contest, Group, contend, enter
from side_by_side.plan import Plan

LEARNING_RATE = 2e-4


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run of a shape."""

    rows: int
    """In one step."""
    steps: int
    """The first one is not timed."""
    held_out: int
    """Rows."""


FULL = {"chat": Size(8, 6, 8), "instruction": Size(12, 4, 12), "long": Size(2, 4, 2)}
QUICK = {"chat": Size(4, 2, 2), "instruction": Size(3, 2, 3), "long": Size(1, 2, 1)}
LONG_ROW, QUICK_LONG_ROW = 1600, 400
"""Tokens of a long row, at least."""
# Without checkpointing one of TRL's takes up to 14 GiB here, so never two of them at once.
GROUPS = (
    Group(("trl", "etude", "etude float32")),
    Group(("trl padding-free", "etude")),
    Group(("trl padded", "etude")),
    Group(("trl float32", "etude float32")),
)
QUICK_GROUPS = (Group(("trl", "trl padding-free", "etude", "etude float32")),)
CONTEST = Contest(
    name="sft",
    unit="row",
    sides=dict.fromkeys(("trl", "trl padding-free", "trl padded", "trl float32"), "sft_sides.with_trl")
    | dict.fromkeys(("etude", "etude float32"), "sft_sides.with_etude"),
    best="trl padding-free",  # bfloat16, padding-free, no checkpointing
    judge="sft_sides.judge",
    judged="held_out",
    shapes=tuple(FULL),
)


def main(arguments: Sequence[str] | None = None) -> None:
    enter(CONTEST, __doc__, arguments, run)


def run(shape: str, base: Base, work: Path, asked: Namespace) -> dict[str, Any]:
    """Race and judge all sides on one shape."""
    from sft_sides.rows import rows_of

    size = (QUICK if asked.quick else FULL)[shape]
    learnt = size.rows * size.steps
    rows = rows_of(shape, base.tokenizer, learnt + size.held_out, QUICK_LONG_ROW if asked.quick else LONG_ROW)
    steps = [rows[at : at + size.rows] for at in range(0, learnt, size.rows)]
    plan = Plan(str(base.folder), str(base.birth), steps, LEARNING_RATE, base.threads, held_out=rows[learnt:])
    return contend(CONTEST, shape, plan, QUICK_GROUPS if asked.quick else GROUPS, work)


if __name__ == "__main__":
    main()
