"""`etude corpus`, as somebody at a terminal meets it."""

import json

import pytest
from chat_tokenizers import chat_tokenizer

TEXTS = [f"The quick brown fox number {i} jumps over the lazy dog number {i * i}, and nobody knows why." for i in range(20)]


@pytest.fixture
def prepared(etude, tmp_path, monkeypatch):
    """A project with one corpus."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    chat_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / ".etude").mkdir()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, TEXTS[3], "Too short."]))
    (tmp_path / "questions.jsonl").write_text('{"question": "Is it so?"}\n')
    recipe = {"name": "made", "sources": "rows.jsonl", "tokenizer": "./tokenizer", "held_out": 0, "benchmarks": "questions.jsonl"}
    recipe |= {"rules": ["normalise", "length"], "deduplicate": {"near": None}}
    (tmp_path / "corpus.yaml").write_text(json.dumps(recipe))
    ended = etude("corpus", "prepare", "corpus.yaml", "--workers", "1")
    assert ended.code == 0, ended.err
    return ended


def test_the_pedigree_is_printed(etude, prepared):
    shown = etude("corpus", "show", "made")
    assert shown.code == 0 and "Traceback" not in shown.err
    for line in ("made  20 documents", "22 rows read", "length: 0 changed, 1 rejected, 21 left", "− 1 too short", "− 1 exact duplicates"):
        assert line in shown.out and line in prepared.out, line
    assert "free of 0 questions of" in shown.out and "1 question more too short" in shown.out
    assert "Too short." in shown.out and "Too short." not in etude("corpus", "show", "made", "--samples", "0").out


def test_the_manifest_is_printed_and_the_files_are_verified(etude, prepared, tmp_path):
    said = json.loads(etude("corpus", "show", "made@1", "--json", "--verify").out)
    assert said["name"] == "made" and said["totals"]["train"]["documents"] == 20
    tokens = tmp_path / ".etude" / "corpora" / "made" / "1" / "train-00000.tokens"
    raw = bytearray(tokens.read_bytes())
    raw[0] ^= 1
    tokens.write_bytes(raw)
    damaged = etude("corpus", "show", "made", "--verify")
    assert damaged.code == 1 and "train-00000.tokens: its content is not" in damaged.err
    none = etude("corpus", "show", "other")
    assert none.code == 1 and "there is no corpus 'other'" in none.err


def test_what_a_corpus_recipe_can_say_is_printed(etude):
    schema = json.loads(etude("corpus", "schema").out)
    assert "tokens_per_shard" in json.dumps(schema) and "gopher-quality" in json.dumps(schema)
    page = etude("corpus", "schema", "--markdown").out
    assert page.startswith("#") and "`tokens_per_shard`" in page
