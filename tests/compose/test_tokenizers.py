"""Tokenizers from files, and bases extended: sources, notes, determinism, what plain transformers and a recipe make of the result."""

import gzip
import json
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_project
import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer

import etude
from etude.catalog import TABLES
from etude.compose.voice import Voice
from etude.data.shards import Shards
from etude.errors import DataError, EtudeError, ModelError, RecipeError
from etude.model.tokenizer import load_tokenizer
from etude.model.vocabulary.bpe import BytePairs
from etude.model.vocabulary.measure import written

LIBRARY = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
SOURCES = [path.read_text(encoding="utf-8") for path in LIBRARY]
LEARNT, HELD_OUT = SOURCES[::2], SOURCES[1::2]


class Listening(Voice):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def rows(path, texts, column="text"):
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return rows(tmp_path_factory.mktemp("code") / "code.jsonl", LEARNT)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_project.make_base(tmp_path_factory.mktemp("bases") / "little")


def test_every_kind_of_file_gives_the_same_tokenizer(tmp_path):
    texts = LEARNT[:4]
    rows(tmp_path / "plain.jsonl", texts)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress((tmp_path / "plain.jsonl").read_bytes()))
    pq.write_table(pa.table({"body": texts}), tmp_path / "table.parquet")
    (tmp_path / "folder").mkdir()
    for i, text in enumerate(texts):
        (tmp_path / "folder" / f"{i}.txt").write_text(text)
    rows(tmp_path / "half-1.jsonl", texts[:2])
    rows(tmp_path / "half-2.jsonl", texts[2:])
    two = "{one: {data: {sources: plain.jsonl, held_out: 0}}, two: {parent: one, data: {sources: plain.jsonl, held_out: 0}}}"
    (tmp_path / "recipe.yaml").write_text(f"base: {tmp_path}/none\nstages: {two}\n")
    given = {
        "plain": (["plain.jsonl"], None),
        "packed": (["packed.jsonl.gz"], None),
        "table": (["table.parquet"], {"body": "text"}),
        "folder": (["folder"], None),
        "glob": (["half-*.jsonl"], None),
        "two": (["half-1.jsonl", "half-2.jsonl"], None),
        "recipe": (["recipe.yaml"], None),
    }
    found = {}
    for name, (paths, columns) in given.items():
        made = etude.tokenizer_train(
            [tmp_path / path for path in paths], to=tmp_path / "made" / name, options={"size": 700}, columns=columns
        )
        assert made.size == 700 == len(AutoTokenizer.from_pretrained(made.folder)) and made.sample.changed == 0
        found[name] = (made.folder / "tokenizer.json").read_bytes()
    assert len(set(found.values())) == 1


def test_a_recipes_held_out_rows_are_not_learnt_from(tmp_path, base):
    from etude.data.prepare import prepare

    some = [f"a text about number {i} and {chr(0x4E00 + i)}" for i in range(40)]  # each with a letter of its own
    rows(tmp_path / "some.jsonl", some)
    one, two = "{sources: some.jsonl, held_out: 10}", "{sources: some.jsonl, held_out: 0.1}"
    stages = f"{{one: {{data: {one}, train: {{seed: 3}}}}, two: {{parent: one, data: {two}}}}}"
    (tmp_path / "recipe.yaml").write_text(f"base: {base}\nstages: {stages}\n")
    made = etude.tokenizer_train([tmp_path / "recipe.yaml"], to=tmp_path / "made", kind="characters", options=["unknown=mark"])
    held = set()
    for stage in etude.read_recipe(tmp_path / "recipe.yaml").recipe.stages.values():
        stops = frozenset({load_tokenizer(base).eos_token_id})
        ready = prepare(stage.data, load_tokenizer(base), roles=(), stop_ids=stops, seed=stage.train.seed)
        held |= {one.row for one in ready.held_out}
    assert 10 < len(held) <= 14
    known = made.tokenizer.get_vocab()
    assert {i + 1 for i in range(40) if chr(0x4E00 + i) not in known} == held
    assert f"  {len(held)} left out as held out" in made.lines


