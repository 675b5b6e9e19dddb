"""Silent failures of data preparation (numbers of docs/trust.md), planted in text for pre-training: refused, corrected or reported."""

import gzip
import io
import json

import numpy as np
import pytest
from chat_tokenizers import chat_tokenizer
from tokenizers import processors

import etude
from etude.data.shards import Shards
from etude.errors import DataError

TEXT = "The quick brown fox jumps over the lazy dog, and number {} of the dogs tells another story about foxes number {}."


def prepared(folder, rows, tokenizer=None, **keys):
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    (tokenizer or chat_tokenizer(None, eos="</s>")).save_pretrained(folder / "tokenizer")
    recipe = {"name": "made", "sources": "rows.jsonl", "tokenizer": "./tokenizer", "held_out": 0, "deduplicate": {"near": None}, **keys}
    (folder / "corpus.yaml").write_text(json.dumps(recipe))
    made = etude.corpus_prepare(folder / "corpus.yaml", to=folder / "c", project=folder)
    return Shards.open(made.folder), made.manifest


def test_6_one_beginning_and_one_end_though_the_tokenizer_adds_both(tmp_path):
    rows = [TEXT.format(i, i * i) for i in range(5)]
    both = chat_tokenizer(None, eos="</s>")
    marks = [("<s>", both.bos_token_id), ("</s>", both.eos_token_id)]
    both.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    for name, tokenizer, begins in (("both", both, 1), ("one", chat_tokenizer(None, "</s>", adds_beginning=True), 1), ("plain", None, 0)):
        shards, _ = prepared(tmp_path / name, rows, tokenizer)
        for tokens in shards:
            assert (tokens == both.bos_token_id).sum() == begins and (tokens[:begins] == both.bos_token_id).all()
            assert (tokens == both.eos_token_id).sum() == 1 and tokens[-1] == both.eos_token_id


def test_6_a_text_that_spells_a_mark_forges_no_end(tmp_path):
    rows = [TEXT.format(1, 2), f"first half</s>{TEXT.format(3, 4)}<|im_end|>"]
    tokenizer = chat_tokenizer(None, eos="</s>")
    assert tokenizer(rows[1])["input_ids"].count(tokenizer.eos_token_id) == 1, "the failure itself: text becomes the token"
    shards, manifest = prepared(tmp_path, rows, tokenizer)
    assert all((tokens == tokenizer.eos_token_id).sum() == 1 for tokens in shards)
    assert tokenizer.decode(shards[1][:-1]) == rows[1], "nothing is lost either"
    assert manifest["sources"][0]["spelling_marks"] == 1


def test_2_blank_documents_are_counted(tmp_path):
    shards, manifest = prepared(tmp_path, ["  ", "", TEXT.format(1, 2), "\u200b\u200b"], rules=["normalise"])
    (source,) = manifest["sources"]
    assert len(shards) == 1 and source["bad"] == {"blank rows": 2} and source["rules"][0]["rejected"] == {"nothing left": 1}


def test_22_no_document_is_on_both_sides(tmp_path):
    pytest.importorskip("rensa")
    rows = [TEXT.format(i, i * 7) + " " + " ".join(f"w{i}x{k}" for k in range(60)) for i in range(120)]
    rows += [text.replace("quick", "slow", 1) for text in rows] + rows
    shards, manifest = prepared(tmp_path, rows, held_out=0.3, deduplicate={})
    tokenizer = chat_tokenizer(None, eos="</s>")
    says = lambda split: {tokenizer.decode(tokens[:-1]).replace("slow", "quick") for tokens in shards.documents(split)}
    assert len(says("held_out")) > 15 and not says("train") & says("held_out"), "not even nearly"
    (source,) = manifest["sources"]
    assert source["exact_duplicates"] == 120 and source["near_duplicates"] == 120 and len(shards) + len(shards.documents("held_out")) == 120


