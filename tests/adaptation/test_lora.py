"""A LoRA from birth to export: equal to its parent, to itself reloaded, to plain peft and to plain transformers."""

import json

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, Qwen2MoeConfig

from etude.adaptation.contract import Attached
from etude.adaptation.lora import Lora
from etude.adaptation.lora_layer import LoraLinear, PlainLinear
from etude.adaptation.reload import is_adapter, reattach
from etude.engine.loop import fit
from etude.errors import ModelError
from etude.objective.next_token import NextToken

TOKENS = torch.randint(3, tiny.VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(7))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def attached_to(model: PreTrainedModel, **options) -> Attached:
    return Lora(**{"rank": 4, **options}).attach(model.requires_grad_(False), seed=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The base as plain files, and an adapter that was really trained on it."""
    folder = tmp_path_factory.mktemp("lora")
    tiny.llama().save_pretrained(folder / "base")
    made = tiny.course(folder / "run", Lora(rank=4, alpha=6), NextToken(), steps=8)
    fit(made.course)
    (folder / "adapter").mkdir()
    made.attached.save(folder / "adapter")
    return folder, made.attached


def base_of(folder, attention: str = "etude", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype, attn_implementation=attention).eval()


@pytest.mark.parametrize("options", [{}, {"alpha": 1.0}, {"targets": ["q_proj", "down_proj"]}])
def test_at_birth_it_is_its_parent(llama, options):
    model = tiny.copy_of(llama)
    attached = attached_to(model, **options)
    assert torch.equal(logits(model), logits(llama))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in attached.trainable.values())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(attached.trainable)


def test_at_birth_in_bfloat16(llama):
    """The wider product may add up in another order, so equality is to a last place or two, and off is exact."""
    parent = tiny.copy_of(llama).to(torch.bfloat16)
    model = tiny.copy_of(llama).to(torch.bfloat16)
    attached = attached_to(model)
    assert all(p.dtype == torch.float32 for p in attached.trainable.values()), "masters, whatever the base is held in"
    expected = logits(parent).float()
    assert (logits(model).float() - expected).abs().max() <= 2**-6 * expected.abs().max()
    with attached.off():
        assert torch.equal(logits(model), logits(parent))


def test_the_same_seed_is_the_same_adapter_and_asks_nothing_of_its_surroundings(llama):
    torch.manual_seed(1)
    one = attached_to(tiny.copy_of(llama)).trainable
    model = tiny.copy_of(llama)
    state = torch.get_rng_state()
    two = attached_to(model).trainable
    assert torch.equal(state, torch.get_rng_state())
    other = Lora(rank=4).attach(tiny.copy_of(llama), seed=1).trainable
    assert all(torch.equal(p, two[name]) for name, p in one.items())
    assert not all(torch.equal(p, other[name]) for name, p in one.items())


def test_off_it_is_its_parent_and_on_again_it_is_not(trained, llama):
    _, attached = trained
    tuned = logits(attached.model)
    assert attached.can_switch_off
    with attached.off():
        assert torch.equal(logits(attached.model), logits(llama))
    assert torch.equal(logits(attached.model), tuned)
    assert (tuned - logits(llama)).abs().max() > 0.1


def test_reloaded_it_is_the_same_class_with_the_same_arithmetic(trained):
    folder, attached = trained
    again = reattach(base_of(folder), folder / "adapter")
    assert is_adapter(folder / "adapter") and not is_adapter(folder / "base")
    kinds = {type(module) for module in again.model.modules() if isinstance(module, PeftLinear)}
    assert kinds == {LoraLinear}
    assert torch.equal(logits(again.model), logits(attached.model))
    assert again.trainable.keys() == attached.trainable.keys()
    assert all(torch.equal(p, attached.trainable[name]) for name, p in again.trainable.items())


def test_equal_adapters_are_equal_files_in_every_process(trained):
    """peft keeps the names of layers as a set, whose order is drawn anew in each process."""
    names = json.loads((trained[0] / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert len(names) > 6 and names == sorted(names)


def test_reloaded_in_bfloat16_it_keeps_its_masters(trained):
    folder, attached = trained
    again = reattach(base_of(folder, dtype=torch.bfloat16), folder / "adapter")
    assert all(torch.equal(p, attached.trainable[name]) for name, p in again.trainable.items())
    assert {type(module) for module in again.model.modules() if isinstance(module, PeftLinear)} == {LoraLinear}


def test_it_loads_in_plain_peft_on_plain_transformers(trained):
    folder, attached = trained
    plain = PeftModel.from_pretrained(base_of(folder, "eager"), folder / "adapter").eval()
    assert not any(isinstance(module, LoraLinear) for module in plain.modules())
    assert (logits(plain) - logits(attached.model)).abs().max() < 1e-4
    written = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (written["peft_type"], written["r"], written["lora_alpha"]) == ("LORA", 4, 6)
    assert {path.suffix for path in (folder / "adapter").iterdir()} <= {".safetensors", ".json", ".md"}, "no pickle"


def test_merged_it_is_a_plain_model_that_says_the_same(trained, tmp_path):
    folder, attached = trained
    expected = logits(attached.model)
    merged = reattach(base_of(folder), folder / "adapter").merged()
    assert not any(isinstance(module, PeftLinear) for module in merged.modules())
    assert (logits(merged) - expected).abs().max() < 1e-4
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32, attn_implementation="eager").eval()
    assert (logits(plain) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_against_its_formula(dtype, bias):
    """y = W x + s B A x + b, and its gradients by autograd in float64."""
    torch.manual_seed(0)
    holder = nn.Sequential(nn.Linear(24, 40, bias=bias, dtype=dtype)).requires_grad_(False)
    layer = LoraLinear(holder[0], "default", config=LoraConfig(r=3, lora_alpha=5), r=3, lora_alpha=5)
    a, b = layer.float().lora_A["default"].weight, layer.lora_B["default"].weight
    holder.to(dtype)  # the base in its type, beside float32 masters
    nn.init.normal_(b)
    x = torch.randn(2, 7, 24, dtype=dtype, requires_grad=True)
    towards = torch.randn(2, 7, 40, dtype=dtype)
    y = layer(x)
    found = [y.detach(), *torch.autograd.grad((y * towards).sum(), (x, a, b))]
    wide = [t.detach().double().requires_grad_() for t in (x, a, b)]
    truth = wide[0] @ holder[0].weight.double().T + 5 / 3 * wide[0] @ wide[1].T @ wide[2].T
    truth = truth + (holder[0].bias.double() if bias else 0)
    expected = [truth.detach(), *torch.autograd.grad((truth * towards.double()).sum(), wide)]
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    for mine, wanted in zip(found, expected, strict=True):
        assert float((mine.double() - wanted).norm() / wanted.norm()) < (1e-6 if dtype == torch.float32 else 8e-3)


def test_dropout_drops_only_while_training(llama):
    """Also right after it is attached: peft's layers are born training, on a model that evaluates."""
    model = tiny.copy_of(llama)
    attached = attached_to(model, dropout=0.5)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.1)
    assert torch.equal(logits(model), logits(model))
    attached.model.train()
    assert not torch.equal(logits(model), logits(model))


