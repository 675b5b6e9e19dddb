"""A head saved with every adaptation and on several families: what foreign code loads says what etude says; reloaded it is the same."""

import pytest
import tiny
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
)

from etude import catalog
from etude.adaptation.reload import is_adapter, reattach
from etude.adaptation.sequence_classifier import add_outputs, save_with_outputs
from etude.core.scores import Outputs
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.engine.score import leaf_outputs
from etude.model.outputs import described_outputs, outputs_weight, reload_outputs
from etude.model.policy import Policy
from etude.objective.classify import Classify

THREE = Outputs(("a", "b", "c"), "leaf")
ONLY_OURS = {"bitfit", "bottleneck"}
SHAPE = dict(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)
GATED = SHAPE | dict(intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=False)
OLD = dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)
FAMILIES = {
    "gpt2": GPT2Config(**OLD),
    "gptj": GPTJConfig(**OLD, rotary_dim=4),
    "gpt_neox": GPTNeoXConfig(**SHAPE, intermediate_size=48),
    "opt": OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32),
    "mistral": MistralConfig(**GATED),
    "qwen2": Qwen2Config(**GATED),
    "gemma2": Gemma2Config(**GATED, head_dim=8),
}


def by_foreign_code(folder, base, tokens) -> torch.Tensor:
    """[3] logits of plain transformers or peft."""
    if is_adapter(folder):
        under = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
        plain = PeftModel.from_pretrained(under, folder)
    else:
        plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return plain.eval()(input_ids=torch.from_numpy(tokens).long()[None]).logits[0].double()


@pytest.mark.parametrize("kind", sorted(catalog.ADAPTATIONS))
def test_every_adaptation(tmp_path, kind):
    tiny.llama().save_pretrained(tmp_path / "base")
    objective, examples = tiny.task(Classify(), 8)
    made = tiny.course(tmp_path / "run", catalog.find("adaptation", kind)(), objective, examples=examples, steps=6, learning_rate=3e-2)
    fit(made.course)
    assert made.losses[-1] < made.losses[0]
    (out := tmp_path / "out").mkdir()
    save_with_outputs(made.attached, out, "classify", objective.outputs)
    policy, cut = Policy(made.attached.model), Cut(4096)
    expected = torch.from_numpy(leaf_outputs(policy, examples, cut))  # [8, 3]
    assert described_outputs(out) == ("classify", objective.outputs)
    if kind not in ONLY_OURS | {"qlora"}:  # of four bits, foreign code rounds the base in its own way
        for row in (0, 1, 2):
            found = by_foreign_code(out, tmp_path / "base", examples[row].samples[0].tokens)
            assert (found - expected[row]).abs().max() < 1e-4
    whole = not is_adapter(out)
    under = out if whole else tmp_path / "base"
    again = AutoModelForCausalLM.from_pretrained(under, dtype=torch.float32, attn_implementation="etude").eval()
    if not whole:
        reattach(again, out)
    reload_outputs(again, out, objective.outputs)
    reloaded = torch.from_numpy(leaf_outputs(Policy(again), examples, cut))
    assert (reloaded - expected).abs().max() < (1e-5 if kind == "pissa" else 1e-12)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families(tmp_path, family, adaptation):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval().requires_grad_(False)
    attached = catalog.find("adaptation", adaptation)().attach(model, seed=0)
    add_outputs(attached, THREE)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.05 * torch.randn(p.shape))
    (out := tmp_path / "out").mkdir()
    save_with_outputs(attached, out, "classify", THREE)
    examples = tiny.examples_of([tiny.sample([1, 5, 9, 4 + i], 0.0) for i in range(2)])
    expected = torch.from_numpy(leaf_outputs(Policy(model, layout="padded"), examples, Cut(99, layout="padded")))
    for row in (0, 1):
        assert (by_foreign_code(out, tmp_path / "base", examples[row].samples[0].tokens) - expected[row]).abs().max() < 1e-4
    assert outputs_weight(model).abs().max() > 0
