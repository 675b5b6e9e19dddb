"""Newborn models: sizes, weights and tokenizers, against plain transformers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from etude.errors import ModelError
from etude.model.birth import born, configure, count
from etude.model.tokenizer import text_bytes
from etude.model.vocabulary.bpe import BytePairs
from etude.recipe.birth import Newborn

TEXTS = [f"def thing_{i}(x):\n    return x + {i}  # größer als {i - 1} 𝄞\n" for i in range(200)]
TOKENIZER = BytePairs(size=400).learn(iter(TEXTS))


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gpt2", "mixtral", "qwen3_moe"])
@pytest.mark.parametrize("size", ["300k", "15M"])
def test_a_size_is_nearly_what_the_model_has(architecture, size):
    newborn = Newborn(architecture=architecture, size=size, context=64)
    config, said = configure(newborn, TOKENIZER)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert 0.75 < parameters / newborn.parameters < 1.33 and f"{parameters:,} parameters" in said[0]
    assert config.max_position_embeddings == 64 and config.vocab_size == len(TOKENIZER) and config.eos_token_id == TOKENIZER.eos_token_id


def test_compute_is_six_operations_a_parameter_and_token_at_twenty_tokens():
    newborn = Newborn(compute=6e15)
    assert 6 * newborn.parameters * 20 * newborn.parameters == pytest.approx(6e15, rel=1e-6)


def test_what_is_written_by_hand_goes_before_the_dial():
    config, _ = configure(Newborn(size="1M", config={"num_attention_heads": 2, "num_key_value_heads": 1}), TOKENIZER)
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 1)
    config, said = configure(Newborn(config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}), TOKENIZER)
    assert (config.hidden_size, said) == (32, [])


RESIDUAL = ("o_proj", "down_proj")


THEMSELVES = ["gpt2", "gpt_bigcode", "nanochat"]
"""Families that scale what they write into the residual stream as they draw it."""


@pytest.mark.parametrize(("architecture", "scaled"), [("llama", RESIDUAL), ("mixtral", RESIDUAL), *((one, ()) for one in THEMSELVES)])
def test_weights_are_transformers_own_but_for_the_residual_scale(tmp_path, architecture, scaled):
    newborn = Newborn(architecture=architecture, size="300k", context=32, seed=3)
    config, _ = configure(newborn, TOKENIZER)
    before = torch.random.get_rng_state()
    found = born(newborn, config, TOKENIZER, tmp_path, print).state_dict()
    assert torch.equal(before, torch.random.get_rng_state()), "nobody else's numbers are drawn"
    torch.manual_seed(3)
    plain = AutoModelForCausalLM.from_config(config).state_dict()
    by = 1 / math.sqrt(2 * config.num_hidden_layers)
    for name, tensor in plain.items():
        assert torch.equal(found[name], tensor * by if any(part in name for part in scaled) else tensor), name
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, found[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    ("newborn", "said"),
    [
        (Newborn(architecture="lama", size="1M"), r"transformers knows no 'lama'(.|\n)*did you mean llama"),
        (Newborn(architecture="t5", size="1M"), "no t5 can be made so"),
        (Newborn(config={"hiden_size": 3}), "llama has no field 'hiden_size'"),
        (Newborn(config={"hidden_size": 30, "num_attention_heads": 4}), r"no llama can be made so(.|\n)*multiple"),
        (Newborn(size="2k"), "comes near 2,000 parameters"),
        (Newborn(architecture="nowhere:Model", size="1M"), "nowhere:Model cannot be read: ModuleNotFoundError"),
        (Newborn(architecture="math:sqrt", size="1M"), "math:sqrt is no PreTrainedModel"),
    ],
)
def test_what_cannot_be_born(newborn, said):
    with pytest.raises(ModelError, match=said):
        configure(newborn, TOKENIZER)


def test_no_memory_is_taken_to_count():
    config, _ = configure(Newborn(size="1B", context=32), TOKENIZER)
    assert 0.75e9 < count(config) < 1.33e9


@given(st.text(), st.integers(0, 100))
def test_any_text_comes_back_and_its_bytes_are_counted_wherever_it_is_cut(text, at):
    tokens = TOKENIZER(text)["input_ids"]
    spelt = any(mark in text for mark in TOKENIZER.all_special_tokens)
    assert TOKENIZER.decode(tokens) == text or spelt
    if not spelt:
        assert text_bytes(TOKENIZER, tokens[:at]) + text_bytes(TOKENIZER, [*tokens[at:], TOKENIZER.eos_token_id]) == text.encode()
