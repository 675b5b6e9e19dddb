"""How does text become tokens, and which tokens end an answer?"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from etude.errors import ModelError

_ANSWER = "etude-answer"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder in Hugging Face layout.

    Raises:
        ModelError: there is none, or it needs code of its own.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{folder}: the tokenizer cannot be read: {_first_line(error)}", "bring tokenizer.json or its like into the folder"
        ) from error
    assert tokenizer is not None, "transformers gives a tokenizer or raises"
    return tokenizer


def plain_tokenizer(name: str | os.PathLike[str]) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder that holds no model; None where a model is meant."""
    folder = Path(name).expanduser()
    held = any((folder / file).exists() for file in ("tokenizer.json", "tokenizer_config.json"))
    return load_tokenizer(folder) if held and not (folder / "config.json").exists() else None


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over what decides how it reads and writes: its pieces and rules, its special tokens, its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    said = json.dumps([rules, tokenizer.special_tokens_map, tokenizer.chat_template], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


def stop_tokens(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> tuple[frozenset[int], str]:
    """The tokens that end an answer, and a sentence that says which and why.

    They are the tokenizer's end-of-sequence, those of the generation config, and the end-of-turn of the chat template: models
    are shipped whose tokenizer names another token than the one their template ends a turn with. No padding token is needed.
    """
    why: dict[int, list[str]] = {}
    if tokenizer.eos_token_id is not None:
        why.setdefault(tokenizer.eos_token_id, []).append("tokenizer")
    ends = getattr(generation, "eos_token_id", None)
    for token in [ends] if isinstance(ends, int) else ends or []:
        why.setdefault(int(token), []).append("generation config")
    if (turn := end_of_turn(tokenizer)) is not None:
        why.setdefault(turn, []).append("chat template")
    if not why:
        return frozenset(), "no token is known that ends an answer: every answer runs to its limit"
    named = [f"{tokenizer.convert_ids_to_tokens(token)!r} ({token}; {', '.join(why[token])})" for token in sorted(why)]
    return frozenset(why), f"answers end at {', '.join(named)}"


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template writes right after an assistant's words; None without a template or such a token."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "etude-question"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError):  # a template for something else than plain turns ends none
        return None
    _, found, tail = str(text).rpartition(_ANSWER)
    if not found:
        return None
    special = set(tokenizer.all_special_ids) | {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    tokens = tokenizer(tail.strip(), add_special_tokens=False)["input_ids"]
    return tokens[0] if tokens and tokens[0] in special else None


def text_bytes(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> bytes:
    """The UTF-8 bytes that tokens stand for, special ones left out: what bits per byte are counted over.

    Of a byte-level tokenizer exact wherever the tokens were cut; another's are decoded, and half a character counts as a whole one.
    """
    special = set(tokenizer.all_special_ids)
    plain = [int(token) for token in tokens if int(token) not in special]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(backend, "decoder", None)).__name__ != "ByteLevel":
        return str(tokenizer.decode(plain)).encode()
    written = "".join(tokenizer.convert_ids_to_tokens(plain))
    return b"".join(_byte_of().get(character, character.encode()) for character in written)


@cache
def _byte_of() -> dict[str, bytes]:
    return {character: bytes([byte]) for byte, character in bytes_to_unicode().items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
