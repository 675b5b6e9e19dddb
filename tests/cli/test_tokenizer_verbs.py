"""`etude tokenizer …` as it is typed."""

import json

import pytest
from transformers import AutoTokenizer


@pytest.fixture
def prose(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "".join(json.dumps({"body": f"hedgehog number {i} met hedgehog number {i + 1}"}) + "\n" for i in range(60))
    (tmp_path / "prose.jsonl").write_text(text)
    return tmp_path


def test_train_show_extend(etude, prose, base):
    options = ("--column", "body=text", "--size", 300, "--chat-template", "chatml", "-o", "pattern=gpt-2")
    made = etude("tokenizer", "train", "prose.jsonl", "--to", "own", *options)
    assert made.code == 0, made.err
    assert "own: 300 tokens" in made.out and "every text comes back as it was" in made.out and "etude tokenizer show own" in made.out
    assert "prose.jsonl: 60 rows read, 60 kept" in made.err
    assert len(AutoTokenizer.from_pretrained(prose / "own")) == 300
    shown = etude("tokenizer", "show", "own", "two hedgehogs\n")
    assert shown.code == 0 and "the text comes back as it was" in shown.out and "<|im_start|>user↵" in shown.out
    assert json.loads(etude("tokenizer", "show", "own", "--file", "prose.jsonl", "--json").out)["comes_back"] is True
    more = etude("tokenizer", "extend", base, "prose.jsonl", "--column", "body=text", "--add", 30, "--to", "more", "--json")
    figures = json.loads(more.out)
    assert more.code == 0 and figures["bytes_per_token"]["after"] > figures["bytes_per_token"]["before"]
    assert (prose / "more" / "model.safetensors").exists()
    less = etude("tokenizer", "extend", base, "prose.jsonl", "--column", "body=text", "--to", "less", "--add", 2)
    assert less.out.startswith("less: 2 new tokens")


def test_mistakes(etude, prose):
    assert "did you mean `size`" in etude("tokenizer", "train", "prose.jsonl", "--to", "own", "-o", "sizes=300").err
    (prose / "bad.jinja").write_text("{% for m in messages %}\n{{ m.content }")
    refused = etude("tokenizer", "train", "--kind", "bytes", "--to", "own", "--chat-template", "bad.jinja")
    assert refused.code == 1 and "cannot be used in its line 2" in refused.err
    missing = etude("tokenizer", "train", "--kind", "bytes", "--to", "own", "--chat-template", "none.jinja")
    assert missing.code == 1 and "none.jinja: cannot be read" in missing.err
    assert etude("tokenizer", "train", "prose.jsonl", "--to", "own", "--column", "body").code == 2
    assert not (prose / "own").exists()
