"""How good is each side's adapter on rows that no side has learnt from? The mean loss per supervised token."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from sft_sides.rows import IGNORED, Row
from side_by_side.judging import log_probabilities, under_each
from side_by_side.plan import Plan


def main(work: Path, adapters: list[str]) -> None:
    """Print the loss of the base, then under each adapter."""
    plan = Plan.read(work, Row)
    print(json.dumps(under_each(plan, adapters, lambda model: _loss(model, plan.held_out))))


def _loss(model: nn.Module, rows: list[Row]) -> float:
    total = torch.zeros(())
    for row in rows:
        asked = sum(label == IGNORED for label in row.labels)  # a row is a prompt and then its answer
        total -= log_probabilities(model, row.tokens[:asked], row.tokens[asked:]).sum()
    return total.item() / sum(row.supervised for row in rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
