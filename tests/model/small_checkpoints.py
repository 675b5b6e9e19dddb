"""Small real checkpoints for the tests of reading: a byte-level tokenizer, a llama folder, a GGUF file."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]


def tokenizer(eos: str = "<|im_end|>", template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(TOKENS)}, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>", eos_token=eos)
    made.chat_template = template
    return made


def config(**changes) -> LlamaConfig:
    sizes = dict(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )
    return LlamaConfig(**(sizes | changes))


def llama(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(config(**changes))


def folder(path: Path, **changes) -> LlamaForCausalLM:
    """A whole folder in Hugging Face layout; the model it holds."""
    model = llama(**changes)
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return model


def gguf_file(path: Path, model: LlamaForCausalLM, *, pre: str = "smollm", tokens: list[str] = TOKENS, **fields) -> Path:
    """The model as llama.cpp would write it: matrices in Q8_0 (Q4_1 for the last layer's `down`), q and k rows interleaved."""
    to, sizes = GGUFWriter(path, "llama"), model.config
    to.add_block_count(sizes.num_hidden_layers)
    to.add_context_length(sizes.max_position_embeddings)
    to.add_embedding_length(sizes.hidden_size)
    to.add_feed_forward_length(sizes.intermediate_size)
    to.add_head_count(sizes.num_attention_heads)
    to.add_head_count_kv(sizes.num_key_value_heads)
    to.add_rope_dimension_count(sizes.head_dim)
    to.add_rope_freq_base(10000.0)
    to.add_layer_norm_rms_eps(sizes.rms_norm_eps)
    to.add_vocab_size(sizes.vocab_size)
    to.add_tokenizer_model("gpt2")
    to.add_tokenizer_pre(pre)
    to.add_token_list(tokens)
    to.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    to.add_token_merges([" ".join(pair) for pair in MERGES])
    to.add_bos_token_id(fields.get("bos", 1))
    to.add_eos_token_id(fields.get("eos", 2))
    to.add_add_bos_token(False)
    to.add_chat_template(TEMPLATE)
    weights = {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()}
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "model.layers": "blk",
    }
    for name, weight in weights.items():
        if name == "lm_head.weight":
            continue  # tied: the file holds it once
        short = name
        for theirs, ours in names.items():
            short = short.replace(theirs, ours)
        if "q_proj" in name or "k_proj" in name:
            heads = sizes.num_attention_heads if "q_proj" in name else sizes.num_key_value_heads
            weight = interleaved(weight, heads)
        if weight.ndim == 1:
            to.add_tensor(short, weight)
        else:
            kind = GGMLQuantizationType.Q4_1 if short == "blk.1.ffn_down.weight" else GGMLQuantizationType.Q8_0
            to.add_tensor(short, quantize(weight, kind), raw_dtype=kind)
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()
    return path


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp rotates them: pairs side by side instead of half a head apart."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
