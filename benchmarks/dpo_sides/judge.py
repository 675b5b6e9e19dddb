"""How far has each side's adapter brought the loss of the pairs it learnt from? DPO's loss by its formula, without trainers."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from dpo_sides.pairs import BETA, Pair
from side_by_side.judging import log_probabilities, under_each
from side_by_side.plan import Plan


def main(work: Path, adapters: list[str]) -> None:
    """Print the mean loss of a pair: of the base (ln 2), then under each adapter."""
    plan = Plan.read(work, Pair)
    pairs = [pair for batch in plan.batches for pair in batch]
    parent, *tuned = under_each(plan, adapters, lambda model: _preferred(model, pairs))
    print(json.dumps([-torch.nn.functional.logsigmoid(BETA * (found - parent)).mean().item() for found in (parent, *tuned)]))


def _preferred(model: nn.Module, pairs: list[Pair]) -> Tensor:
    """[pairs] log p(chosen) - log p(rejected)."""
    both = [[log_probabilities(model, pair.prompt, answer).sum() for answer in (pair.chosen, pair.rejected)] for pair in pairs]
    return torch.stack([chosen - rejected for chosen, rejected in both])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