def test_a_lone_texts_held_out_stretches_are_not_learnt_from(tmp_path, base):
    (tmp_path / "story.txt").write_text("".join(f"Line {i} of a long story about cats.\n{chr(0x4E00 + i)}\n" for i in range(400)))
    (tmp_path / "recipe.yaml").write_text(f"base: {base}\nstages: {{one: {{data: {{sources: story.txt, held_out: 0.5}}}}}}\n")
    made = etude.tokenizer_train([tmp_path / "recipe.yaml"], to=tmp_path / "made", kind="characters", options=["unknown=mark"])
    seen = [i for i in range(400) if chr(0x4E00 + i) in made.tokenizer.get_vocab()]
    assert 100 < len(seen) < 250 and any("left out as held out" in line for line in made.lines)


def test_a_corpus_recipe_stands_for_its_documents(tmp_path):
    some = [f"a text about number {i} and {chr(0x4E00 + i)}\u200b" for i in range(60)]
    rows(tmp_path / "some.jsonl", [*some, "short 鱻"])
    recipe = {"name": "made", "sources": "some.jsonl", "tokenizer": "./made", "held_out": 0.2, "deduplicate": {"near": None}}
    recipe["rules"] = ["normalise", {"kind": "length", "least_words": 4}]
    (tmp_path / "corpus.yaml").write_text(json.dumps(recipe))
    made = etude.tokenizer_train([tmp_path / "corpus.yaml"], to=tmp_path / "made", kind="characters", options=["unknown=mark"])
    known = made.tokenizer.get_vocab()
    assert "鱻" not in known and "\u200b" not in known
    prepared = etude.corpus_prepare(tmp_path / "corpus.yaml", to=tmp_path / "c", project=tmp_path)
    shards = Shards.open(prepared.folder)
    written = {made.tokenizer.decode(tokens[:-1])[-1] for tokens in shards}
    assert 40 < len(shards) < 60 and "<|endoftext|>" in known
    assert written == {chr(0x4E00 + i) for i in range(60) if chr(0x4E00 + i) in known}, "just what is trained on"


@pytest.mark.parametrize("kind", TABLES["tokenizer"])
def test_every_kind_is_saved_with_a_note_of_what_it_is_from(kind, code, tmp_path):
    made = etude.tokenizer_train([code], to=tmp_path / "made", kind=kind)
    note = json.loads((tmp_path / "made" / "made_from.json").read_text())
    assert note["kind"] == kind and note["read"] == [{"path": str(code), "rows": len(LEARNT)}]
    assert note["bytes"] == sum(len(text.encode()) for text in LEARNT)
    assert note["bytes_per_token"] == pytest.approx(made.sample.bytes_per_token) and note["end"] == "<|endoftext|>"
    assert AutoTokenizer.from_pretrained(tmp_path / "made").get_vocab() == made.tokenizer.get_vocab()
    if kind == "alphabet":
        assert made.sample.unknown and any("become <unk>" in line for line in made.lines)


def test_rows_that_say_nothing_are_counted(tmp_path):
    (tmp_path / "some.jsonl").write_text('{"text": "aaa bbb"}\n{"text": ""}\nnot json\n{"text": "ccc"}\n')
    voice = Listening()
    made = etude.tokenizer_train([tmp_path / "some.jsonl"], to=tmp_path / "made", kind="characters", voice=voice)
    assert made.lines == tuple(voice.lines)
    (unreadable,) = [line for line in made.lines if "unreadable rows" in line]
    assert "1 left out" in unreadable and f"{tmp_path / 'some.jsonl'}:3" in unreadable
    assert f"{tmp_path / 'some.jsonl'}: 4 rows read, 2 kept" in made.lines


def test_conversations_and_pairs_are_read_for_their_words(tmp_path):
    turns = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "def"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "ghi", "chosen": "jkl", "rejected": "mno"}) + "\n")
    files = [tmp_path / "chat.jsonl", tmp_path / "pairs.jsonl"]
    made = etude.tokenizer_train(files, to=tmp_path / "made", kind="characters", options=["unknown=mark"])
    assert set(made.tokenizer.get_vocab()) == {*"abcdefghijklmno", "<unk>", "<|endoftext|>", "<|padding|>"}


