"""Every chat template that TRL ships, with SmolLM2's tokens: what is learnt is the answer and its stop, behind what inference reads."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from etude.data.encoder import Encoder
from etude.data.records import Conversation, Message, RowError
from etude.data.supervise import learn, views
from etude.data.template import Template

ENDS = [
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|return|>",
    "<|call|>",
    "<|eot|>",
    "<end_of_utterance>",
]
WITHOUT_PLAIN_TEXT = {"idefics3", "smolvlm", "llava_next"}
"""Templates for pictures, which drop or refuse content that is a plain string."""
ENDS_WITH_NEXT_TURN = {"glm4moe"}


def said(*turns):
    return Conversation(tuple(Message(role, text, None, extra[0] if extra else {}) for role, text, *extra in turns))


THOUGHT = {"reasoning_content": "Because I counted."}
CONVERSATIONS = {
    "one turn": said(("system", "Be brief."), ("user", "What is 2+2?"), ("assistant", "It is 4 🙂")),
    "two turns": said(
        ("system", "Be brief."), ("user", "What is 2+2?"), ("assistant", "It is 4 🙂"), ("user", "And 3+3?"), ("assistant", "Six 🙂")
    ),
    "thoughts": said(
        ("user", "What is 2+2?"), ("assistant", "It is 4.", THOUGHT), ("user", "And 3+3?"), ("assistant", "That makes six.", THOUGHT)
    ),
    "white space": said(
        ("user", "  Odd   one \n"), ("assistant", "\n  indented\n\nanswer "), ("user", "Next"), ("assistant", " last ")
    ),
}  # fmt: skip


def templates():
    spec = importlib.util.find_spec("trl")
    if spec is None:
        return []
    found = Path(spec.submodule_search_locations[0]) / "chat_templates"
    return sorted(path for path in found.glob("*.jinja") if not path.stem.endswith("_training"))


def dressed(tokenizer, path):
    """The tokenizer with this template, whose marks become special tokens, and the tokens at which its model stops."""
    template = path.read_text()
    tokenizer.chat_template = template
    marks = set(re.findall(r"<[|｜/]?[A-Za-z_▁]+[|｜]?>|\[/?[A-Z_]+\]|<\|[^<>|\s]+\|>", template)) - {"<think>", "</think>"}
    tokenizer.add_tokens(sorted(marks), special_tokens=True)
    tokenizer.add_special_tokens({"bos_token": "<s>"} | ({"eos_token": "<｜end▁of▁sentence｜>"} if "deepseek" in path.stem else {}))
    stops = {end for end in ENDS if end in template} | (
        {tokenizer.eos_token} if "eos_token" in template or not marks & set(ENDS) else set()
    )
    stops |= {"<|end|>"} if "phi3" in path.stem else set()
    stops = {"<|return|>", "<|call|>"} if path.stem == "gptoss" else stops
    return frozenset(tokenizer.convert_tokens_to_ids(sorted(stops)))


@pytest.mark.slow
@pytest.mark.skipif(not templates(), reason="trl is not installed: uv sync --group benchmark")
def test_the_mask_under_every_template_of_trl(smollm2, tmp_path):
    from transformers import AutoTokenizer

    smollm2.save_pretrained(tmp_path)
    outcome = Counter()
    for path in templates():
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        encoder = Encoder(tokenizer, dressed(tokenizer, path))
        for name, conversation in CONVERSATIONS.items():
            try:
                outcome[name, checked(conversation, tokenizer, encoder)] += 1
            except RowError as error:
                without_system = Conversation(tuple(m for m in conversation.messages if m.role != "system"))
                try:
                    outcome[name, checked(without_system, tokenizer, encoder)] += 1
                except RowError:
                    outcome[name, "refused"] += 1
                    known = path.stem in WITHOUT_PLAIN_TEXT | ENDS_WITH_NEXT_TURN
                    drops_thoughts = name == "thoughts" and re.search("Because I counted|does not lead into", error.message)
                    assert known or drops_thoughts, (path.stem, name, error.message)
    print(dict(sorted(outcome.items())))
    assert len(templates()) >= 40 and all(outcome[name, "refused"] <= 4 for name in CONVERSATIONS if name != "thoughts")


def checked(conversation, tokenizer, encoder):
    """Merged, unrolled or prefilled; every path compared with the stock rendering of what inference reads."""
    learnt = learn(views(conversation, Template(tokenizer), encoder, "answers"), encoder)
    answers = [(i, message) for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    regions = [(path, region) for path in learnt.paths for region in path.regions]
    assert len(regions) == len(answers)
    for (path, (start, stop)), (i, message) in zip(regions, answers, strict=True):
        turns = [{"role": m.role, "content": m.content, **m.extra} for m in conversation.messages[:i]]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert path.tokens[:start] == asked, "what stands before the answer is what inference reads"
        shown = tokenizer.decode(path.tokens[start:stop])
        assert message.content.strip() in shown and path.tokens[stop - 1] in encoder.stop_ids
        assert not any(token in encoder.stop_ids for token in path.tokens[start : stop - 1])
        assert not any(m.content.strip() in shown for m in conversation.messages if m.role in ("system", "user"))
    return ("unrolled" if learnt.unrolled else "merged") + (" behind a prefilled thought" if learnt.prefilled else "")
