"""Full tuning: float32 masters, tied weights that stay tied, files that plain transformers reads."""

import pytest
import tiny
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from etude.adaptation.full import Full
from etude.engine.loop import fit
from etude.objective.next_token import NextToken

TOKENS = torch.randint(3, tiny.VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(7))


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    model = tiny.llama(tie_word_embeddings=request.param)
    made = tiny.course(folder / "run", Full(), NextToken(), model=model, steps=8, learning_rate=3e-3)
    fit(made.course)
    (folder / "model").mkdir()
    made.attached.save(folder / "model")
    return request.param, folder / "model", made


def test_it_learnt_and_plain_transformers_reads_it(trained):
    _, folder, made = trained
    assert made.losses[-1] < made.losses[0] - 0.2
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert plain.config._attn_implementation != "etude", "what is saved asks for nothing of ours"
    assert (logits(plain) - logits(made.attached.model)).abs().max() < 1e-4
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_tied_embeddings_stay_tied_through_training_and_saving(trained):
    tied, folder, made = trained
    for model in (made.attached.model, AutoModelForCausalLM.from_pretrained(folder)):
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert (embedding is head) == tied
        assert torch.equal(embedding, head) == tied
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert ("lm_head.weight" in file.keys()) != tied, "a tied head is stored once"  # noqa: SIM118
    assert ("lm_head.weight" in made.attached.trainable) != tied, "and moved once"


def test_what_is_trained_is_held_in_float32():
    attached = Full().attach(tiny.llama().to(torch.bfloat16), seed=0)
    assert {p.dtype for p in attached.trainable.values()} == {torch.float32}
    assert Full().holds_masters and not attached.can_switch_off
    with pytest.raises(NotImplementedError), attached.off():
        pass