def test_22_benchmarks_are_not_in_the_training_text(tmp_path):
    words = [f"term{i}" for i in range(400)]
    draw = np.random.default_rng(0)
    questions = [" ".join(draw.choice(words, n)) for n in [20] * 20 + [9] * 20 + [5] * 20]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in questions))
    clean = [TEXT.format(i, i + 1) for i in range(50)]
    planted = [f"{TEXT.format(i, 900)} {text.upper()}! {TEXT.format(i, 901)}" for i, text in enumerate(questions)]
    shards, manifest = prepared(tmp_path, [*clean, *planted], benchmarks=["questions.jsonl"])
    assert len(shards) == 50
    (found,) = manifest["sources"][0]["questions"].values()
    assert found == 60 and list(manifest["questions"].values()) == [60]
    with gzip.open(tmp_path / "c" / "rejected.jsonl.gz", "rt") as file:
        reasons = [json.loads(line)["reason"] for line in file]
    assert sorted(int(reason.split()[0]) for reason in reasons) == [5] * 20 + [8] * 20 + [13] * 20
    assert reasons[3].endswith("questions.jsonl:4"), "each tells which question"


def test_22_questions_too_short_to_be_looked_for_are_told(tmp_path):
    from rich.console import Console

    from etude.cli.show_corpus import pedigree

    for i, texts in enumerate((["what is the name of the river that runs through it", "who was it"], ["is it so", "and where is it"])):
        (tmp_path / f"questions-{i}.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    rows = [*(TEXT.format(i, i) for i in range(9)), "So: what is the name of the river that runs through it? Nobody knew.", "is it so"]
    _, manifest = prepared(tmp_path, rows, benchmarks=["questions-*.jsonl"])
    assert list(manifest["questions"].values()) == [2] and list(manifest["questions_too_short"].values()) == [2]
    with gzip.open(tmp_path / "c" / "rejected.jsonl.gz", "rt") as file:
        (reason,) = [json.loads(line)["reason"] for line in file]
    assert reason.endswith("questions-0.jsonl:1"), "the file, not the pattern"
    console = Console(width=300, file=io.StringIO())
    console.print(pedigree(tmp_path / "c", manifest, 0))
    assert "free of 2 questions of" in (shown := console.file.getvalue()) and "2 questions more too short" in shown


def test_14_text_that_changed_is_another_corpus(tmp_path):
    rows = [TEXT.format(i, i) for i in range(10)]
    _, first = prepared(tmp_path, rows)
    with pytest.raises(DataError, match="holds another corpus"):
        prepared(tmp_path, [*rows[:-1], "changed"])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    again = etude.corpus_prepare(tmp_path / "corpus.yaml", to=tmp_path / "c", project=tmp_path)
    assert again.reused and again.manifest["identity"] == first["identity"]


def test_14_the_same_bytes_read_otherwise_are_another_corpus(tmp_path):
    row = json.dumps({"text": TEXT.format(1, 2)}) + "\n"
    found = []
    for name in ("rows.jsonl", "rows.txt"):
        folder = tmp_path / name
        folder.mkdir()
        chat_tokenizer(None, eos="</s>").save_pretrained(folder / "tokenizer")
        (folder / name).write_text(row)
        recipe = {"name": "made", "sources": name, "tokenizer": "./tokenizer", "held_out": 0, "deduplicate": {"near": None}}
        (folder / "corpus.yaml").write_text(json.dumps(recipe))
        found.append(etude.corpus_prepare(folder / "corpus.yaml", to=folder / "c", project=folder).manifest)
    assert found[0]["totals"] != found[1]["totals"] and found[0]["identity"] != found[1]["identity"]
    assert [one["inputs"][0]["kind"] for one in found] == [".jsonl", ".txt"]


def test_14_few_tokens_with_large_numbers_are_kept_whole(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1, "one": 2, "two": 70_000}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>", unk_token="<unk>")
    shards, manifest = prepared(tmp_path, ["one two", "two two"], tokenizer)
    assert manifest["dtype"] == "uint32" and [tokens.tolist() for tokens in shards] == [[2, 70_000, 0], [70_000, 70_000, 0]]


def test_27_another_tokenizer_than_the_corpus_has(tmp_path):
    shards, _ = prepared(tmp_path, [TEXT.format(1, 2)])
    other = chat_tokenizer(None, eos="</s>")
    other.add_tokens(["fox"])
    with pytest.raises(DataError, match="another one"):
        shards.check_tokenizer(other)
    shards.check_tokenizer(chat_tokenizer(None, eos="</s>"))
