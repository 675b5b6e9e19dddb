"""How far has each side's adapter brought the loss of the answers it learnt from? GRPO's loss by its formula, without trainers."""

import json
import sys
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from grpo_sides.answers import Answer
from side_by_side.judging import log_probabilities, under_each
from side_by_side.plan import Plan

CLIP = 0.2
"""Default of both."""


def main(work: Path, adapters: list[str]) -> None:
    """Print the mean loss of a token over each batch, averaged over batches: of the base, then under each adapter."""
    plan = Plan.read(work, Answer)
    print(json.dumps(under_each(plan, adapters, lambda model: mean(_loss(model, batch) for batch in plan.batches))))


def _loss(model: nn.Module, answers: list[Answer]) -> float:
    total = torch.zeros(())
    for answer in answers:
        ratio = torch.exp(log_probabilities(model, answer.prompt, answer.tokens) - torch.tensor(answer.old))
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        total -= torch.minimum(ratio * answer.advantage, clipped * answer.advantage).sum()
    return total.item() / sum(answer.supervised for answer in answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
