"""Operations counted, against torch's own counter on plain transformers, and against the formula for attention."""

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from etude.adaptation.lora import Lora
from etude.model.arithmetic import arithmetic, peak


def counted(model, length: int) -> tuple[float, float]:
    """What torch counts, forward and backward, of matrix products; eager attention's products of whole [T, T] apart."""
    config = model.config
    model.set_attn_implementation("eager")
    model.enable_input_require_grads()  # as deep in a network: every product gives back a gradient
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(3, 3 + length)[None], use_cache=False).logits.sum().backward()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 3 * 2 * 2 * config.num_hidden_layers * config.num_attention_heads * width * length**2
    return counter.get_total_flops() - attention, attention


@pytest.mark.parametrize("adapt", ["full", "frozen but for one layer", "lora"])
def test_it_is_what_torch_counts(adapt):
    model = tiny.llama()
    if adapt == "lora":
        model.requires_grad_(False)
        Lora(rank=4).attach(model, seed=0)
    elif adapt != "full":
        model.requires_grad_(False)
        model.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    found, length = arithmetic(model), 24
    matrices, attention = counted(model, length)
    if adapt != "lora":  # a LoRA of ours is one product, which torch's counter sees, too
        assert found.of(length, length, 0) == pytest.approx(matrices, rel=1e-3)
    assert found.pair * length**2 == attention


def test_a_lora_costs_what_its_narrow_matrices_cost():
    plain, adapted = tiny.llama().requires_grad_(False), tiny.llama().requires_grad_(False)
    attached = Lora(rank=4).attach(adapted, seed=0)
    narrow = sum(p.numel() for p in attached.trainable.values())
    assert arithmetic(adapted).token - arithmetic(plain).token == 6 * narrow


def test_other_families():
    shape, still = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=64), dict(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    gpt2 = GPT2LMHeadModel(GPT2Config(**shape, **still))
    matrices, _ = counted(gpt2, 24)
    assert arithmetic(gpt2).of(24, 24, 0) == pytest.approx(matrices, rel=1e-3)
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=100)
    few, all_of_them = (
        arithmetic(MixtralForCausalLM(MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=used))).token for used in (1, 4)
    )
    experts = 2 * 3 * 32 * 48 * 2 * 3  # three matrices a layer, two layers, three passes of two operations
    assert all_of_them - few == 3 * experts


def test_the_peak_is_measured_at_the_models_own_shapes():
    assert 1e7 < peak(tiny.llama(), 64, torch.float32) < 1e15
