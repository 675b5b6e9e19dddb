"""Generation against plain transformers, one prompt at a time."""

import random

import pytest
import torch
from transformers import (
    BloomConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from etude.errors import ModelError
from etude.model.cache import why_not_shared
from etude.model.generate import generate, stream

SMALL = dict(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    initializer_range=0.3,
)
NO_ENDS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)

ATTENTION = {
    "llama": lambda: LlamaConfig(**SMALL, **NO_ENDS),
    "qwen3": lambda: Qwen3Config(**SMALL, **NO_ENDS),
    # Windows shorter than every prompt, so that a cache or a mask that counts padding as distance is seen.
    "gemma2": lambda: Gemma2Config(**SMALL, **NO_ENDS, sliding_window=8, query_pre_attn_scalar=8, attn_implementation="eager"),
    "mistral": lambda: MistralConfig(**SMALL, **NO_ENDS, sliding_window=6),
    "gpt2": lambda: GPT2Config(vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=128, initializer_range=0.3, **NO_ENDS),
    "bloom": lambda: BloomConfig(vocab_size=97, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3, **NO_ENDS),
}
RECURRENT = {
    "mamba": lambda: MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.3, **NO_ENDS),
    "lfm2": lambda: Lfm2Config(
        **{k: v for k, v in SMALL.items() if k != "head_dim"}, layer_types=["conv", "full_attention", "conv"], **NO_ENDS
    ),
}
STOPS = frozenset(range(0, 97, 19))


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = (ATTENTION | RECURRENT)[name]()
    return AutoModelForCausalLM.from_config(config, attn_implementation=config._attn_implementation).eval()


