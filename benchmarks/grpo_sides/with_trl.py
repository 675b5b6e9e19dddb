"""How does TRL take the update? By its own `GRPOTrainer.train()`, in which writing and scoring answers is replaced by handing them over.

So only the update is compared: forward with the clipped loss, backward, clipping, AdamW. A branch and its leaf are one completion.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOConfig, GRPOTrainer

from grpo_sides.answers import Answer
from side_by_side import trl_side
from side_by_side.plan import Plan
from side_by_side.worker import Turns

SETTINGS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl unchecked": {"gradient_checkpointing": False},
    "trl float32": {"bf16": False},
}
"""Beside TRL's own defaults (bfloat16 by autocast, activation checkpointing, padding, the loss `dapo`: a mean over tokens)."""
BATCH = 8
"""TRL's default: larger steps accumulate."""


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work`."""
    plan = Plan.read(work, Answer)
    trl_side.quietly(plan)
    answers, left = len(plan.steps[0]), iter(plan.steps)

    class Given(GRPOTrainer):
        """Learns from the answers of the plan, a step's at a time."""

        def _generate_and_score_completions(self, _inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
            return _padded(next(left), self.processing_class.pad_token_id)

    config = GRPOConfig(
        **trl_side.usual(side, work, plan),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=answers // BATCH,
        num_generations=BATCH,
        **SETTINGS[side],
    )
    prompts = Dataset.from_dict({"prompt": ["handed over by the plan"] * (len(plan.steps) * answers // BATCH)})
    trainer = Given(args=config, reward_funcs=_never, train_dataset=prompts, **trl_side.given(plan, turns))
    trl_side.run(trainer, side, work, turns, plan)
    return {"settings": SETTINGS[side]}


def _never(*_args: object, **_kwargs: object) -> list[float]:
    raise AssertionError("rewards are in the plan's advantages")


def _padded(answers: list[Answer], pad: int) -> dict[str, Tensor]:
    """As TRL's own method lays them out: prompts padded on the left, completions on the right."""
    prompts, completions, old = (
        [torch.tensor(part) for part in parts]
        for parts in zip(*((answer.prompt, answer.tokens, answer.old) for answer in answers), strict=True)
    )
    ones = lambda tensors: [torch.ones_like(tensor) for tensor in tensors]
    before = dict(batch_first=True, padding_side="left")
    return {
        "prompt_ids": pad_sequence(prompts, padding_value=pad, **before),
        "prompt_mask": pad_sequence(ones(prompts), **before),
        "completion_ids": pad_sequence(completions, batch_first=True, padding_value=pad),
        "completion_mask": pad_sequence(ones(completions), batch_first=True),
        "old_per_token_logps": pad_sequence(old, batch_first=True),
        "advantages": torch.tensor([answer.advantage for answer in answers]),
        "num_items_in_batch": torch.tensor(sum(len(answer.tokens) for answer in answers)),
    }
