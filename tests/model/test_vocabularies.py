"""Every kind of tokenizer: what it learns, what it writes, what comes back, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from some_text import CODE, MOLECULES, PROSE
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from etude.errors import DataError, ModelError
from etude.model.tokenizer import load_tokenizer, stop_tokens
from etude.model.vocabulary.alphabet import SMILES, Alphabet
from etude.model.vocabulary.bpe import PATTERNS, BytePairs
from etude.model.vocabulary.bytes import Bytes
from etude.model.vocabulary.characters import Characters
from etude.model.vocabulary.measure import written

TEXTS = PROSE + CODE


def learnt(vocabulary, texts=TEXTS):
    said = []
    return vocabulary.learn(iter(texts), said.append), said


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def back(tokenizer, text):
    return tokenizer.decode(ids(tokenizer, text), skip_special_tokens=False)


KINDS = {
    "bpe": BytePairs(size=500),
    "bpe, gpt-2, digits": BytePairs(size=500, pattern="gpt-2", split_digits=True),
    "bpe, own pattern": BytePairs(size=400, pattern=r"\S+|\s+"),
    "bytes": Bytes(),
    "characters": Characters(minimum_count=20),
}
MADE = {name: learnt(kind)[0] for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
@given(text=st.text())
def test_any_text_comes_back(name, text):
    assert back(MADE[name], text) == text


@pytest.mark.parametrize("name", KINDS)
def test_transformers_reads_what_was_saved(name, tmp_path):
    MADE[name].save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS[:4], "a<|endoftext|>b", "\x00\ud7ff  \t é é"]:
        assert ids(again, text) == ids(MADE[name], text)
        assert back(again, text) == text
    assert again.eos_token == "<|endoftext|>" and again.pad_token == "<|padding|>" and len(again) == len(MADE[name])
    assert ids(again, "<|endoftext|>") == [again.eos_token_id], "a mark is never cut"
    assert again.eos_token_id == len(again) - 2, "marks follow the pieces"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bpe_has_the_merges_of_plain_tokenizers(pattern):
    plain = Tokenizer(models.BPE())
    foreign = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pattern == "gpt-4":
        split = TikTokenConverter().pattern
        foreign = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    plain.pre_tokenizer = foreign
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=498, min_frequency=2, initial_alphabet=alphabet, show_progress=False))
    ours = json.loads(learnt(BytePairs(size=500, pattern=pattern))[0].backend_tokenizer.to_str())["model"]
    theirs = json.loads(plain.to_str())["model"]
    assert len(ours["merges"]) > 150 and ours["merges"] == theirs["merges"]
    assert {name: i for name, i in ours["vocab"].items() if i < 498} == theirs["vocab"]


@given(text=st.text())
def test_gpt_2s_pattern_is_the_librarys_own(text):
    built_in = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    ours = MADE_GPT2.backend_tokenizer.pre_tokenizer
    assert [part for part, _ in ours.pre_tokenize_str(text)] == [part for part, _ in built_in.pre_tokenize_str(text)]


MADE_GPT2 = learnt(BytePairs(size=300, pattern="gpt-2"))[0]


def test_gpt_4s_pattern_is_llama_3s_in_transformers():
    assert PATTERNS["gpt-4"] == TikTokenConverter().pattern


def test_options_of_bpe():
    assert len(ids(MADE["bpe, gpt-2, digits"], "2024")) == 4
    assert all(len(piece) < 8 for piece in learnt(BytePairs(size=300, longest=4), ["----------"] * 50)[0].get_vocab() if piece[0] == "-")
    composed = learnt(BytePairs(size=300, normalisation="nfc"))[0]
    assert back(composed, "e\u0301") == "\u00e9" and ids(composed, "e\u0301") == ids(composed, "\u00e9")
    rare, said = learnt(BytePairs(size=5000))
    assert len(rare) < 5000 and said == [f"no more pairs occur 2 times: {len(rare):,} tokens instead of 5,000"]
    begun = learnt(BytePairs(size=300, beginning="<s>"))[0]
    assert begun("a")["input_ids"] == [begun.bos_token_id, *ids(begun, "a")]


def test_the_id_of_a_byte_is_the_byte():
    made = MADE["bytes"]
    text = "".join(map(chr, range(256))) + "🙂 你"
    assert ids(made, text) == list(text.encode()) and len(made) == 258
    assert len(learnt(Bytes(), [])[0]) == 258, "needs no text"


def test_characters_are_written_as_they_are_bytes_or_unknown():
    marks, said = learnt(Characters(most=3, unknown="mark"), ["aaabbbccc", "ddé"])
    assert len(marks) == 6
    assert "2 characters are not in the vocabulary and become <unk>: 3 of 12 occurrences (25.00%): 'd' 2, 'é' 1" in said
    figures = written(marks, ["abcd", "é"])
    assert (figures.unknown, figures.changed, figures.tokens) == (2, 2, 5)
    assert figures.first_changed == ("abcd", "abc<unk>")
    falls, said = learnt(Characters(most=3), ["aaabbbccc", "ddé"])
    assert ids(falls, "é") == [3 + byte for byte in "é".encode()] and back(falls, "aé<0x41>") == "aé<0x41>"
    assert "are written as bytes" in said[0]
    assert not learnt(Characters(), ["abc"])[1]


def test_letters_of_dna_and_protein():
    made, said = learnt(Alphabet(), ["ACGTN\nACGT", "ACGXxAC"])
    assert made.convert_ids_to_tokens(ids(made, "ACX\n")) == ["A", "C", "<unk>", "\n"]
    assert said == ["2 characters are not in the vocabulary and become <unk>: 2 of 17 occurrences (11.76%): 'X' 1, 'x' 1"]
    assert back(learnt(Alphabet(alphabet="protein"), [])[0], "MKV*-W\n") == "MKV*-W\n"
    with pytest.raises(DataError, match="'X' is no letter of this alphabet"):
        learnt(Alphabet(foreign="refuse"), ["ACGT", "ACX"])
    codons = learnt(Alphabet(alphabet=["A", "AC", "[x]", "."]), ["AC"])[0]
    assert codons.convert_ids_to_tokens(ids(codons, "ACA[x].")) == ["AC", "A", "[x]", "."], "the longest that fits; no letter is a pattern"


SCHWALLER = re.compile(
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9])"
)


def test_molecules_are_cut_as_by_schwaller():
    """The expression as printed in https://doi.org/10.1039/C8SC02339E, supporting information."""
    assert SMILES.replace("/", r"\/").replace("%", r"\%") == SCHWALLER.pattern[1:-1]
    made, said = learnt(Alphabet(alphabet="smiles"), MOLECULES)
    for molecule in MOLECULES:
        assert made.convert_ids_to_tokens(ids(made, molecule)) == SCHWALLER.findall(molecule)
    assert not said
    rare, said = learnt(Alphabet(alphabet="smiles", bracket_atoms=2), MOLECULES)
    assert said == ["3 kinds of atoms in brackets (9 of 15 occurrences) are rare and will be spelt out"]
    for molecule in [*MOLECULES, "[Fe+2](C)[235U]%99"]:
        assert back(rare, molecule) == molecule and rare.unk_token_id not in ids(rare, molecule)
    assert written(rare, ["CÇ"]).unknown == 1