def test_what_is_refused_names_what_and_where(code, base, tmp_path):
    for refused, match, given in [
        (DataError, "no such file or folder", {"paths": [tmp_path / "none.jsonl"]}),
        (RecipeError, "sice: unknown key; did you mean `size`", {"options": ["sice=3"]}),
        (RecipeError, "size", {"options": ["size=100"]}),
        (RecipeError, "unknown tokenizer 'bytez'; one of: bpe, bytes, characters, alphabet; did you mean `bytes`", {"kind": "bytez"}),
        (DataError, r"code.jsonl:1: '.' is no letter of this alphabet", {"kind": "alphabet", "options": ["foreign=refuse"]}),
        (EtudeError, "exists already", {"to": code}),
        (DataError, "no text to learn", {"paths": []}),
    ]:
        with pytest.raises(refused, match=match):
            etude.tokenizer_train(**{"paths": [code], "to": tmp_path / "made", **given})
    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(gzip.compress(code.read_bytes())[:5000])
    with pytest.raises(DataError, match=r"damaged.jsonl.gz: the file is damaged"):
        etude.tokenizer_train([damaged], to=tmp_path / "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.jsonl.gz"], "nothing half done is left"
    etude.tokenizer_train([code], to=tmp_path / "letters", kind="characters")
    with pytest.raises(ModelError, match="no byte-level merges"):
        etude.tokenizer_extend(tmp_path / "letters", [code], to=tmp_path / "more")
    with pytest.raises(ModelError, match="there is no model"):
        etude.tokenizer_extend("no-such-base", [code], to=tmp_path / "more", project=tmp_path)
    with pytest.raises(EtudeError, match="0 tokens cannot be added"):
        etude.tokenizer_extend(base, [code], to=tmp_path / "more", add=0)


def test_a_tokenizer_alone_is_extended(code, tmp_path):
    prose = rows(tmp_path / "prose.jsonl", ["a hedgehog and another hedgehog\n"] * 40)
    etude.tokenizer_train([prose], to=tmp_path / "own", options=["size=300"])
    made = etude.tokenizer_extend(tmp_path / "own", [code], to=tmp_path / "more", add=100)
    assert len(made.added) == 100 and sorted(path.name for path in made.folder.iterdir()) == [
        "made_from.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    note = json.loads((made.folder / "made_from.json").read_text())
    assert note["base"] == str(tmp_path / "own") and note["new_tokens"] == [made.added.start, made.added.stop]
    again = etude.tokenizer_extend(tmp_path / "own", [code], to=tmp_path / "again", add=100)
    assert (again.folder / "tokenizer.json").read_bytes() == (made.folder / "tokenizer.json").read_bytes()


def test_a_base_writes_code_in_fewer_tokens_and_old_text_as_before(base, code, tmp_path):
    made = etude.tokenizer_extend(base, [code], to=tmp_path / "more", add=200, project=tmp_path)
    old, new = load_tokenizer(base), load_tokenizer(made.folder)
    before, after = written(old, HELD_OUT), written(new, HELD_OUT)
    assert after.bytes_per_token > 1.3 * before.bytes_per_token, "on text that it did not learn from"
    assert after.changed == 0 and made.after.bytes_per_token > made.before.bytes_per_token
    question = [{"role": "user", "content": "What colour?"}]
    assert new.apply_chat_template(question, tokenize=False) == old.apply_chat_template(question, tokenize=False)
    assert (new.eos_token_id, new.bos_token_id) == (old.eos_token_id, old.bos_token_id)
    was, is_ = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (base, made.folder))
    text = torch.tensor([[5, 60, 300, 7, 9]])
    with torch.no_grad():
        torch.testing.assert_close(is_(text).logits[..., : len(old)], was(text).logits, rtol=0, atol=0)
    assert is_.config.etude_new_tokens == [len(old), len(old) + 200]


