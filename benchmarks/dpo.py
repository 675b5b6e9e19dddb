"""How does etude's DPO compare with TRL's, on the same real pairs, model, LoRA and learning rate, on this processor?

    uv run --group benchmark python benchmarks/dpo.py [--quick] [--write] [--pairs FILE]

Every side lives in a process of its own. They take turns step by step, the others idle, so that a drift of the machine meets all.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side.contest import Base, Contest, Group, contend, enter
from side_by_side.plan import Plan
from side_by_side.process import HERE

LEARNING_RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run of each shape."""

    pairs: int
    """In one step."""
    batches: int
    """Different steps; each comes once in every pass."""
    passes: int
    """The very first step is not timed; the losses of the last pass say how far each side has come."""
    longest: int
    """Tokens of prompt and answer, at most."""


FULL, QUICK = Size(4, 2, 2, 640), Size(2, 1, 2, 400)  # with pairs of up to TRL's 1,024 tokens a full run would take twice as long
# Without checkpointing or in float32 one of TRL's takes up to 14 GiB here, so never two of them at once. Of TRL's float32 only the
# first losses are wanted.
GROUPS = (Group(("trl", "etude", "etude float32")), Group(("trl unchecked", "etude")), Group(("trl float32",), passes=1))
QUICK_GROUPS = (Group(("trl", "etude", "etude float32")),)
CONTEST = Contest(
    name="dpo",
    unit="pair",
    sides=dict.fromkeys(("trl", "trl unchecked", "trl float32"), "dpo_sides.with_trl")
    | dict.fromkeys(("etude", "etude float32"), "dpo_sides.with_etude"),
    best="trl unchecked",  # bfloat16, no checkpointing; padding-free is not to be had
    judge="dpo_sides.judge",
    judged="trained",
    shapes=("long", "short"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    enter(CONTEST, __doc__, arguments, run, {"--pairs": "the archive with the pairs, or the file out of it, where it cannot be fetched"})


def run(shape: str, base: Base, work: Path, asked: Namespace) -> dict[str, Any]:
    """Race and judge all sides on one shape."""
    from dpo_sides.pairs import of_shape, rendered, statistics
    from dpo_sides.source import pairs_of
    from etude.lineage.project import make_project

    size = QUICK if asked.quick else FULL
    rows = pairs_of(Path(asked.pairs) if asked.pairs else None, make_project(HERE.parent) / "benchmarks")
    every = rendered(base.tokenizer, rows)
    fitting = of_shape(shape, every, size.longest)
    chosen = fitting[: size.pairs * size.batches]
    steps = [chosen[at : at + size.pairs] for at in range(0, len(chosen), size.pairs)] * size.passes
    plan = Plan(str(base.folder), str(base.birth), steps, LEARNING_RATE, base.threads, passes=size.passes)
    found = contend(CONTEST, shape, plan, QUICK_GROUPS if asked.quick else GROUPS, work)
    counts = {"pairs": len(every), "of_this_shape": len(fitting), "longest": size.longest}
    return found | {"data": counts | {"tokens_of_shape": statistics(fitting), "tokens_of_steps": statistics(chosen)}}


if __name__ == "__main__":
    main()
