"""What holds of every adaptation in the catalog: at birth its parent, off its parent, saved and reloaded itself, merged itself."""

import pytest
import tiny
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, Qwen2Config

from etude import catalog
from etude.adaptation.bitfit import BiasedLinear, BitFit
from etude.adaptation.bottleneck import Bottleneck
from etude.adaptation.contract import Adaptation
from etude.adaptation.dora import DoRA
from etude.adaptation.embeddings import Embeddings
from etude.adaptation.ia3 import IA3
from etude.adaptation.last_layers import LastLayers
from etude.adaptation.lora_layer import LoraLinear
from etude.adaptation.lora_plus import LoraPlus
from etude.adaptation.parameters import Parameters
from etude.adaptation.pissa import Pissa
from etude.adaptation.reload import is_adapter, reattach
from etude.adaptation.rslora import RankStabilisedLora
from etude.adaptation.vera import Vera
from etude.data.trees import forest_of
from etude.engine.loop import fit
from etude.errors import ModelError, TrainingError
from etude.model.policy import Policy
from etude.objective.next_token import NextToken

TOKENS = torch.randint(3, tiny.VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(7))
RATES = {"full": 3e-3, "last_layers": 3e-3, "parameters": 3e-2, "lora+": 2e-3, "ia3": 5e-2, "vera": 5e-2, "embeddings": 5e-2}
RATES |= {"prefix": 5e-2, "prompt": 1e-1}
WHOLE = {"full", "last_layers", "parameters"}
"""These change the model itself."""
VIRTUAL = {"prefix", "prompt", "p-tuning"}
"""These put learned tokens before every sample: not their parent at birth, but without them; and in no weights to be merged into."""
FOUR_BITS = {"qlora"}
"""These round the base: neither born as their parent nor it when off, and exact only on a base rounded in the same way."""
OURS = {"bitfit", "bottleneck"}
"""These are saved in etude's own format, because peft has none for them."""


FOREST = forest_of([tiny.sample(row.tolist()) for row in TOKENS], [0, 1])


def logits(model: nn.Module) -> Tensor:
    """Of foreign code's own forward."""
    with torch.no_grad():
        return model(input_ids=TOKENS).logits[:, -TOKENS.shape[1] :]


def scores(model: PreTrainedModel) -> Tensor:
    """[2 · (L - 1)] what etude makes of the same tokens, row by row."""
    with torch.no_grad():
        found = Policy(model, compute=model.dtype)(FOREST).log_probability[FOREST.member_prediction]
    return found[(FOREST.member_sample * 100 + FOREST.position[FOREST.source[FOREST.member_prediction]]).argsort()]


def as_scores(found: Tensor) -> Tensor:
    """[N] of logits [2, L, vocabulary]."""
    return torch.log_softmax(found[:, :-1], -1).gather(-1, TOKENS[:, 1:, None]).flatten()


def made_of(kind: str, **options) -> Adaptation:
    return catalog.find("adaptation", kind)(**options)


@pytest.fixture(scope="module", params=sorted(catalog.ADAPTATIONS))
def trained(request, tmp_path_factory):
    """A base as plain files, and what was really trained on it."""
    folder = tmp_path_factory.mktemp(request.param.strip("+"))
    tiny.llama().save_pretrained(folder / "base")
    rate = RATES.get(request.param, 1e-2)
    made = tiny.course(
        folder / "run", made_of(request.param), NextToken(), examples=tiny.some_examples(NextToken(), 8), steps=8, learning_rate=rate
    )
    before = scores(made.attached.model)
    fit(made.course)
    (folder / "adapter").mkdir()
    made.attached.save(folder / "adapter")
    return request.param, folder, made, before


def base_of(folder, attention: str = "etude") -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation=attention).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", sorted(catalog.ADAPTATIONS))
def test_at_birth_and_off_it_is_its_parent(llama, kind, dtype):
    adaptation = made_of(kind)
    held = torch.float32 if adaptation.holds_masters else dtype
    parent, model = (tiny.copy_of(llama).to(held).requires_grad_(False) for _ in range(2))
    attached = adaptation.attach(model, seed=0)
    expected = scores(parent)
    if kind not in VIRTUAL | FOUR_BITS:
        assert (scores(model) - expected).abs().max() <= (0 if held == torch.float32 else 2**-5 * expected.abs().max())
    assert attached.trainable and all(p.requires_grad and p.dtype == torch.float32 for p in attached.trainable.values())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(attached.trainable)
    assert attached.can_switch_off == (kind not in WHOLE | FOUR_BITS)
    assert attached.is_adapter == (kind not in WHOLE) and adaptation.keeps_parent == attached.can_switch_off
    if attached.can_switch_off:
        with torch.no_grad():
            for p in attached.trainable.values():
                p.add_(0.5)
        with attached.off():
            assert torch.equal(scores(model), expected)
        assert not torch.equal(scores(model), expected)