def test_the_new_rows_are_learnt_by_a_recipe(base, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = etude.tokenizer_extend(base, [code], to=tmp_path / "more", add=50, project=tmp_path)
    stage = small_project.stage(rows(tmp_path / "held.jsonl", [text[:400] for text in HELD_OUT]), adapt={"kind": "embeddings"}, held_out=4)
    etude.run(str(small_project.recipe(tmp_path / "learn.yaml", made.folder, {"learn": stage}, evaluate=None)), project=tmp_path)
    config = json.loads((etude.show("learn", project=tmp_path).folder / "adapter_config.json").read_text())
    assert config["token_indices"] == list(made.added)
    further = etude.tokenizer_extend("learn", [code], to=tmp_path / "further", add=10, project=tmp_path)
    moved = AutoModelForCausalLM.from_pretrained(further.folder).get_input_embeddings().weight
    begun = AutoModelForCausalLM.from_pretrained(made.folder).get_input_embeddings().weight
    first = made.added.start
    assert torch.equal(moved[:first], begun[:first])
    assert not torch.equal(moved[first : first + 50], begun[first:]), "the adapter is melted in"


def test_what_a_tokenizer_does_is_shown(base, tmp_path):
    made = etude.tokenizer_train([], to=tmp_path / "bytes", kind="bytes", options={"chat_template": "chatml"})
    seen = etude.tokenizer_show(made.folder, "aß🙂")
    assert seen.to_dict()["pieces"] == [
        {"text": "a", "ids": [97]}, {"text": "ß", "ids": list("ß".encode())}, {"text": "🙂", "ids": list("🙂".encode())},
    ]  # fmt: skip
    assert (seen.to_dict()["bytes_per_token"], seen.to_dict()["comes_back"]) == (1.0, True)
    assert {mark["text"]: mark["for"] for mark in seen.to_dict()["marks"]}["<|endoftext|>"] == "end"
    assert "<|im_end|>" in seen.to_dict()["conversation"] and "chat template" in seen.to_dict()["stop"]
    assert etude.tokenizer_show(base, project=tmp_path).to_dict()["comes_back"]


def test_unknown_characters_are_counted_when_data_are_prepared(tmp_path):
    from etude.data.prepare import prepare
    from etude.recipe.data import Data

    text = ["ACGT" * 5, "ACxT" * 5, "GGAC" * 5]
    made = etude.tokenizer_train([rows(tmp_path / "dna.jsonl", text)], to=tmp_path / "made", kind="alphabet")
    data = Data.model_validate({"sources": [{"path": str(tmp_path / "dna.jsonl")}], "held_out": 0})
    counts = prepare(data, made.tokenizer, roles=(), stop_ids=frozenset({made.tokenizer.eos_token_id}), seed=0).counts
    assert counts.total("unknown") == 5
    assert "  5 tokens stand for characters that the tokenizer does not have" in counts.lines()


def test_a_damaged_reading_back_would_be_seen(base, code, tmp_path, monkeypatch):
    """A family whose tokenizer is built anew from its parts, and loses the new ones."""
    from etude.compose import extending

    monkeypatch.setattr(extending, "load_tokenizer", lambda folder: load_tokenizer(base))
    with pytest.raises(ModelError, match="otherwise than it was saved"):
        etude.tokenizer_extend(base, [code], to=tmp_path / "more", add=5, project=tmp_path)
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("family", ["GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "CohereTokenizer", "LlamaTokenizer"])
def test_families_that_build_their_tokenizer_anew(family, code, tmp_path):
    """Their classes make it from vocabulary and merges, with marks of their own that the vocabulary may not hold."""
    plain = BytePairs(size=420).learn(iter(LEARNT[:4])).backend_tokenizer
    model = json.loads(plain.to_str())["model"]
    made = getattr(transformers, family)(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    made.save_pretrained(tmp_path / "base")
    if family == "LlamaTokenizer":
        with pytest.raises(ModelError, match="characters with bytes to fall back on"):
            etude.tokenizer_extend(tmp_path / "base", [code], to=tmp_path / "more")
        return
    more = etude.tokenizer_extend(tmp_path / "base", [code], to=tmp_path / "more", add=20)
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "base", more.folder))
    assert type(new).__name__ == family and more.added == range(len(old), len(old) + 20)
    assert all(new.get_vocab()[name] == i for name, i in old.get_vocab().items())
    assert more.after.changed == 0 and more.after.bytes_per_token > 1.05 * more.before.bytes_per_token


def test_unigram_bases_say_what_can_be_extended(tmp_path):
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram([("a", -1.0), ("<unk>", -2.0)], 1, False))
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(tmp_path / "uni")
    with pytest.raises(ModelError, match=r"unigram model \(SentencePiece\).*\n.*GPT-2, Llama 3, Qwen, SmolLM"):
        etude.tokenizer_extend(tmp_path / "uni", [], to=tmp_path / "more")
