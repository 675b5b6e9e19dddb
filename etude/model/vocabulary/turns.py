"""Can a tokenizer's chat template be trained and answered with? It must render, leave nothing out, and end an answer with a mark."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from etude.errors import ModelError
from etude.model.tokenizer import end_of_turn

CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md"""
_WORDS = {"system": "etude-instruction", "user": "etude-question", "assistant": "etude-answer"}


def template(name: str) -> str:
    """A template by its name, or as it is written."""
    return CHATML if name == "chatml" else name


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a chat template with which no answer could be learnt.

    Raises:
        ModelError: it does not compile or render, it leaves words out, or no special token follows an answer.
    """
    turns = [{"role": role, "content": _WORDS[role]} for role in ("user", "assistant")]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        asked = str(tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True))
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        where = f" in its line {error.lineno}" if getattr(error, "lineno", None) else ""  # type: ignore[missing-attribute]
        raise ModelError(f"the chat template cannot be used{where}: {error}", "mend the template, or take `chatml`") from error
    for role, rendered in (("user", text), ("user", asked), ("assistant", text)):
        if _WORDS[role] not in rendered:
            raise ModelError(f"the chat template leaves out what the {role} says", "write {{ message['content'] }} for every turn")
    if end_of_turn(tokenizer) is None:
        tail = text.rpartition(_WORDS["assistant"])[2]
        raise ModelError(
            f"the chat template ends no answer: behind the assistant's words stands {tail[:40]!r}, which is no special token",
            f"end every turn with a special token (there are {', '.join(tokenizer.all_special_tokens)}), or add yours to `special`",
        )