def test_it_learnt_and_only_what_may_change_has_changed(trained):
    kind, folder, made, before = trained
    assert made.losses[-1] < made.losses[0]
    base = dict(base_of(folder).named_parameters())
    now = {name.replace(".base_layer", ""): p for name, p in made.attached.model.named_parameters()}
    assert kind in FOUR_BITS or base.keys() <= now.keys()
    changed = {name for name, p in base.items() if name in now and now[name].dtype == p.dtype and not torch.equal(now[name], p)}
    assert changed <= set(made.attached.trainable)
    assert bool(changed) == (kind in WHOLE)
    assert (scores(made.attached.model) - before).abs().max() > 1e-3


def test_reloaded_it_says_the_same(trained):
    kind, folder, made, _ = trained
    assert is_adapter(folder / "adapter") == (kind not in WHOLE)
    expected = scores(made.attached.model)
    if kind in WHOLE:
        again = AutoModelForCausalLM.from_pretrained(folder / "adapter", dtype=torch.float32, attn_implementation="etude").eval()
        assert torch.equal(scores(again), expected)
        return
    again = reattach(base_of(folder), folder / "adapter")
    difference = (scores(again.model) - expected).abs().max()
    assert difference < 1e-5 if kind == "pissa" else difference == 0  # what is saved of a PiSSA is a LoRA of twice its rank
    assert {path.suffix for path in (folder / "adapter").iterdir()} <= {".safetensors", ".json"}, "no pickle"


@pytest.mark.parametrize("trained", sorted(set(catalog.ADAPTATIONS) - WHOLE - OURS - FOUR_BITS), indirect=True)
def test_it_loads_in_plain_peft(trained):
    _, folder, made, _ = trained
    plain = PeftModel.from_pretrained(base_of(folder, "eager"), folder / "adapter").eval()
    assert (as_scores(logits(plain)) - scores(made.attached.model)).abs().max() < 1e-4


@pytest.mark.parametrize("trained", sorted(set(catalog.ADAPTATIONS) - WHOLE - VIRTUAL - {"bottleneck"}), indirect=True)
def test_merged_it_is_a_plain_model_that_says_the_same(trained, tmp_path):
    _, folder, made, _ = trained
    expected = logits(made.attached.model)
    merged = reattach(base_of(folder), folder / "adapter").merged()
    assert (logits(merged) - expected).abs().max() < 1e-4
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32, attn_implementation="eager").eval()
    assert type(plain).__name__ == "LlamaForCausalLM"
    assert (logits(plain) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["bottleneck", *sorted(VIRTUAL)])
def test_what_cannot_be_merged_says_so(llama, kind):
    attached = made_of(kind).attach(tiny.copy_of(llama).requires_grad_(False), seed=0)
    with pytest.raises(ModelError, match="cannot be melted"):
        attached.merged()


def test_17_off_a_pissa_is_its_parent_though_it_begins_in_the_base(llama):
    """peft's own moves the principal directions out of the base: without its adapter the base is another model."""
    parent = tiny.copy_of(llama)
    model = tiny.copy_of(llama).requires_grad_(False)
    attached = Pissa(rank=4).attach(model, seed=0)
    first = next(m for m in model.modules() if type(m).__name__ == "PissaLinear")
    weight = first.base_layer.weight
    scale, (a, b) = first.scaling["default"], (first.lora_A["default"].weight, first.lora_B["default"].weight)
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    principal = (u[:, :4] * s[:4]) @ v[:4]
    assert (scale * (b @ a).double() - principal).norm() / principal.norm() < 1e-4, "it begins as the paper says"
    assert torch.equal(weight, parent.get_submodule("model.layers.0.self_attn.q_proj").weight), "and the base is untouched"
    assert torch.equal(logits(model), logits(parent))
    assert attached.can_switch_off


