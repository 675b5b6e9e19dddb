"""How good is each side's adapter? Plain transformers and peft, float32, every held-out row alone: none of the sides' own code."""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from sft_sides.rows import Plan


def main(work: Path, adapters: list[str]) -> None:
    """Print the mean loss per supervised token: of the base, then under each adapter."""
    plan = Plan.read(work)
    torch.set_num_threads(plan.threads)
    base = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    found = [_loss(base, plan)]
    for folder in adapters:
        tuned = PeftModel.from_pretrained(base, folder)
        found.append(_loss(tuned, plan))
        base = tuned.unload()
    print(json.dumps(found))


@torch.no_grad()
def _loss(model: torch.nn.Module, plan: Plan) -> float:
    total = 0.0
    for row in plan.held_out:
        logits = model(input_ids=torch.tensor([row.tokens])).logits[0, :-1]  # [length - 1, vocabulary]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum").item()
    return total / sum(row.supervised for row in plan.held_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
