"""A LoRA on four bits: what is held, that the product is the unpacked one, and that nothing says the rounded base is the parent."""

import json

import pytest
import tiny
import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from etude.adaptation.lora import QUANTISED, Lora
from etude.adaptation.qlora import QLora, QuantisedLoraLinear
from etude.adaptation.reload import reattach
from etude.data.trees import forest_of
from etude.engine.loop import fit
from etude.model import quantised
from etude.model.policy import Policy
from etude.model.quantised import dense, library, quantise
from etude.objective.next_token import NextToken

SIZES = dict(hidden_size=128, intermediate_size=256, head_dim=32)
# bitsandbytes' own tables: https://arxiv.org/abs/2305.14314, appendix E
NF4 = [-1.0, -0.6961928, -0.5250731, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]


def test_the_values_are_those_of_the_paper():
    """Every unpacked weight is its block's largest times one of sixteen numbers, up to the rounding of the scales."""
    model = tiny.llama(**SIZES).requires_grad_(False)
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    found = quantise(model)
    after = dense(model.model.layers[0].mlp.up_proj.weight)
    blocks, levels = before.view(-1, 64), torch.tensor(NF4)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = levels[(blocks / scale).unsqueeze(-1).sub(levels).abs().argmin(-1)] * scale
    assert float((after.view(-1, 64) - nearest).norm() / nearest.norm()) < 0.04
    assert found.layers == 14 and 0.05 < found.error < 0.15
    assert found.bytes / found.parameters <= 0.55
    assert type(model.lm_head) is nn.Linear and model.lm_head.weight is model.model.embed_tokens.weight, "the tied head stays whole"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_is_the_product_with_what_the_bits_stand_for(dtype):
    model = tiny.llama(**SIZES).to(dtype).requires_grad_(False)
    attached = QLora(rank=4, alpha=6).attach(model, seed=0)
    layer = next(module for module in model.modules() if isinstance(module, QuantisedLoraLinear))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    nn.init.normal_(b)
    x = torch.randn(3, 7, 128, dtype=dtype, requires_grad=True)
    y = layer(x)
    towards = torch.randn_like(y)
    found = [y.detach(), *torch.autograd.grad((y * towards).sum(), (x, a, b))]
    wide = [t.detach().double().requires_grad_() for t in (x, a, b)]
    truth = F.linear(wide[0], dense(layer.base_layer.weight).double()) + 1.5 * wide[0] @ wide[1].T @ wide[2].T
    expected = [truth.detach(), *torch.autograd.grad((truth * towards.double()).sum(), wide)]
    for mine, wanted in zip(found, expected, strict=True):
        assert float((mine.double() - wanted).norm() / wanted.norm()) < (1e-6 if dtype == torch.float32 else 8e-3)
    assert all(p.dtype == torch.float32 for p in attached.trainable.values())
    assert any("NF4" in note and "bytes each" in note for note in attached.notes)


def test_the_same_four_bits_in_whatever_type_the_base_is_read():
    models = [tiny.llama(**SIZES).to(dtype).requires_grad_(False) for dtype in (torch.float32, torch.bfloat16)]
    for model in models:
        quantise(model)
    one, two = (model.model.layers[1].self_attn.o_proj.weight for model in models)
    assert torch.equal(one.data, two.data)
    assert (dense(one).dtype, dense(two).dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(dense(one).bfloat16(), dense(two))


def test_25_merged_it_is_what_was_trained_and_not_the_original_base(tmp_path):
    """peft's own way rounds the sum to four bits again; another base under the adapter is another model."""
    made = tiny.course(tmp_path, QLora(rank=4), NextToken(), model=tiny.llama(**SIZES), steps=6)
    fit(made.course)
    (tmp_path / "adapter").mkdir()
    made.attached.save(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / QUANTISED).read_text())["kind"] == "nf4"
    samples = [example.samples[0] for example in tiny.some_examples(NextToken(), 6, seed=9)]
    forest = forest_of(samples, range(6))

    def loss(model) -> float:
        with torch.no_grad():
            return -float(Policy(model)(forest).log_probability.mean())

    expected = loss(made.attached.model)
    merged = reattach(tiny.llama(**SIZES), tmp_path / "adapter").merged()
    assert not any(isinstance(m, (LoraLayer, library().nn.Linear4bit)) for m in merged.modules())
    (tmp_path / "adapter" / QUANTISED).unlink()
    other = reattach(tiny.llama(**SIZES), tmp_path / "adapter").merged()
    assert abs(loss(merged) - expected) < 1e-5
    assert abs(loss(other) - expected) > 1e-3, "on the base as it was, the adapter says something else"


def test_its_parent_is_asked_before_it_is_rounded():
    assert not QLora().keeps_parent and Lora().keeps_parent
    attached = QLora().attach(tiny.llama(**SIZES).requires_grad_(False), seed=0)
    assert not attached.can_switch_off and attached.is_adapter


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(quantised.ModelError) as caught:
        quantise(tiny.llama(**SIZES))
    assert "etude[qlora]" in caught.value.remedy
