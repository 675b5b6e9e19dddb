"""How does etude's update on sampled answers (GRPO) compare with TRL's, and with its own without sharing, on this processor?

    uv run --group benchmark python benchmarks/grpo.py [--quick] [--write]

Every side lives in a process of its own. They take turns step by step, the others idle, so that a drift of the machine meets all.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from side_by_side.contest import Base, Contest, Group, contend, enter
from side_by_side.plan import Plan

LEARNING_RATE = 1e-4
OURS = Group(("etude", "etude unshared", "etude float32"))
# Without checkpointing or in float32 one of TRL's takes up to 14 GiB here, so never two of them at once. Of TRL's float32 only the
# first losses are wanted. A step of the tree takes TRL minutes: its defaults take one to warm up and one that counts.
GROUPS = {
    "groups": (OURS, Group(("trl", "etude")), Group(("trl unchecked", "etude"), passes=3), Group(("trl float32",), passes=2)),
    "tree": (OURS, Group(("trl", "etude"), passes=2)),
}
QUICK_GROUPS = (OURS, Group(("trl", "etude")))
CONTEST = Contest(
    name="grpo",
    unit="answer",
    sides=dict.fromkeys(("trl", "trl unchecked", "trl float32"), "grpo_sides.with_trl")
    | dict.fromkeys(("etude", "etude float32", "etude unshared"), "grpo_sides.with_etude"),
    best="trl unchecked",  # bfloat16, no checkpointing
    judge="grpo_sides.judge",
    judged="trained",
    shapes=tuple(GROUPS),
)


def main(arguments: Sequence[str] | None = None) -> None:
    enter(CONTEST, __doc__, arguments, run)


def run(shape: str, base: Base, work: Path, asked: Namespace) -> dict[str, Any]:
    """Write the answers, then race and judge all sides on one shape."""
    from grpo_sides.answers import Size, batches_of

    full = {
        "groups": Size(prompt=500, answers=8, tokens=96, passes=4),
        "tree": Size(prompt=500, answers=8, tokens=60, branches=4, branch=200, passes=3),
    }
    quick = {
        "groups": Size(prompt=160, answers=8, tokens=32),
        "tree": Size(prompt=160, answers=4, tokens=24, branches=2, branch=60),
    }
    size = (quick if asked.quick else full)[shape]
    steps = batches_of(size, str(base.folder), base.tokenizer, base.stop_ids) * size.passes
    plan = Plan(str(base.folder), str(base.birth), steps, LEARNING_RATE, base.threads, passes=size.passes)
    found = contend(CONTEST, shape, plan, QUICK_GROUPS if asked.quick else GROUPS[shape], work)
    lengths = [len(answer.tokens) for batch in plan.batches for answer in batch]
    data = {"prompt_tokens": [len(batch[0].prompt) for batch in plan.batches], "answer_tokens": [min(lengths), max(lengths)]}
    return found | {"data": data | {"branches": size.branches, "branch_tokens": size.branch}}


if __name__ == "__main__":
    main()
