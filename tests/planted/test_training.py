"""The silent failures of training, each planted: done wrong on purpose in plain code, seen to give a wrong number without a word, and
seen to be impossible, corrected or loud in etude. The number in a test's name is the class's in docs/trust.md.
"""

import alone
import pytest
import tiny
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from etude import catalog
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.lora_layer import LoraLinear
from etude.adaptation.reload import reattach
from etude.core.forest import Forest
from etude.data.rows import Cut
from etude.data.trees import forest_of
from etude.engine.loop import fit
from etude.errors import ModelError, RecipeError
from etude.model.policy import Policy
from etude.objective.next_token import NextToken
from etude.recipe.load import load

TOKENS = torch.randint(3, tiny.VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(7))


def words(count: int, seed: int) -> list[int]:
    return torch.randint(3, tiny.VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def step_of(model: PreTrainedModel, examples, cut: Cut) -> tuple[float, dict[str, Tensor]]:
    """etude's loss and gradients."""
    trainable = dict(model.requires_grad_(True).named_parameters())
    result, gradients = tiny.gradients_of_step(Policy(model, layout=cut.layout), trainable, NextToken(), examples, cut)
    return result.metrics["loss"], gradients


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def test_07_means_of_means(llama):
    """Each micro-batch divided by its own count: long rows weigh less, and the cut decides the loss."""
    examples = tiny.examples_of([tiny.sample(words(30, 0)), *(tiny.sample(words(3, seed)) for seed in range(1, 6))])
    truth = tiny.copy_of(llama, "eager")
    with torch.no_grad():
        right = float(alone.next_token(truth, examples))
        of_two = (float(alone.next_token(truth, examples[:3])) + float(alone.next_token(truth, examples[3:]))) / 2
        of_six = sum(float(alone.next_token(truth, [example])) for example in examples) / 6
    assert abs(of_two - right) > 0.02 and abs(of_six - of_two) > 0.02
    for cut in (Cut(4096), Cut(31), Cut(1), Cut(64, 16, "padded")):
        assert step_of(llama, examples, cut)[0] == pytest.approx(right, abs=1e-5)


def test_08_packed_samples_see_each_other(llama):
    """Two samples in one row under ordinary attention: the second answers to the first."""
    first, second = tiny.sample(words(12, 0)), tiny.sample(words(12, 1))
    plain = tiny.copy_of(llama, "sdpa")
    row = torch.tensor([*first.tokens, *second.tokens])
    with torch.no_grad():
        packed = torch.log_softmax(plain(input_ids=row[None], position_ids=torch.arange(24)[None]).logits[0], -1)[12:23]
        leaking = -float(packed.gather(1, row[13:, None]).mean())
        right = float(alone.next_token(plain, tiny.examples_of([second])))
        both = float(alone.next_token(plain, tiny.examples_of([first, second])))
    assert abs(leaking - right) > 0.02
    assert step_of(llama, tiny.examples_of([first, second]), Cut(4096))[0] == pytest.approx(both, abs=1e-5)


def test_08_a_child_loses_its_prompt(llama):
    """A forest under stock attention: jumps of position are read as the edges of documents, without a warning."""
    prompt = words(16, 0)
    samples = [tiny.sample([*prompt, *words(6, seed)], [0.0] * 16 + [1.0] * 6) for seed in (1, 2, 3)]
    forest, examples = forest_of(samples, range(3)), tiny.examples_of(samples)
    stock = tiny.copy_of(llama, "sdpa")
    expected = alone.gradients(alone.next_token(stock, examples), stock)
    scores = torch.log_softmax(stock(input_ids=forest.tokens[None], position_ids=forest.position[None]).logits[0, forest.source], -1)
    lost = alone.gradients(-scores.gather(1, forest.target[:, None]).mean(), stock)
    flat = lambda gradients: torch.cat([gradients[name].flatten() for name in expected])
    assert F.cosine_similarity(flat(lost), flat(expected), 0) < 0.95
    with pytest.raises(ValueError, match="silently wrong"):
        Policy(stock)(forest)
    assert F.cosine_similarity(flat(step_of(llama, examples, Cut(4096))[1]), flat(expected), 0) > 1 - 1e-6


def within_nodes(forest: Forest) -> Tensor:
    """[N] predictions whose source lies in the same run of tokens as their target: what a tree without branch tokens trains."""
    node = torch.repeat_interleave(torch.arange(len(forest.nodes)), torch.tensor([n.stop - n.start for n in forest.nodes]))
    follows = (forest.source + 1).clamp(max=len(node) - 1)
    return (node[forest.source] == node[follows]) & (forest.tokens[follows] == forest.target)


def test_09_the_first_token_of_an_answer_behind_a_shared_prompt(llama):
    """It is predicted by the prompt's last token, which has several next ones; a tree that asks each token for one loses it."""
    samples = [tiny.sample([3, 4, 5, first, 9], [0, 0, 0, 1, 0]) for first in (10, 11, 12)]
    forest, examples = forest_of(samples, range(3)), tiny.examples_of(samples)
    assert not within_nodes(forest).any(), "all that there is to learn here would be left out"
    assert forest.source.unique().tolist() == [2] and sorted(forest.target.tolist()) == [10, 11, 12]
    truth = tiny.copy_of(llama, "eager")
    expected = alone.next_token(truth, examples)
    loss, gradients = step_of(llama, examples, Cut(4096, 1))
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(gradients, alone.gradients(expected, truth)) < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_10_left_padding_without_positions():
    """A model of absolute positions reads a left-padded row as if it began late; taken as the reference, it condemns what is right."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="etude").eval()
    short, long = tiny.sample(words(6, 0)), tiny.sample(words(30, 1))
    plain = tiny.copy_of(model, "eager")
    rows = torch.tensor([[0] * 24 + short.tokens.tolist(), long.tokens.tolist()])
    seen = torch.tensor([[0] * 24 + [1] * 6, [1] * 30])
    with torch.no_grad():
        scores = torch.log_softmax(plain(input_ids=rows, attention_mask=seen).logits[0, 24:29], -1)
        padded = -float(scores.gather(1, rows[0, 25:, None]).mean())
        right = float(alone.next_token(plain, tiny.examples_of([short])))
        both = float(alone.next_token(plain, tiny.examples_of([short, long])))
    assert abs(padded - right) > 0.1
    for cut in (Cut(4096), Cut(4096, 16, "padded")):
        assert step_of(model, tiny.examples_of([short, long]), cut)[0] == pytest.approx(both, abs=1e-5)


def test_11_a_delta_added_after_rounding():
    """Half a last place is larger than it: the sum gives the same number back. How much of the delta arrives, by least squares."""
    torch.manual_seed(0)
    base = nn.Linear(512, 512, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    layer = LoraLinear(base, "default", config=LoraConfig(r=8), r=8, lora_alpha=8)
    a, b = (layer.float().lora_A["default"].weight, layer.lora_B["default"].weight)
    base.bfloat16()
    nn.init.normal_(b, std=3e-4)
    x = torch.randn(256, 512, dtype=torch.bfloat16)
    with torch.no_grad():
        alone_ = base(x)
        delta = x.float() @ a.T @ b.T
        after = alone_ + delta.bfloat16()
        together = layer(x)
        exact = x.float() @ base.weight.float().T

    def arrived(y: Tensor) -> float:
        return float(((y.float() - exact) * delta).sum() / delta.square().sum())

    assert (after == alone_).float().mean() > 0.6, "most outputs are what they were"
    assert arrived(alone_) == pytest.approx(0.0, abs=0.1)
    assert arrived(after) < 0.6
    assert arrived(together) == pytest.approx(1.0, abs=0.1)


def test_12_updates_swallowed_by_narrow_weights_and_sums(llama):
    """One AdamW step at 1e-5 on weights held in bfloat16, and small gradients summed in bfloat16."""
    torch.manual_seed(0)
    narrow = nn.Parameter((0.05 * torch.randn(10_000)).bfloat16())
    before, narrow.grad = narrow.detach().clone(), torch.randn(10_000).bfloat16()
    torch.optim.AdamW([narrow], lr=1e-5, weight_decay=0.0).step()
    assert (narrow != before).float().mean() < 0.3
    total = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(1000):
        total += torch.tensor(0.01, dtype=torch.bfloat16)
    assert total < 5, "of 10: it no longer grows"
    for adaptation in (Full(), Lora(rank=4)):
        model = tiny.copy_of(llama).to(torch.bfloat16).requires_grad_(False)
        attached = adaptation.attach(model, seed=0)
        examples = tiny.some_examples(NextToken(), 8)
        policy = Policy(model, compute=torch.bfloat16)
        _, gradients = tiny.gradients_of_step(policy, attached.trainable, NextToken(), examples, Cut(60, 4))
        assert {p.dtype for p in attached.trainable.values()} == {g.dtype for g in gradients.values()} == {torch.float32}


def test_13_a_misspelt_key(tmp_path):
    """Elsewhere it is accepted and does nothing. That every key is read is `test_13_every_key_is_read` in test_catalog.py."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("base: owner/model\nstages:\n  only:\n    data: {sources: rows.jsonl}\n    train: {learnign_rate: 1e-4}\n")
    with pytest.raises(RecipeError) as caught:
        load(recipe, tables=catalog.TABLES)
    (problem,) = caught.value.problems
    assert "r.yaml:5" in problem and "learnign_rate" in problem and "did you mean `learning_rate`" in problem.replace("'", "`")


def test_14_a_resume_that_forgets(tmp_path):
    """Weights alone carried over: the optimizer is new, the schedule and the data begin again, and the curve looks healthy."""

    def course(folder, **options):
        return tiny.course(tmp_path / folder, Lora(rank=4, dropout=0.1), NextToken(), steps=8, checkpoint_every=4, **options)

    whole = course("whole")
    fit(whole.course)
    truth = whole.attached.trainable

    def stop_at_four(moment):
        if moment.step == 4 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt

    stopped: list[bool] = []
    half = course("half")
    object.__setattr__(half.course, "hooks", [*half.course.hooks, (stop_at_four, 1)])
    with pytest.raises(KeyboardInterrupt):
        fit(half.course)

    forgetful = course("forgetful")
    with torch.no_grad():
        for name, p in forgetful.attached.trainable.items():
            p.copy_(half.attached.trainable[name])
    object.__setattr__(forgetful.course, "steps", 4)
    fit(forgetful.course)
    far = max(float((p - truth[name]).detach().norm() / truth[name].norm().detach()) for name, p in forgetful.attached.trainable.items())
    assert far > 0.05 and len(forgetful.losses) == 4, "another model, and nothing to see"

    resumed = course("half")
    fit(resumed.course)
    assert all(torch.equal(p, truth[name]) for name, p in resumed.attached.trainable.items())


def test_15_the_same_seed_gives_another_model(tmp_path):
    """Masks drawn from whatever state the process is in; and a number of threads that moves the last bits, which is said."""
    masks = []
    for drawn in (0, 1):
        torch.manual_seed(0)
        torch.rand(drawn)  # a progress bar, a worker, another library
        masks.append(F.dropout(torch.ones(100), 0.5))
    assert not torch.equal(*masks)
    losses = []
    for drawn in (0, 1):
        made = tiny.course(tmp_path / str(drawn), Lora(rank=4, dropout=0.5), NextToken(), steps=3)
        torch.rand(drawn)
        fit(made.course)
        losses.append(made.losses)
    assert losses[0] == losses[1]
    torch.set_num_threads(2)
    again = tiny.course(tmp_path / "0", Lora(rank=4, dropout=0.5), NextToken(), steps=4)
    fit(again.course)
    assert any("threads: 1, here threads: 2" in line for line in again.said)


@pytest.mark.filterwarnings("ignore")
def test_16_an_adapter_that_is_not_zero_at_birth(llama):
    """A reference that is not the parent from the first step on; a recipe cannot ask for it."""
    foreign = get_peft_model(tiny.copy_of(llama), LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj"]))
    assert (logits(foreign) - logits(llama)).abs().max() > 0.01
    model = tiny.copy_of(llama).requires_grad_(False)
    Lora(rank=4).attach(model, seed=0)
    assert torch.equal(logits(model), logits(llama))
    assert not {name for name in Lora.model_fields if "init" in name}


@pytest.mark.filterwarnings("ignore")
def test_16_an_adapter_that_was_saved_inert(llama, tmp_path):
    """Names that fit nothing: plain peft warns, loads nothing and answers as the base does."""
    attached = Lora(rank=4).attach(tiny.copy_of(llama).requires_grad_(False), seed=0)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.1)
    attached.save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("base_model.model.", "base_model."): tensor for name, tensor in load_file(file).items()}, file)
    inert = PeftModel.from_pretrained(tiny.copy_of(llama, "eager"), tmp_path)
    assert (logits(inert) - logits(tiny.copy_of(llama, "eager"))).abs().max() < 1e-6
    assert (logits(attached.model) - logits(llama)).abs().max() > 0.1
    with pytest.raises(ModelError, match="does not fit"):
        reattach(tiny.copy_of(llama), tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_20_tied_embeddings_untied(llama, tmp_path):
    """A head that became a copy on the way: each half of the weight learns by itself. And a tied one that is merged alone."""
    examples = tiny.some_examples(NextToken(), 4)
    truth, untied = tiny.copy_of(llama, "eager"), tiny.copy_of(llama, "eager")
    expected = alone.gradients(alone.next_token(truth, examples), truth)["model.embed_tokens.weight"]
    untied.lm_head.weight = nn.Parameter(untied.lm_head.weight.detach().clone())
    halves = alone.gradients(alone.next_token(untied, examples), untied)
    assert torch.equal(logits(untied), logits(truth)), "nothing to see"
    assert float((halves["model.embed_tokens.weight"] - expected).norm() / expected.norm()) > 0.1
    _, gradients = step_of(tiny.copy_of(llama), examples, Cut(4096))
    assert "lm_head.weight" not in gradients
    assert float((gradients["model.embed_tokens.weight"] - expected).norm() / expected.norm()) < 1e-4, "both uses move the one weight"
    made = tiny.course(tmp_path / "run", Full(), NextToken(), steps=3)
    fit(made.course)
    made.attached.save(tmp_path / "tied")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "tied", attn_implementation="etude")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(logits(again), logits(made.attached.model))

    foreign = get_peft_model(tiny.copy_of(llama), LoraConfig(r=4, init_lora_weights=False, target_modules=["lm_head"]))
    expected = logits(foreign)
    assert (logits(foreign.merge_and_unload()) - expected).abs().max() > 0.1, "the delta went into the embedding too"
    with pytest.raises(ModelError, match="its weight is also another layer's"):
        Lora(targets=["lm_head"]).attach(tiny.copy_of(llama).requires_grad_(False), seed=0)
