"""Which tokens of an answer are learnt? Those by which the rendering with the answer goes on from the rendering that asks for it.

For each answer, `prompt` is what inference reads (history and generation prompt) and `whole` the same turns with the answer. What
is learnt begins behind the prompt's own tokens and ends with the first stop token. Where every such path is the beginning of the last
one, they are one sample; where a template rewrites its history, each answer is a sample of its own, as it will be seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from etude.data.encoder import Encoder
from etude.data.records import Completion, Conversation, Message, RowError
from etude.data.template import Template, check_whole, learnable

TrainOn = Literal["answers", "last-answer", "everything"]

UNTEMPLATED = "conversations for a tokenizer without a chat template"
EMPTY = "empty answers"
NOTHING = "rows with nothing to learn"
OUTSIDE = "answers that are not inside the mask"
NO_STOP = "answers without a stop token inside the mask"
DOUBLED = "doubled marks: two beginnings of text or two ends of turn"
FORGED = "texts that spell a special token"
BOUNDARY = "answers whose beginning cannot be told from the template"


@dataclass(frozen=True, slots=True)
class View:
    """One answer as two texts: what is read before it, and the same with it."""

    prompt: str
    whole: str
    learnt: bool
    contains: tuple[str, ...]
    """Texts that must be found in what is learnt."""
    field: str
    """Where the answer stands in its row, for messages."""
    header: Callable[[], str | None] | None = None
    """What the template writes before an answer; None for plain strings, to which the tokenizer's own beginning and end are added."""


@dataclass(frozen=True, slots=True)
class Views:
    """A conversation or completion, rendered: its answers, and the whole text where every token is learnt."""

    answers: tuple[View, ...]
    full: str | None
    opening: bool
    """The first turn is the assistant's: it answers nothing."""

    def texts(self) -> Iterator[str]:
        """Everything that will be encoded."""
        for view in self.answers:
            yield view.prompt
            yield view.whole
        if self.full is not None:
            yield self.full


