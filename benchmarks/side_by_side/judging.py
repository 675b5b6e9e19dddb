"""What does plain transformers say of each side's adapter, in float32, every sequence alone? None of the sides' own code."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from side_by_side.plan import Plan

Found = TypeVar("Found")


def under_each(plan: Plan, adapters: Sequence[str], read: Callable[[nn.Module], Found]) -> list[Found]:
    """What `read` finds under the base, then under each adapter."""
    torch.set_num_threads(plan.threads)
    base = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    found = [read(base)]
    for folder in adapters:
        tuned = PeftModel.from_pretrained(base, folder)
        found.append(read(tuned))
        base = tuned.unload()
    return found


@torch.no_grad()
def log_probabilities(model: nn.Module, prompt: list[int], answer: list[int]) -> Tensor:
    """[answer] of each of its tokens after all before it."""
    logits = model(input_ids=torch.tensor([prompt + answer]), logits_to_keep=len(answer) + 1).logits[0, :-1]  # [answer, vocabulary]
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
