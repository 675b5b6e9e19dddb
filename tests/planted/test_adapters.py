"""The silent failures of adapters, each planted in plain peft and seen to be impossible or said in etude. See docs/trust.md."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from etude.adaptation.lora import QUANTISED
from etude.adaptation.pissa import Pissa
from etude.adaptation.qlora import QLora
from etude.adaptation.reload import reattach
from etude.model.quantised import library, quantise

TOKENS = torch.randint(3, tiny.VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(7))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


@pytest.mark.filterwarnings("ignore")
def test_17_without_its_adapter_it_is_not_its_parent(llama):
    """A preference reference by switching off would be another model's, from the first step on."""
    parent = logits(llama)
    plain = get_peft_model(tiny.copy_of(llama, "eager"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"))
    with plain.disable_adapter():
        assert (logits(plain) - parent).abs().max() > 0.1, "peft's own"
    model = tiny.copy_of(llama).requires_grad_(False)
    with Pissa(rank=4).attach(model, seed=0).off():
        assert torch.equal(logits(model), parent)


@pytest.mark.filterwarnings("ignore")
def test_25_merged_into_or_put_on_another_base_than_it_was_trained_on(tmp_path):
    """peft's merge rounds the sum to four bits again; on the original base the adapter is simply another model."""
    sizes = dict(hidden_size=128, intermediate_size=256, head_dim=32)
    base = tiny.llama(**sizes)
    attached = QLora(rank=4).attach(tiny.copy_of(base).requires_grad_(False), seed=0)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    attached.save(tmp_path)
    trained = logits(attached.model)

    rounded = tiny.copy_of(base, "eager")
    quantise(rounded)
    rounded.is_loaded_in_4bit = True  # as transformers marks what it quantised, so that peft takes its own layer
    plain = get_peft_model(rounded, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    names = {name: p for name, p in plain.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for name, p in attached.trainable.items():
            names[f"base_model.model.{name}"].copy_(p)
    assert (logits(plain) - trained).abs().max() < 1e-4, "the same adapter on the same bits"
    assert (logits(plain.merge_and_unload()) - trained).abs().max() > 1e-2, "merged by peft it is not itself any more"

    merged = reattach(tiny.copy_of(base), tmp_path).merged()
    assert not any(isinstance(module, library().nn.Linear4bit) for module in merged.modules())
    assert (logits(merged) - trained).abs().max() < 1e-4
    (tmp_path / QUANTISED).unlink()
    assert (logits(reattach(tiny.copy_of(base), tmp_path).model) - trained).abs().max() > 1e-2, "without the mark it would be silent"