@dataclass(frozen=True, slots=True)
class Path:
    """Tokens, and the half-open regions of them that are learnt."""

    tokens: list[int]
    regions: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a conversation or completion becomes."""

    paths: tuple[Path, ...]
    prompt: list[int]
    """What is read before the last answer."""
    unrolled: bool
    prefilled: bool

    @property
    def longest(self) -> int:
        return max(len(path.tokens) for path in self.paths)


def views(said: Conversation | Completion, template: Template, encoder: Encoder, train_on: TrainOn) -> Views:
    """Render every answer that is to be learnt. RowError where the row or its template does not allow it."""
    if isinstance(said, Completion):
        if not template.exists:
            return _plain(said, encoder, train_on)
        said = said.conversation()
    if not template.exists:
        raise RowError(
            UNTEMPLATED,
            "this tokenizer has no chat template, so turns cannot be written as text",
            "take the base's instruct sibling, or turn the rows into plain text with `render: {prompt: …, completion: …}`",
        )
    messages = said.messages
    chosen, wanted = answers_of(messages, train_on)
    _check_marks(messages, encoder)
    answers = []
    for i in wanted:
        contains = tuple(learnable(messages[i]))
        prompt = template.render(said, i, generation=True)
        header = partial(template.header, said, i)
        answers.append(View(prompt, template.render(said, i + 1), i in chosen, contains, f"messages[{i}]", header))
    check_whole(said, wanted[-1], answers[-1].prompt)
    full = template.render(said, len(messages)) if train_on == "everything" else None
    return Views(tuple(answers), full, messages[0].role == "assistant")


def answers_of(messages: tuple[Message, ...], train_on: TrainOn) -> tuple[set[int], list[int]]:
    """Indices of the turns that are learnt, and of all that are rendered as answers. RowError where there is nothing to learn."""
    chosen = _learnt(messages, train_on)
    if not chosen:
        raise RowError(NOTHING, "no assistant turn is to be learnt", "give the row an answer, or mend its `train` flags")
    wanted = [i for i in range(1, len(messages)) if messages[i].role == "assistant" and (i in chosen or train_on == "everything")]
    if not wanted:
        raise RowError(NOTHING, "the only assistant turn opens the conversation and answers nothing", "give the row a question")
    for i in wanted:
        if i in chosen and not learnable(messages[i]):
            raise RowError(EMPTY, f"messages[{i}]: the answer is empty", "give it words, or mark it `train: false`")
    return chosen, wanted


def learn(seen: Views, encoder: Encoder) -> Learnt:
    """Tokens and mask. RowError where a guard finds the mask wrong."""
    paths, prefilled = [], False
    for view in seen.answers:
        tokens, start, from_prompt = _behind_prompt(view, encoder)
        prefilled |= from_prompt
        end = _end(view, tokens, start, encoder)
        if view.learnt:
            _check_inside(view, tokens[start:end], encoder)
        paths.append(Path(tokens[:end], ((start, end),)))
    prompt = tokens[:start]
    if seen.full is not None:
        return Learnt(_everything(seen, paths, encoder), prompt, False, prefilled)
    last = paths[-1]
    if all(last.tokens[: len(path.tokens)] == path.tokens for path in paths):
        return Learnt((Path(last.tokens, tuple(path.regions[0] for path in paths)),), prompt, False, prefilled)
    return Learnt(tuple(paths), prompt, True, prefilled)


def _learnt(messages: tuple[Message, ...], train_on: TrainOn) -> set[int]:
    """Indices of the turns that are learnt: flags in the row come first, `train_on` decides the rest."""
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    for i, message in enumerate(messages):
        if message.role != "assistant" and (message.train or (train_on == "everything" and message.train is False)):
            says = "true" if message.train else "false"
            raise RowError(NOTHING, f"messages[{i}]: `train: {says}` on a turn of {message.role}", "only assistant turns carry the flag")
    if messages and messages[0].role == "assistant" and messages[0].train:
        raise RowError(NOTHING, "messages[0]: `train: true` on a turn that answers nothing", "give the conversation a question first")
    by_default = set(answers[-1:] if train_on == "last-answer" else answers)
    return {i for i in answers if i > 0 and (messages[i].train if messages[i].train is not None else i in by_default)}


def _plain(said: Completion, encoder: Encoder, train_on: TrainOn) -> Views:
    if said.system is not None:
        raise RowError(UNTEMPLATED, "system: needs a chat template, and this tokenizer has none", "put it into the prompt, with `render:`")
    if not said.completion.strip():
        raise RowError(EMPTY, "completion: the answer is empty", "give it words, or leave such rows out with `where`")
    for field, text in (("prompt", said.prompt), ("completion", said.completion)):
        _check_marks((Message(field, text),), encoder, field)
    whole = said.prompt + said.completion
    view = View(said.prompt, whole, True, (said.completion.strip(),), "completion")
    return Views((view,), whole if train_on == "everything" else None, False)


def _behind_prompt(view: View, encoder: Encoder) -> tuple[list[int], int, bool]:
    """Tokens of prompt and answer as inference will have them, where the answer starts, and whether the prompt begins it already."""
    if view.header is None:
        before = encoder.lead + encoder.ids(view.prompt)
        after = [*encoder.lead, *encoder.ids(view.whole), _end_of_text(encoder)]
    else:
        before, after = encoder.ids(view.prompt), encoder.ids(view.whole)
    if encoder.beginning is not None and after[:2] == [encoder.beginning] * 2:
        twice = encoder.names([encoder.beginning])
        raise RowError(DOUBLED, f"begins with two {twice}", "the chat template writes it itself: take it out of the row")
    if after[: len(before)] == before and before:
        return after, len(before), False
    # Inference has the prompt's own tokens and writes on from there. Where the two texts were merged over the boundary ("A: " + "yes"
    # read as " yes"), or the generation prompt begins the answer ("<think>"), the answer's own text is encoded behind it.
    prefilled = not view.whole.startswith(view.prompt)
    rest = view.whole[_answer_at(view) if prefilled else len(view.prompt) :]
    tokens = [*before, *encoder.ids(rest), *([_end_of_text(encoder)] if view.header is None else [])]
    if before and not encoder.decode(tokens).startswith(encoder.decode(before) + rest):
        raise RowError(BOUNDARY, f"{view.field}: cannot be written behind its prompt token by token", "end the prompt where a word ends")
    return tokens, max(1, len(before)), prefilled


def _answer_at(view: View) -> int:
    """Where in `whole` the part begins that goes on from a prompt which is not its beginning: one that ends in other white space,
    or that opens the answer itself (`<think>`) where the row's own rendering does not."""
    shared = _common(view.prompt, view.whole)
    if view.prompt[shared:].isspace():
        return shared
    header = view.header() if view.header is not None else None
    if header is None or not view.prompt.startswith(header) or not view.whole.startswith(header):
        raise RowError(
            BOUNDARY,
            f"{view.field}: the generation prompt ends in {view.prompt[-30:]!r}, which does not lead into {view.whole[shared:][:40]!r}",
            "check the chat template: its generation prompt must lead into what it writes for such an assistant turn",
        )
    return len(header)


