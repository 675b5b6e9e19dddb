"""A base's merges continued: old ids, old text, the new tokens' rows, in plain transformers; and what cannot be continued."""

import copy
import json
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from some_text import CODE, PROSE
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PhiConfig

from etude.adaptation.embeddings import Embeddings
from etude.errors import DataError, ModelError
from etude.model.vocabulary.bpe import BytePairs
from etude.model.vocabulary.bytes import Bytes
from etude.model.vocabulary.characters import Characters
from etude.model.vocabulary.continued import check_byte_level, continued, counted
from etude.model.vocabulary.new_rows import add_rows, new_tokens

BASE = BytePairs(size=420, chat_template="chatml").learn(iter(PROSE)).backend_tokenizer
MORE = continued(BASE, counted(BASE, CODE), 60)
OLD = len(BASE.get_vocab())


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def expanded(tokens):
    """Every new token as the old ones that it is made of."""
    return [old for token in tokens for old in MORE.parts.get(token, (token,))]


def test_old_tokens_keep_their_ids_and_marks_stay_marks():
    now = MORE.tokenizer.get_vocab()
    assert all(now[name] == i for name, i in BASE.get_vocab().items())
    assert sorted(MORE.parts) == list(range(OLD, OLD + 60)) and len(now) == OLD + 60
    assert ids(MORE.tokenizer, "a<|im_end|>self") == [*ids(BASE, "a<|im_end|>"), *ids(MORE.tokenizer, "self")]
    old, new = (json.loads(one.to_str())["model"]["merges"] for one in (BASE, MORE.tokenizer))
    assert new[: len(old)] == old and len(new) == len(old) + 60


def test_fewer_tokens_for_what_it_learnt_from_and_none_more_elsewhere():
    code = "".join(CODE)
    assert len(ids(MORE.tokenizer, code)) < 0.7 * len(ids(BASE, code))
    assert MORE.tokenizer.decode(ids(MORE.tokenizer, code), skip_special_tokens=False) == code


@given(text=st.one_of(st.text(), st.lists(st.sampled_from([*"self.forwdmak\n ", "value", "None", "Fuchs"])).map("".join)))
def test_any_text_is_the_old_one_joined_further(text):
    assert expanded(ids(MORE.tokenizer, text)) == ids(BASE, text)
    assert MORE.tokenizer.decode(ids(MORE.tokenizer, text), skip_special_tokens=False) == text


def test_the_merges_are_those_of_counting_everything_anew_each_time():
    words = [list(word) for word, count in counted(BASE, CODE) for _ in range(count)]
    taken, expected = set(BASE.get_vocab()), []
    while len(expected) < 60:
        pairs = Counter(pair for word in words for pair in pairwise(word) if "".join(pair) not in taken)
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        expected.append(list(best))
        taken.add("".join(best))
        for word in words:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == best:
                    word[at : at + 2] = ["".join(best)]
                at += 1
    assert json.loads(MORE.tokenizer.to_str())["model"]["merges"][-60:] == expected


def test_the_order_of_texts_does_not_matter():
    other = continued(BASE, counted(BASE, CODE[::-1]), 60)
    assert other.tokenizer.to_str() == MORE.tokenizer.to_str() and other.parts == MORE.parts


def test_it_can_be_continued_again_and_read_back():
    again = continued(MORE.tokenizer, counted(MORE.tokenizer, ["gröbere Füße, größere Füße\n"] * 9), 5)
    read = Tokenizer.from_str(again.tokenizer.to_str())
    assert sorted(again.parts) == list(range(OLD + 60, OLD + 65))
    assert read.token_to_id("<|im_end|>") == BASE.token_to_id("<|im_end|>")
    assert ids(read, "größere Füße") == ids(again.tokenizer, "größere Füße")


def test_bytes_can_be_continued_and_long_rows_are_cut():
    plain = Bytes().learn(iter(())).backend_tokenizer
    longer = continued(plain, counted(plain, ["-" * 5000 + "ab" * 40]), 4)
    assert len(longer.parts) == 4 and longer.tokenizer.decode(ids(longer.tokenizer, "-" * 99)) == "-" * 99


def test_no_token_is_made_a_second_way():
    """`abc` is known by a + bc, but text writes ab + c: joining these would let the old merge abc + d apply where it never did."""
    names = ["a", "b", "c", "d", "ab", "bc", "abc", "abcd"]
    merges = [("a", "b"), ("b", "c"), ("a", "bc"), ("abc", "d")]
    base = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert base.encode("abcd").tokens == ["ab", "c", "d"]
    more = continued(base, counted(base, ["abcd"] * 9), 3)
    assert all(more.tokenizer.token_to_id(name) == i for i, name in enumerate(names))
    assert more.parts == {8: (2, 3)} and more.tokenizer.encode("abcd").tokens == ["ab", "cd"]