def test_a_chat_template_comes_with_its_marks():
    made = learnt(BytePairs(size=300, chat_template="chatml"))[0]
    text = made.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    stops, why = stop_tokens(made, None)
    assert stops == {made.eos_token_id, made.convert_tokens_to_ids("<|im_end|>")} and "chat template" in why


TURNS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + END }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for m in messages %}{{ m['content'] }", r"cannot be used in its line 1"),
        ("{{ nothing.at.all }}", "cannot be used"),
        ("{% for m in messages %}{{ m['content'] | nosuch }}{% endfor %}", "cannot be used"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", "leaves out what the assistant says"),
        ("{% for m in messages if m['role'] != 'user' %}{{ m['content'] }}{% endfor %}", "leaves out what the user says"),
        (TURNS.replace("END", "'\\n'"), "ends no answer: behind the assistant's words stands"),
        (TURNS.replace("END", "'<|turn|>'"), r"no special token\n.*<\|endoftext\|>, <\|padding\|>"),
    ],
)
def test_a_chat_template_that_cannot_be_learnt_from_is_refused(template, complaint):
    with pytest.raises(ModelError, match=complaint):
        learnt(Bytes(chat_template=template), [])


def test_a_chat_template_of_ones_own():
    own = Bytes(chat_template=TURNS.replace("END", "'<|turn|>'"), special=["<|turn|>"])
    made = learnt(own, [])[0]
    assert stop_tokens(made, None)[0] == {made.eos_token_id, 258}
    assert stop_tokens(learnt(Bytes(chat_template=TURNS.replace("END", "eos_token")), [])[0], None)[0] == {256}


@pytest.mark.parametrize("vocabulary", [BytePairs(), Characters(), Alphabet(alphabet="smiles")])
def test_no_text_is_no_vocabulary(vocabulary):
    with pytest.raises(DataError, match=f"no text to learn a vocabulary of the kind '{vocabulary.kind}' from"):
        learnt(vocabulary, ["", ""])


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        (BytePairs, {"size": 259, "chat_template": "chatml"}, "no room for 256 bytes and 4 marks: at least 260"),
        (BytePairs, {"pattern": "(a"}, "neither gpt-2 or gpt-4 nor a regular expression"),
        (Bytes, {"special": ["<|endoftext|>"]}, "the mark '<|endoftext|>' is there twice"),
        (Bytes, {"end": ""}, "a mark cannot be empty"),
        (Alphabet, {"alphabet": ["a", "b", "a"]}, "the letter 'a' is there twice"),
    ],
)
def test_what_cannot_be_is_refused(kind, options, complaint):
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        kind(**options)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from some_text import CODE, PROSE
from etude.model.vocabulary.bpe import BytePairs
BytePairs(size=600, chat_template="chatml").learn(iter(PROSE + CODE)).save_pretrained({folder!r})
"""


def test_the_same_text_gives_the_same_bytes(tmp_path):
    """In another process, with another seed of Python's hashes, learning in parallel or not."""
    here = os.path.dirname(__file__)
    for name, seed, parallel in (("one", "1", "false"), ("two", "2", "true")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        subprocess.run([sys.executable, "-c", SCRIPT.format(here=here, folder=str(tmp_path / name))], check=True, env=environment)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and len(load_tokenizer(tmp_path / "one")) == 589


def test_every_option_is_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "tokenizers.md").read_text(encoding="utf-8")
    for kind in (BytePairs, Bytes, Characters, Alphabet):
        assert f"| `{kind.kind}` |" in page
        assert not [name for name in kind.model_fields if f"| `{name}` |" not in page]