def _end_of_text(encoder: Encoder) -> int:
    if encoder.end is None or encoder.end not in encoder.stop_ids:
        problem = f"the tokenizer's end of text is {encoder.end}; generation stops at {encoder.names(encoder.stop_ids)}"
        raise RowError(NO_STOP, problem, "make `eos_token` one of the model's stop tokens")
    return encoder.end


def _end(view: View, tokens: list[int], start: int, encoder: Encoder) -> int:
    """Behind the first stop token of the answer. What a template puts after it belongs to the next turn."""
    stop = next((i for i in range(start, len(tokens)) if tokens[i] in encoder.stop_ids), None)
    if stop is None:
        stops, ending = encoder.names(encoder.stop_ids), encoder.decode(tokens[-8:])
        raise RowError(
            NO_STOP,
            f"{view.field}: no stop token ends the answer; generation stops at {stops}, and the rendering ends in {ending!r}",
            "the model would never learn to stop: take a chat template that ends answers with a stop token, or set `eos_token`",
        )
    if tokens[stop] in tokens[stop + 1 :]:
        twice = encoder.names([tokens[stop]])
        raise RowError(DOUBLED, f"{view.field}: {twice} stands twice behind the answer", "the chat template writes it itself")
    return stop + 1


def _check_inside(view: View, region: list[int], encoder: Encoder) -> None:
    """Every text of the answer must be readable in the tokens that are learnt."""
    shown = encoder.decode(region)
    for text in view.contains:
        if text not in shown and encoder.decode(encoder.ids(text)).strip() not in shown:
            raise RowError(
                OUTSIDE,
                f"{view.field}: {text[:60]!r} is not in what would be learnt, {shown[:100]!r}",
                "the chat template leaves it out or changes it: mend the row (a thought, a tool call?) or take another template",
            )


def _check_marks(messages: tuple[Message, ...], encoder: Encoder, field: str = "") -> None:
    for i, message in enumerate(messages):
        for mark in encoder.marks:
            if mark in message.content:
                place = field or f"messages[{i}]"
                raise RowError(
                    FORGED, f"{place}: the text spells {mark!r}, which would be read as the token itself", "take it out of the row"
                )


def _everything(seen: Views, answers: list[Path], encoder: Encoder) -> tuple[Path, ...]:
    """Every token of every path once: what an earlier path has taught already is not learnt again."""
    if seen.answers[0].header is None:
        return (Path(answers[0].tokens, ((1, len(answers[0].tokens)),)),)
    full = encoder.ids(seen.full or "")
    rewritten = [path.tokens for path in answers if full[: len(path.tokens)] != path.tokens]
    spared = [path.regions[0] for path, view in zip(answers, seen.answers, strict=True) if not view.learnt]
    if not rewritten:
        edges = [1, *(edge for region in spared for edge in region), len(full)]
        return (Path(full, tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)),)
    if spared:
        problem = "`train: false` cannot be followed where everything is learnt and the chat template rewrites history"
        raise RowError(NOTHING, problem, "use `train_on: answers`")
    paths = [*rewritten, full]
    starts = [max((_common(tokens, earlier) for earlier in paths[:i]), default=1) for i, tokens in enumerate(paths)]
    return tuple(Path(tokens, ((start, len(tokens)),)) for tokens, start in zip(paths, starts, strict=True) if start < len(tokens))


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
