"""How does TRL run the plan? By its own `SFTTrainer.train()`."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from sft_sides.rows import Row
from side_by_side import trl_side
from side_by_side.plan import Plan
from side_by_side.worker import Turns

SETTINGS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl padding-free": {"gradient_checkpointing": False, "padding_free": True},
    "trl padded": {"gradient_checkpointing": False},
    "trl float32": {"bf16": False},
}
"""Beside TRL's own defaults (bfloat16 by autocast, activation checkpointing, padding)."""


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work`."""
    plan = Plan.read(work, Row)
    trl_side.quietly(plan)
    rows = [row for step in plan.steps for row in step]
    config = SFTConfig(
        **trl_side.usual(side, work, plan),
        per_device_train_batch_size=len(plan.steps[0]),
        train_sampling_strategy="sequential",
        max_length=None,  # its default would cut the long rows at 1,024 tokens
        **SETTINGS[side],
    )
    columns = {"input_ids": [row.tokens for row in rows], "labels": [row.labels for row in rows]}
    trainer = SFTTrainer(args=config, train_dataset=Dataset.from_dict(columns), **trl_side.given(plan, turns))
    trl_side.run(trainer, side, work, turns, plan)
    return {"settings": SETTINGS[side]}