def test_nothing_to_join():
    with pytest.raises(DataError, match="no pair of tokens occurs 2 times"):
        continued(BASE, counted(BASE, ["xy"]), 10)


def unigram():
    made = Tokenizer(models.Unigram([("a", -1.0), ("<unk>", -2.0)], 1, False))
    made.normalizer = normalizers.NFKC()
    return made


def wordpiece():
    return Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))


def sentencepiece():
    made = Tokenizer(models.BPE(byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(["ab ab ab"], trainers.BpeTrainer(show_progress=False))
    return made


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (unigram, "a unigram model (SentencePiece)"),
        (wordpiece, "WordPiece"),
        (sentencepiece, "a BPE over characters with bytes to fall back on (SentencePiece)"),
        (lambda: Characters().learn(iter(["ab"])).backend_tokenizer, "a vocabulary of characters"),
    ],
)
def test_what_has_no_byte_level_merges_says_what_it_is(made, what):
    with pytest.raises(ModelError) as refused:
        check_byte_level(made())
    assert f"this tokenizer is {what}: it has no byte-level merges" in str(refused.value)


SHAPE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
MODELS = {
    "tied": LlamaConfig(vocab_size=OLD, tie_word_embeddings=True, **SHAPE),
    "untied": LlamaConfig(vocab_size=OLD, tie_word_embeddings=False, **SHAPE),
    "a head with a bias": PhiConfig(vocab_size=OLD, **SHAPE),
    "few spare rows": LlamaConfig(vocab_size=448, tie_word_embeddings=False, **SHAPE),
    "enough spare rows": LlamaConfig(vocab_size=512, tie_word_embeddings=True, **SHAPE),
    "gpt-2": GPT2Config(vocab_size=OLD, n_embd=16, n_layer=2, n_head=2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_rows_of_new_tokens(name, dtype, tmp_path):
    torch.manual_seed(0)
    before = AutoModelForCausalLM.from_config(copy.deepcopy(MODELS[name]), dtype=dtype).eval()
    for parameter in before.parameters():
        parameter.data.normal_(std=0.3)
    extended = copy.deepcopy(before)
    add_rows(extended, MORE.parts)
    extended.save_pretrained(tmp_path)
    after = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()  # plain transformers
    tied = MODELS[name].tie_word_embeddings
    assert after.dtype == dtype
    assert (after.lm_head.weight.data_ptr() == after.get_input_embeddings().weight.data_ptr()) == tied
    rows = after.get_input_embeddings().weight.shape[0]
    assert rows == after.config.vocab_size >= OLD + 60
    assert rows == {"few spare rows": 512, "enough spare rows": 512}.get(name, OLD + 60)
    text = torch.tensor([ids(BASE, PROSE[0])])
    with torch.no_grad():
        old, new = before(text).logits, after(text).logits
        torch.testing.assert_close(new[..., :OLD], old[..., :OLD], rtol=0, atol=0)
        assert after(torch.tensor([[OLD + 59]])).logits.isfinite().all()
    bias = getattr(before.lm_head, "bias", None)
    pairs = [(before.get_input_embeddings().weight, after.get_input_embeddings().weight), (before.lm_head.weight, after.lm_head.weight)]
    pairs += [(bias, after.lm_head.bias)] if bias is not None else []
    assert (bias is not None) == (name == "a head with a bias")
    for was, is_ in pairs:
        assert torch.equal(is_[:OLD], was[:OLD])
        for token, made_of in MORE.parts.items():
            mean = sum(was[old].double() for old in made_of) / len(made_of)
            torch.testing.assert_close(is_[token].double(), mean, rtol=torch.finfo(dtype).eps, atol=1e-7)
    assert new_tokens(after.config) == range(OLD, OLD + 60)
    attached = Embeddings().attach(after, seed=0)
    assert f"the 60 rows that extending the base added to the embedding learn (ids {OLD} to {OLD + 59})" in "\n".join(attached.notes)
    assert attached.trainable_count == 60 * 16


def test_a_size_that_is_a_multiple_stays_one():
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=512, tie_word_embeddings=True, **SHAPE))
    (line,) = add_rows(model, {600: (1, 2)})
    assert model.config.vocab_size == 640
    assert line == "embedding: no row was to spare, 512 rows became 640; the head is the same matrix"
