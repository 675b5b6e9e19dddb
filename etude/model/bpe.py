"""A tokenizer of a newborn's own: byte-pair encoding over bytes, trained on the text that the model will learn from."""

from collections.abc import Iterable

from tokenizers import Regex as Pattern
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END = "<|endoftext|>"
# Words with the space before them, numbers by at most three digits, runs of signs, and indentation as one piece; as cl100k splits text.
_PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE of at most `size` tokens, with one special token that ends a text. https://arxiv.org/abs/1508.07909

    Every byte is a token, so nothing is unknown and `decode(encode(text)) == text`.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Pattern(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])  # type: ignore[bad-assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[bad-assignment]
    bytes_first = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=bytes_first, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False)