def test_heads_and_routers_are_left_alone_and_experts_are_said():
    moe = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=24)
    config = Qwen2MoeConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, **moe
    )
    attached = attached_to(AutoModelForCausalLM.from_config(config))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in attached.trainable}
    assert {"q_proj", "o_proj"} <= adapted and not adapted & {"lm_head", "gate", "shared_expert_gate"}
    assert any("experts" in note for note in attached.notes)


def test_a_layer_that_is_not_a_plain_linear_one_keeps_pefts_and_is_said_in_bfloat16():
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4), dtype=torch.bfloat16)
    attached = attached_to(model)
    assert any("Conv1D" in note and "after rounding" in note for note in attached.notes)

    class Quantised(nn.Linear):
        """As bitsandbytes' layers are: a kind of nn.Linear."""

    assert isinstance(nn.Linear(1, 1), PlainLinear) and not isinstance(Quantised(1, 1), PlainLinear)


def test_targets_that_are_not_there_are_refused_with_what_is(llama):
    with pytest.raises(ModelError, match="found nothing to adapt") as caught:
        attached_to(tiny.copy_of(llama), targets=["query"])
    assert "q_proj" in caught.value.remedy


@pytest.mark.filterwarnings("ignore:Model:UserWarning")
def test_20_a_tied_head_is_not_adapted_alone_and_an_untied_one_may_be(tmp_path):
    """Merging would change the embedding as well: logits were off by 1.5. A foreign adapter that does so runs, but is not merged."""
    with pytest.raises(ModelError, match="lm_head cannot have a LoRA of its own"):
        attached_to(tiny.llama(), targets=["q_proj", "lm_head"])
    attached = attached_to(tiny.llama(tie_word_embeddings=False), targets=["q_proj", "lm_head"])
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.05)
    attached.save(tmp_path)
    expected = logits(attached.model)
    assert (logits(attached.merged()) - expected).abs().max() < 1e-4
    with pytest.raises(ModelError, match="merging would change"):
        reattach(tiny.llama(), tmp_path).merged()


def test_an_adapter_of_another_shape_or_kind_is_refused(trained, tmp_path):
    folder, _ = trained
    with pytest.raises(ModelError, match="does not fit"):
        reattach(tiny.llama(num_hidden_layers=1), folder / "adapter")
    attached_to(tiny.llama(), targets=["q_proj"]).save(tmp_path)
    with pytest.raises(ModelError, match=r"does not fit.*layers\.2"):  # its third layer would have an adapter that does nothing
        reattach(tiny.llama(num_hidden_layers=3), tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "OFT"}')
    with pytest.raises(ModelError, match="OFT"):
        reattach(tiny.llama(), tmp_path)
