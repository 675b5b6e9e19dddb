"""Invariant 1 over the families of decoders: each runs the layout it should, and its loss and gradients are those of each sample alone.

Tiny random weights; windows of 8 tokens, so that every sample is longer than one. The truth is transformers' own forward under its
eager attention, with its own logits: what a family does to scores, softmax, states or logits is in it.
"""

import alone
import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from etude.data.rows import Cut
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.next_token import NextToken

COMMON = dict(
    vocab_size=tiny.VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
WINDOW = dict(sliding_window=8)
MIXED = dict(layer_types=["sliding_attention", "full_attention"])
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
LOCAL_EXPERTS = dict(num_local_experts=4, num_experts_per_tok=2)
ROUTED_EXPERTS = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, n_group=1, topk_group=1, first_k_dense_replace=1)
GPT = dict(n_embd=32, n_layer=2, n_head=4, n_positions=128)
# Latent attention: keys of 16 + 8, values of 12.
LATENT = dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12, head_dim=8, num_key_value_heads=4)
LINEAR = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8)

FOREST = {
    "apertus": {},
    "arcee": {},
    "bitnet": {},
    "cohere": dict(logit_scale=0.3),
    "cohere2": WINDOW | MIXED,
    "deepseek_v3": ROUTED_EXPERTS | LATENT,
    "diffllama": {},
    "ernie4_5": {},
    "exaone4": WINDOW | MIXED,
    "gemma": {},
    "gemma2": WINDOW | MIXED | dict(final_logit_softcapping=3.0, attn_logit_softcapping=2.0),
    "gemma3_text": WINDOW | MIXED,
    "glm": {},
    "glm4": {},
    "glm4_moe": ROUTED_EXPERTS,
    "gpt2": GPT,
    "gpt_neox": {},
    "gpt_oss": LOCAL_EXPERTS | WINDOW | MIXED,
    "granite": dict(logits_scaling=2.0, attention_multiplier=0.2, residual_multiplier=0.7, embedding_multiplier=3.0),
    "granitemoe": LOCAL_EXPERTS,
    "helium": {},
    "hunyuan_v1_dense": {},
    "llama": {},
    "ministral": WINDOW,
    "mistral": WINDOW,
    "mixtral": LOCAL_EXPERTS,
    "olmo": {},
    "olmo2": {},
    "olmo3": WINDOW | MIXED,
    "olmoe": EXPERTS,
    "opt": dict(ffn_dim=48, word_embed_proj_dim=32),
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": EXPERTS | dict(shared_expert_intermediate_size=24),
    "qwen3": {},
    "qwen3_moe": EXPERTS,
    "seed_oss": {},
    "smollm3": dict(no_rope_layer_interval=2),
    "starcoder2": WINDOW,
}

PADDED = {
    "bloom": dict(n_layer=2, n_head=4),
    "codegen": GPT | dict(rotary_dim=8),
    "falcon": dict(num_kv_heads=2, new_decoder_architecture=True, head_dim=None),
    "falcon_h1": dict(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8),
    "gpt_neo": dict(num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=8),
    "gptj": GPT | dict(rotary_dim=8),
    "lfm2": dict(block_ff_dim=48, layer_types=["conv", "full_attention"]),
    "mamba": dict(state_size=8),
    "mamba2": dict(num_heads=8, head_dim=8, state_size=8, n_groups=2),
    "mpt": dict(d_model=32, n_heads=4, n_layers=2, max_seq_len=128),
    "nemotron": {},
    "qwen3_5_text": LINEAR | dict(layer_types=["linear_attention", "full_attention"]),
    "qwen3_next": EXPERTS | LINEAR | dict(shared_expert_intermediate_size=24, layer_types=["linear_attention", "full_attention"]),
    "stablelm": {},
}


def build(family: str) -> PreTrainedModel:
    """Under etude's attention where the family takes it; norms and biases moved off their ones and zeros."""
    options = {name: value for name, value in (COMMON | (FOREST | PADDED)[family]).items() if value is not None}
    config = AutoConfig.for_model(family, **options)
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="etude")
    except (ValueError, KeyError):  # it has attention of its own
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.05 if p.dim() < 2 else 0.1))
    return model.eval()


def an_uneven_tree() -> list[tiny.Example]:
    """Three levels, a beginning that is itself a sample, equal samples, a lone path, weights of every kind."""
    draw = torch.Generator().manual_seed(0)
    sizes = zip("abcdef", (13, 9, 17, 5, 6, 11), strict=True)
    runs = {name: torch.randint(3, tiny.VOCABULARY, (size,), generator=draw).tolist() for name, size in sizes}
    paths = ("abd", "ab", "ac", "abe", "f", "ab")
    weights = (1.0, 0.5, 2.0, 1.0, 1.0, 1.0)
    samples = []
    for path, weight in zip(paths, weights, strict=True):
        tokens = [token for name in path for token in runs[name]]
        samples.append(tiny.sample(tokens, [weight * (i % 4 != 2) for i in range(len(tokens))]))
    return tiny.examples_of(samples)


@pytest.mark.parametrize("family", [*FOREST, *PADDED])
@pytest.mark.filterwarnings("ignore")
def test_family(family):
    model, examples = build(family), an_uneven_tree()
    layout = choose_layout(model)
    assert layout.name == ("forest" if family in FOREST else "padded"), layout
    assert bool(layout.note) == (family in PADDED), "what is slower is said"
    policy = Policy(model, layout=layout.name)
    trainable = dict(model.named_parameters())
    result, found = tiny.gradients_of_step(policy, trainable, NextToken(), examples, Cut(100, 2, layout.name))
    if model.config._attn_implementation == "etude":
        model.set_attn_implementation("eager")
    expected = alone.next_token(model, examples)
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, model)) < 1e-4
    if family in FOREST:
        assert result.computed_tokens < result.logical_tokens, "something was shared"


def test_there_are_enough_families():
    assert len(FOREST) >= 35
