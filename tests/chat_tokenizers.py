"""Small real tokenizers, trained here in a moment, with the chat templates that trip trainers up."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "user assistant system What is two and two? It is four. And three and three? That makes six. Name the capital of France: Paris is it.",
    "The quick brown fox jumps over the lazy dog. Tell me a story about a dog and a fox, please. Once upon a time there was a dog.",
    'Answer yes or no: yes. Answer yes or no: no. think thinking </think> <think> \n\n \n because therefore {"name": "weather", "city": 1}',
] * 4

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Qwen3: thoughts of earlier turns are stripped, the last one has a thought, if an empty one.
STRIPS_THOUGHTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% set c = m['content'] %}"
    "{% if m['role'] == 'assistant' %}{% set t = c.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in c else '' %}"
    "{% set c = c.split('</think>')[-1].strip() %}"
    "{% if loop.last %}{{ '<think>\n' + t + '\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ c + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Phi3 and gpt-oss: the end of text comes once, behind the last turn.
ENDS_LAST_TURN = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% if not loop.last %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_end|>\n<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)

# DeepSeek-R1: the generation prompt opens a thought that a finished turn does not show.
PREFILLS_THINK = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'].split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)

# Gemma: no system turn, user and assistant in turn.
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# A template that never looks at system turns: they vanish without a word.
FORGETS_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Llama 2: the beginning of text is in the template, there is no generation prompt, and the answer follows a space.
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% else %}{{ raise_exception('no such role') }}"
    "{% endif %}{% endfor %}"
)

# GLM-4: an answer ends only where the next turn begins.
ENDS_WITH_NEXT_TURN = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# The generation prompt ends in a space, which a BPE merges with the answer's first word.
SPACE_BEFORE_ANSWER = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<unk>"]


@cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


def chat_tokenizer(
    template: str | None = CHATML, eos: str = "<|im_end|>", pad: str | None = None, adds_beginning: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 700 tokens; `<s>` begins a text where the tokenizer is told to add it."""
    tokenizer = Tokenizer.from_str(_trained())
    if adds_beginning:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos, pad_token=pad or "<unk>", unk_token="<unk>")
    made.chat_template = template
    return made