def test_pissa_moves_as_the_paper_does(llama):
    """W - s B₀A₀ + s B A with A and B trained by plain torch: the same logits and gradients."""
    model = tiny.copy_of(llama).requires_grad_(False)
    Pissa(rank=3, alpha=5, targets=["down_proj"]).attach(model, seed=0)
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x, towards = torch.randn(5, 48), torch.randn(5, 32)
    rest = layer.base_layer.weight.double() - 5 / 3 * (b.double() @ a.double()).detach()
    with torch.no_grad():
        a.add_(0.1 * torch.randn_like(a))
        b.add_(0.1 * torch.randn_like(b))
    wide = [p.detach().double().requires_grad_() for p in (a, b)]
    truth = x.double() @ (rest + 5 / 3 * wide[1] @ wide[0]).T
    expected = [truth.detach(), *torch.autograd.grad((truth * towards).sum(), wide)]
    y = layer(x)
    found = [y.detach(), *torch.autograd.grad((y * towards).sum(), (a, b))]
    for mine, wanted in zip(found, expected, strict=True):
        assert float((mine.double() - wanted).norm() / wanted.norm()) < 1e-5


def test_rank_stabilised_and_plain_differ_by_the_root_of_the_rank(llama):
    scales = [
        next(m.scaling["default"] for m in kind.attach(tiny.copy_of(llama), seed=0).model.modules() if isinstance(m, LoraLinear))
        for kind in (made_of("lora", rank=16, alpha=8), RankStabilisedLora(rank=16, alpha=8))
    ]
    assert scales == [0.5, 2.0]


def test_dora_says_in_bfloat16_what_it_cannot_do(llama):
    assert any("after rounding" in note for note in DoRA().attach(tiny.copy_of(llama).to(torch.bfloat16), seed=0).notes)
    assert not DoRA().attach(tiny.copy_of(llama), seed=0).notes


def test_lora_plus_has_a_rate_for_each_factor(tmp_path):
    """Adam's first step moves everything by its rate. A has no gradient while B is zero, so it moves in the second one."""
    made = tiny.course(tmp_path, LoraPlus(rank=4, ratio=8), NextToken(), steps=2, learning_rate=1e-3, schedule="constant", clip=None)
    born = {name: p.detach().clone() for name, p in made.attached.trainable.items()}
    fit(made.course)
    moved = {name: float((p.detach() - born[name]).abs().max()) for name, p in made.attached.trainable.items()}
    assert 8e-3 < max(v for name, v in moved.items() if "lora_B" in name) < 16.1e-3
    second = (1 - 0.9) / (1 - 0.9**2) / ((1 - 0.999) / (1 - 0.999**2)) ** 0.5  # of a gradient that was zero once
    assert max(v for name, v in moved.items() if "lora_A" in name) == pytest.approx(1e-3 * second, rel=1e-2)


def test_the_recipes_rates_come_on_top_and_must_fit(tmp_path):
    made = tiny.course(tmp_path, LoraPlus(rank=4, ratio=8), NextToken(), steps=1, learning_rate=1e-3, clip=None, rates={"*q_proj*": 0.5})
    born = {name: p.detach().clone() for name, p in made.attached.trainable.items()}
    fit(made.course)
    q, k = (
        max(float((p.detach() - born[n]).abs().max()) for n, p in made.attached.trainable.items() if f"{x}_proj.lora_B" in n) for x in "qk"
    )
    assert q == pytest.approx(k / 2, rel=1e-3)
    with pytest.raises(TrainingError, match=r"'\*lora_C\*' fits no parameter"):
        fit(tiny.course(tmp_path / "b", LoraPlus(), NextToken(), rates={"*lora_C*": 2.0}).course)


def test_bitfit_trains_the_biases_there_are_or_says_that_it_adds_them(llama):
    attached = BitFit().attach(tiny.copy_of(llama).requires_grad_(False), seed=0)
    assert attached.notes == ["this model has no biases: 14 linear layers were given one of zero each"]
    sizes = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    qwen = AutoModelForCausalLM.from_config(Qwen2Config(**sizes)).requires_grad_(False)
    attached = BitFit().attach(qwen, seed=0)
    assert {name.split(".")[-2] for name in attached.trainable} == {"q_proj", "k_proj", "v_proj"} and not attached.notes
    gpt = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4)).requires_grad_(False)
    attached = BitFit().attach(gpt, seed=0)
    assert {name.split(".")[-2] for name in attached.trainable} == {"ln_1", "ln_2", "ln_f"}
    assert "biases of other kinds of layers" in attached.notes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_biased_layer_against_its_formula(dtype):
    torch.manual_seed(0)
    layer = BiasedLinear.of(nn.Linear(24, 40, bias=False, dtype=dtype).requires_grad_(False))
    nn.init.normal_(layer.bias)
    x, towards = torch.randn(2, 7, 24, dtype=dtype, requires_grad=True), torch.randn(2, 7, 40, dtype=dtype)
    y = layer(x)
    found = [y.detach(), *torch.autograd.grad((y * towards).sum(), (x, layer.bias))]
    wide = [t.detach().double().requires_grad_() for t in (x, layer.bias)]
    truth = wide[0] @ layer.weight.double().T + wide[1]
    expected = [truth.detach(), *torch.autograd.grad((truth * towards.double()).sum(), wide)]
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32]
    for mine, wanted in zip(found, expected, strict=True):
        assert float((mine.double() - wanted).norm() / wanted.norm()) < (1e-6 if dtype == torch.float32 else 8e-3)


