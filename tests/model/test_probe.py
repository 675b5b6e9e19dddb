"""Does the probe tell who can run a forest? Models that can, models that cannot, and models broken on purpose."""

import pytest
import tiny
import torch
from transformers import BloomConfig, Lfm2Config, LlamaConfig, MistralConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from etude.errors import ModelError
from etude.model import attention
from etude.model.by_node import by_node
from etude.model.policy import Policy
from etude.model.probe import choose_layout, longest_path

SMALL = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def under_ours(config, dtype=torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="etude")


def test_a_transformer_runs_forests_and_nothing_is_said(llama):
    layout = choose_layout(llama)
    assert (layout.name, layout.note) == ("forest", "")
    assert longest_path(llama.config) is None
    assert layout.error <= layout.tolerance < 1e-4


def test_in_bfloat16_too(llama):
    layout = choose_layout(tiny.copy_of(llama).to(torch.bfloat16))
    assert layout.name == "forest" and layout.error <= layout.tolerance < 1


def test_a_convolution_sees_the_neighbouring_branch_and_is_padded():
    layout = choose_layout(under_ours(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"])))
    assert layout.name == "padded"
    assert "Lfm2ForCausalLM" in layout.note and "nats" in layout.note and "nothing is shared" in layout.note


def test_a_model_that_was_loaded_under_other_attention_is_padded(llama):
    assert choose_layout(tiny.copy_of(llama, "sdpa")).name == "padded"


def test_a_model_with_attention_of_its_own_gets_its_own_masks_back():
    """Under our name bloom was given masks it cannot read: without its causal mask it saw the future, and no error was raised."""
    model = under_ours(BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)).eval()
    tokens = torch.randint(3, 61, (1, 20), generator=torch.Generator().manual_seed(0))

    def moved_by_the_future() -> float:
        with torch.no_grad():
            return float((model(tokens).logits[0, :10] - model(tokens[:, :10]).logits[0]).abs().max())

    assert moved_by_the_future() > 1e-2
    layout = choose_layout(model)
    assert layout.name == "padded" and layout.tolerance < 1e-4
    assert moved_by_the_future() < 1e-5


def test_windows_are_shrunk_until_they_bite_and_put_back(monkeypatch):
    model = under_ours(MistralConfig(**SMALL, sliding_window=4096))
    assert choose_layout(model).name == "forest"
    windows = {module.sliding_window for module in model.modules() if hasattr(module, "sliding_window")} | {model.config.sliding_window}
    assert windows == {4096}
    # Attention that forgets windows is found out, although no sample of the probe is as long as the model's own.
    monkeypatch.setattr(attention, "by_node", lambda *tensors, window, **special: by_node(*tensors, **special))
    assert choose_layout(model).name == "padded"


def test_a_head_that_does_something_unknown_is_refused(llama):
    model = tiny.copy_of(llama)
    model.config.final_logit_softcapping = 3.0  # the policy believes it, the model's forward does not
    with pytest.raises(ModelError, match="nats off transformers' own forward"):
        choose_layout(model)


def test_training_mode_is_left_as_it_was(llama):
    model = tiny.copy_of(llama)
    for mode in (True, False):
        model.train(mode)
        choose_layout(model)
        assert model.training is mode


def test_rotary_scaling_that_looks_at_the_longest_position_is_named():
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert longest_path(LlamaConfig(**SMALL, max_position_embeddings=512, rope_parameters=rope)) == 512


def test_a_forest_under_foreign_attention_is_refused(llama):
    for name in ("sdpa", "eager"):
        with pytest.raises(ValueError, match="silently wrong"):
            Policy(tiny.copy_of(llama, name))
