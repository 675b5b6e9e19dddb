"""What text does the tokenizer's own chat template make of a conversation, and does it leave anything out?"""

import json
import re
from typing import Any

from etude.data.records import Conversation, Message, RowError

REFUSED = "rows that the chat template refuses"
LEFT_OUT = "rows of which the chat template leaves something out"
REASONING = ("reasoning_content", "reasoning", "thinking")
PROBE = "etude-looks-where-an-answer-begins"


class Template:
    """A tokenizer's chat template. Renders text; tokens are the encoder's business."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @property
    def exists(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def render(self, conversation: Conversation, upto: int, generation: bool = False) -> str:
        """The first `upto` messages as text, ending in the generation prompt where asked for; RowError where the template refuses."""
        messages = conversation.messages[:upto]
        tools = list(conversation.tools) or None
        calls = any("tool_calls" in message.extra for message in messages)
        reason: Exception | None = None
        for arguments_as_text in (False, True) if calls else (False,):
            turns = [as_dict(message, arguments_as_text) for message in messages]
            try:
                return self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=generation)
            except Exception as error:  # noqa: BLE001  a template raises its own refusals, and whatever its expressions meet
                reason = error
        roles = ", ".join(message.role for message in messages)
        raise RowError(
            REFUSED,
            f"the chat template refuses the turns ({roles}): {reason}",
            "write the row as this model's template wants it (some know no system turn, some want user and assistant in turn)",
        ) from reason

    def header(self, conversation: Conversation, upto: int) -> str | None:
        """What the template writes before the words of an assistant turn behind the first `upto` messages; None where it cannot be told."""
        probe = Conversation((*conversation.messages[:upto], Message("assistant", PROBE)), conversation.tools)
        before, found, _ = self.render(probe, upto + 1).rpartition(PROBE)
        return before if found else None


def as_dict(message: Message, arguments_as_text: bool = False) -> dict[str, Any]:
    """A message for a template. Reasoning goes by three names in templates; each gets it under its own."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content, **message.extra}
    if thought := reasoning(message):
        turn |= dict.fromkeys(REASONING, thought)
    if arguments_as_text and "tool_calls" in turn:
        functions = [call["function"] for call in turn["tool_calls"]]
        texts = [{**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)} for function in functions]
        turn["tool_calls"] = [{**call, "function": function} for call, function in zip(turn["tool_calls"], texts, strict=True)]
    return turn


def reasoning(message: Message) -> str:
    """What the assistant thought, where the row gives it in a field of its own."""
    return next((thought for key in REASONING if isinstance(thought := message.extra.get(key), str) and thought.strip()), "")


def learnable(message: Message) -> list[str]:
    """The texts of an assistant turn that must be found in what is learnt: its thought, its words, the calls it makes."""
    said = [*re.split(r"</?think>", message.content), reasoning(message)]
    functions = [call["function"] for call in message.extra.get("tool_calls", [])]
    called = [text for function in functions for text in (function["name"], *function["arguments"])]
    return [stripped for text in (*said, *called) if (stripped := str(text).strip())]


def check_whole(conversation: Conversation, upto: int, prompt: str) -> None:
    """RowError where the template silently leaves out a system or user turn, or a tool (assistant and tool turns it may rewrite)."""
    for i, message in enumerate(conversation.messages[:upto]):
        if message.role in ("system", "developer", "user") and message.content.strip() not in prompt:
            problem = f"messages[{i}]: the chat template leaves this {message.role} turn out"
            raise RowError(LEFT_OUT, problem, "say it in a turn that this model's template keeps")
    for tool in conversation.tools:
        name = tool["function"]["name"]
        if name not in prompt:
            raise RowError(LEFT_OUT, f"tools: the chat template leaves the tool {name!r} out", "choose a base whose template knows tools")