def test_11_a_small_bias_is_not_lost_in_bfloat16():
    """Added after the rounding, half an ulp moves nothing; inside it, on average it moves everything."""
    torch.manual_seed(0)
    layer = BiasedLinear.of(nn.Linear(64, 64, bias=False, dtype=torch.bfloat16).requires_grad_(False))
    x = 8 * torch.randn(4096, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        before = layer(x).double().mean()
        layer.bias.fill_(1e-3)
        assert float(layer(x).double().mean() - before) == pytest.approx(1e-3, rel=0.1)
        rounded = (layer.weight @ x.T).T
        lost = ((rounded + layer.bias.bfloat16()).double() - rounded.double()).mean()
    assert abs(float(lost) - 1e-3) > 2e-4


def test_vera_and_ia3_are_small(llama):
    counts = {
        kind.kind: kind.attach(tiny.copy_of(llama), seed=0).trainable_count for kind in (Vera(rank=8), IA3(), made_of("lora", rank=8))
    }
    assert counts["vera"] < counts["lora"] / 4 and counts["ia3"] < counts["lora"] / 4


def test_embeddings_move_only_their_rows(tmp_path):
    model = tiny.llama()
    before = model.get_input_embeddings().weight.detach().clone()
    made = tiny.course(tmp_path, Embeddings(tokens=[5, 9]), NextToken(), model=model, steps=4, learning_rate=1e-2)
    assert made.attached.trainable_count == 2 * before.shape[1]
    fit(made.course)
    after = made.attached.merged().get_input_embeddings().weight.detach()
    assert (after != before).any(1).nonzero()[:, 0].tolist() == [5, 9]
    with pytest.raises(ModelError, match="no token 61"):
        Embeddings(tokens=[61]).attach(tiny.llama(), seed=0)


def test_last_layers_and_parameters_choose(llama):
    names = set(LastLayers(layers=1).attach(tiny.copy_of(llama), seed=0).trainable)
    assert {name.split(".layers.")[-1].split(".")[0] for name in names} == {"1", "model"} and "model.norm.weight" in names
    assert "model.embed_tokens.weight" in LastLayers(layers=1, head=True).attach(tiny.copy_of(llama), seed=0).trainable
    gpt = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4))
    assert "transformer.ln_f.bias" in LastLayers(layers=1).attach(gpt, seed=0).trainable
    with pytest.raises(ModelError, match="the model has 2 blocks"):
        LastLayers(layers=3).attach(tiny.copy_of(llama), seed=0)
    assert all("q_proj" in name for name in Parameters(patterns=["*q_proj*"]).attach(tiny.copy_of(llama), seed=0).trainable)
    with pytest.raises(ModelError, match="no parameter"):
        Parameters(patterns=["*nothing*"]).attach(tiny.copy_of(llama), seed=0)


def test_bottlenecks_stand_where_their_style_says(llama):
    houlsby, pfeiffer = (Bottleneck(size=4, style=style).attach(tiny.copy_of(llama), seed=0).trainable for style in ("houlsby", "pfeiffer"))
    assert {name.split(".bottleneck")[0].rsplit(".", 1)[-1] for name in houlsby} == {"self_attn", "mlp"}
    assert {name.split(".bottleneck")[0].rsplit(".", 1)[-1] for name in pfeiffer} == {"mlp"}


def test_an_adapter_of_ours_for_another_model_is_refused(llama, tmp_path):
    BitFit().attach(tiny.copy_of(llama), seed=0).save(tmp_path)
    with pytest.raises(ModelError, match="does not fit"):
        reattach(tiny.llama(num_hidden_layers=1), tmp_path)
