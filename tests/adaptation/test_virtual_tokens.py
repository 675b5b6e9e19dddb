"""Prefix, prompt and p-tuning on forests, in padded lines and while writing, against plain peft on each sample alone."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from etude.adaptation.p_tuning import PTuning
from etude.adaptation.prefix import Prefix
from etude.adaptation.prompt import Prompt
from etude.data.rows import Cut
from etude.data.trees import forest_of
from etude.errors import ModelError
from etude.model.generate import generate
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.next_token import NextToken

KINDS = {"prefix": Prefix(tokens=5), "prompt": Prompt(tokens=5), "p-tuning": PTuning(tokens=5, hidden=16)}
BEGINNING = [3, 9, 4, 11, 5, 8, 20, 33]
SAMPLES = [tiny.sample([*BEGINNING, *end]) for end in ([7, 9], [7, 10, 12, 5], [30], [41, 42, 43])] + [tiny.sample([50, 51, 52, 53])]
CUTS = {"one row": Cut(999, 2), "small": Cut(20, 2), "nothing shared": Cut(999, 99)}


def attached_to(model, kind: str):
    """With parameters that have left where they were born."""
    attached = KINDS[kind].attach(model.requires_grad_(False), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return attached


def alone(wrapper: PeftModel) -> Tensor:
    """Mean negative log-likelihood by peft's own forward, sample by sample."""
    losses, count = [], 0
    for sample in SAMPLES:
        tokens = torch.from_numpy(sample.tokens).long()
        logits = wrapper(input_ids=tokens[None]).logits[0, -len(tokens) : -1]
        losses.append(F.cross_entropy(logits, tokens[1:], reduction="sum"))
        count += len(tokens) - 1
    return torch.stack(losses).sum() / count


@pytest.mark.parametrize("cut", [*CUTS, "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_forest_behind_virtual_tokens_is_pefts_own_forward(llama, kind, cut):
    attached = attached_to(tiny.copy_of(llama), kind)
    how = CUTS.get(cut, Cut(999, 16, "padded"))
    policy = Policy(attached.model, layout=how.layout)
    if (kind, cut) == ("prefix", "padded"):
        with pytest.raises(ModelError, match="no prefix reaches"):
            policy(forest_of(SAMPLES, range(5), share=False))
        return
    result, found = tiny.gradients_of_step(policy, attached.trainable, NextToken(), tiny.examples_of(SAMPLES), how)
    truth = attached_to(tiny.copy_of(llama, "eager"), kind)
    expected = alone(truth.wrapper)
    gradients = dict(zip(truth.trainable, torch.autograd.grad(expected, list(truth.trainable.values())), strict=True))
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, gradients) < 1e-4
    assert (result.computed_tokens < result.logical_tokens) == (cut in ("one row", "small"))


SIZES = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
WINDOWED = {
    "mistral": MistralConfig(**SIZES, head_dim=8, sliding_window=8, initializer_range=0.2),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, sliding_window=8, initializer_range=0.2),
}


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_windows_reach_back_to_virtual_tokens_as_to_any(kind, family):
    """Eight places back: a token behind the window sees no virtual ones any more."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(WINDOWED[family], attn_implementation="eager").eval()
    model = AutoModelForCausalLM.from_config(WINDOWED[family], attn_implementation="etude").eval()
    model.load_state_dict(plain.state_dict())
    attached, truth = attached_to(model, kind), attached_to(plain, kind)
    with torch.no_grad():
        for mine, theirs in zip(attached.trainable.values(), truth.trainable.values(), strict=True):
            theirs.copy_(mine)
        forest = forest_of(SAMPLES, range(5), minimum_shared=2)
        policy = Policy(model)
        found = -forest.per_sample(policy(forest).log_probability).sum() / sum(len(sample) - 1 for sample in SAMPLES)
        assert float(found) == pytest.approx(float(alone(truth.wrapper)), abs=1e-5)
    assert policy.counts.slower


@pytest.mark.parametrize("kind", KINDS)
def test_writing_goes_on_behind_them_as_pefts_does(llama, kind):
    attached, truth = attached_to(tiny.copy_of(llama), kind), attached_to(tiny.copy_of(llama, "eager"), kind)
    prompts = [[*BEGINNING, 7], [*BEGINNING, 30, 31, 32], [50, 51]]
    found = generate(attached.model, prompts, stop_ids=frozenset(), max_new_tokens=6)
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                tokens.append(int(truth.wrapper(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert answer.tokens == tokens[len(prompt) :]
    with attached.off():
        off = generate(attached.model, prompts, stop_ids=frozenset(), max_new_tokens=6)
    assert off == generate(tiny.copy_of(llama), prompts, stop_ids=frozenset(), max_new_tokens=6)


@pytest.mark.parametrize("kind", KINDS)
def test_they_take_places_of_the_models_context(kind):
    model = attached_to(tiny.llama(max_position_embeddings=12), kind).model
    said = []
    (answer,) = generate(model, [[3, 4, 5]], stop_ids=frozenset(), max_new_tokens=9, say=said.append)
    assert len(answer.tokens) == 12 - 5 - 3 and "context (7)" in said[0]


def test_the_layout_is_chosen_without_them(llama):
    model = attached_to(tiny.copy_of(llama), "prompt").model
    assert choose_layout(model).name == "forest" and not model.virtual_tokens.off