def some_prompts(count: int, shared: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    beginning = [draw.randrange(97) for _ in range(shared)]
    return [beginning + [draw.randrange(97) for _ in range(draw.randint(1, 25))] for _ in range(count)]


def plain(model, prompt: list[int], new_tokens: int) -> tuple[list[int], list[float]]:
    """What transformers writes for one prompt alone, the stop token included, and how clear each choice was."""
    settings = GenerationConfig(
        max_new_tokens=new_tokens, eos_token_id=sorted(STOPS), pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    tokens = torch.tensor([prompt])
    output = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)
    best = [logits[0].float().topk(2).values for logits in output.logits]
    return output.sequences[0, len(prompt) :].tolist(), [float(top[0] - top[1]) for top in best]


def compare(model, prompts: list[list[int]], answers, new_tokens: int, clear: float = 1e-4) -> int:
    """How many tokens were compared and equal; a choice that is not clear ends the comparison of its answer."""
    compared = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        expected, margins = plain(model, prompt, new_tokens)
        got = answer.tokens + ([answer.stop] if answer.stopped else [])
        sure = next((i for i, margin in enumerate(margins) if margin <= clear), len(margins))
        assert got[:sure] == expected[:sure]
        compared += sure
    return compared


@pytest.mark.parametrize("name", [*ATTENTION, *RECURRENT])
def test_greedy_equals_transformers_one_by_one(name):
    model = build(name)
    prompts = some_prompts(count=9, shared=11)
    said = []
    answers = generate(model, prompts, stop_ids=STOPS, max_new_tokens=12, batch_tokens=150, say=said.append)
    assert compare(model, prompts, answers, 12) >= 40
    assert any(len(answer.tokens) > 2 for answer in answers) and (name == "mamba" or any(answer.stopped for answer in answers))
    assert bool(said) == (name in RECURRENT) == bool(why_not_shared(model))


@pytest.mark.parametrize("shared", [0, 1, 20])
def test_equal_prompts_and_other_beginnings(shared):
    model = build("llama")
    prompts = some_prompts(count=4, shared=shared, seed=1)
    prompts += [list(prompts[0]), prompts[1][:1] if shared == 0 else prompts[0][: shared + 1]]
    answers = generate(model, prompts, stop_ids=STOPS, max_new_tokens=6)
    assert compare(model, prompts, answers, 6) >= 15
    assert answers[0] == answers[4]
    one = generate(model, [prompts[2]] * 3, stop_ids=STOPS, max_new_tokens=6)
    assert one == [answers[2]] * 3


def test_a_shared_beginning_is_read_once():
    model = build("llama")
    prompts = some_prompts(count=8, shared=30)
    read = []
    model.model.embed_tokens.register_forward_hook(lambda module, arguments, output: read.append(arguments[0].numel()))
    generate(model, prompts, stop_ids=frozenset(), max_new_tokens=1)
    widest = max(len(prompt) for prompt in prompts) - 30 - 1
    assert read == [30, 8 * widest, 8]


def test_rows_that_have_ended_leave_the_batch():
    model = build("llama")
    prompts = some_prompts(count=8, shared=5)
    rows = []
    tracked = []
    model.lm_head.register_forward_hook(lambda module, arguments, output: rows.append(output.shape[0] * output.shape[1]))
    model.lm_head.register_forward_hook(lambda module, arguments, output: tracked.append(output.requires_grad))
    answers = generate(model, prompts, stop_ids=STOPS, max_new_tokens=20)
    assert sum(rows) == sum(len(answer.tokens) + answer.stopped for answer in answers)
    assert not any(tracked)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_sampling_repeats_and_follows_the_distribution(name):
    model = build(name)
    prompt = [3, 1, 4, 1, 5]
    drawn = dict(stop_ids=frozenset(), max_new_tokens=1, temperature=2.0, top_p=0.8, say=lambda _: None)
    answers = generate(model, [prompt] * 4000, seed=7, batch_tokens=10**9, **drawn)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = generate(model, [prompt] * 4000, seed=7, batch_tokens=10**9, **drawn)
    assert torch.equal(state, torch.get_rng_state())
    other = generate(model, [prompt] * 4000, seed=8, batch_tokens=10**9, **drawn)
    assert answers == again != other
    probability = (model(torch.tensor([prompt])).logits[0, -1].double() / 2.0).softmax(-1)
    mass, token = probability.sort(descending=True)
    kept = token[mass.cumsum(0) - mass < 0.8]
    expected = torch.zeros(97, dtype=torch.float64).index_put((kept,), probability[kept])
    expected /= expected.sum()
    counts = torch.bincount(torch.tensor([answer.tokens[0] for answer in answers]), minlength=97)
    assert set(counts.nonzero().flatten().tolist()) <= set(kept.tolist())
    assert (counts / 4000 - expected).abs().max() < 0.03  # four standard errors of a share of a half


def test_draws_do_not_depend_on_the_batch():
    model = build("qwen3")
    prompts = some_prompts(count=10, shared=6)
    drawn = dict(stop_ids=STOPS, max_new_tokens=8, temperature=1.0, seed=3)
    assert generate(model, prompts, batch_tokens=60, **drawn) == generate(model, prompts, batch_tokens=10_000, **drawn)


@pytest.mark.parametrize("name", ["gemma2", "mamba"])
def test_stream_is_generate(name):
    model = build(name)
    prompt = some_prompts(count=1, shared=9)[0]
    whole = generate(model, [prompt], stop_ids=STOPS, max_new_tokens=15, say=lambda _: None)[0]
    pieces = stream(model, prompt, stop_ids=STOPS, max_new_tokens=15, say=lambda _: None)
    assert list(pieces) == whole.tokens
    assert torch.is_grad_enabled()


def test_stream_leaves_gradients_on_between_tokens():
    pieces = stream(build("llama"), [1, 2, 3], stop_ids=frozenset(), max_new_tokens=3)
    next(pieces)
    assert torch.is_grad_enabled()


def test_what_the_context_leaves_is_said():
    model = build("gpt2")
    prompts = [[1] * 120, [2] * 4]
    said = []
    answers = generate(model, prompts, stop_ids=frozenset(), max_new_tokens=20, say=said.append)
    assert [len(answer.tokens) for answer in answers] == [8, 20]
    assert not answers[0].stopped and "1 of 2 prompts" in said[0]
    with pytest.raises(ModelError, match="prompt 2 has 128 tokens"):
        generate(model, [[1], [1] * 128], stop_ids=frozenset(), max_new_tokens=1)
    with pytest.raises(ModelError, match="prompt 1 has no tokens"):
        generate(model, [[]], stop_ids=frozenset(), max_new_tokens=1)
    assert generate(model, [], stop_ids=frozenset(), max_new_tokens=1) == []


def test_training_mode_is_given_back_and_dropout_is_off():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, resid_pdrop=0.5, **NO_ENDS)
    model = AutoModelForCausalLM.from_config(config).train()
    prompts = some_prompts(count=3, shared=4)
    first = generate(model, prompts, stop_ids=STOPS, max_new_tokens=5)
    assert first == generate(model, prompts, stop_ids=STOPS, max_new_tokens=5) and model.training


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_the_distribution_is_the_models_own(name):
    """Not what the generation config of a checkpoint does to it: a penalty would change a measured accuracy."""
    model = build(name)
    prompts = some_prompts(count=4, shared=5)
    asked = dict(stop_ids=STOPS, max_new_tokens=10, say=lambda _: None)
    own = generate(model, prompts, **asked)
    model.generation_config = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1, do_sample=True)
    assert generate(model, prompts, **asked) == own
    assert model.generation_config.repetition_penalty == 9.0


def test_progress_counts_answers():
    seen = []
    prompts = some_prompts(count=5, shared=4)
    generate(build("llama"), prompts, stop_ids=STOPS, max_new_tokens=4, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_model_with_adapters_inside():
    from peft import LoraConfig, inject_adapter_in_model

    model = build("llama")
    prompts = some_prompts(count=6, shared=10)
    without = generate(model, prompts, stop_ids=STOPS, max_new_tokens=8)
    inject_adapter_in_model(LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False), model)
    within = generate(model.eval(), prompts, stop_ids=STOPS, max_new_tokens=8)
    assert compare(model, prompts, within, 8) >= 20
    assert within != without
