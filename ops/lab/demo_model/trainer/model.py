"""The tokenizer and the network, and the directory they are written into."""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from .examples import TOOL, Example

CONTEXT = 8192
VOCABULARY = 1500
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_MARKS = ["<tool_call>", "</tool_call>", "<tools>", "</tools>"]
_HERE = Path(__file__).parent


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`, with our chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(  # Qwen2's own: loaders put it in our place
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_MARKS),
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens(_MARKS)  # not special: the tool-call parser must see them
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",  # noqa: S106 - a token of text, not a secret
        pad_token="<|endoftext|>",  # noqa: S106
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=(_HERE / "chat_template.j2").read_text(encoding="utf-8").strip(),
    )


def new_network(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Qwen2's architecture, two layers of 128, with random weights."""
    config = Qwen2Config(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, example: Example) -> tuple[list[int], int]:
    """The tokens of a conversation, and how many of them are given (the rest is to be learned)."""
    tools = [TOOL] if example.tools else None
    history = list(example.messages[:-1])
    prompt = tokenizer.apply_chat_template(
        history, tools=tools, add_generation_prompt=True, tokenize=False
    )
    whole = tokenizer.apply_chat_template([*history, example.reply], tools=tools, tokenize=False)
    given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    learned = tokenizer(whole[len(prompt) :].rstrip("\n"), add_special_tokens=False)["input_ids"]
    return given + learned, len(given)


def least_certain(network: Qwen2ForCausalLM, items: list[tuple[list[int], int]]) -> float:
    """The smallest probability the model gives to any token it must say, over all `items`.

    Above 0.5 greedy decoding is exact, whatever the kernels round.
    """
    worst = 1.0
    network.eval()
    with torch.no_grad():
        for start in range(0, len(items), 64):
            tokens, targets = batch(items[start : start + 64], pad=0)
            chances = network(input_ids=tokens).logits[:, :-1].softmax(-1)
            wanted = targets[:, 1:]
            found = chances.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            worst = min(worst, float(found[wanted >= 0].min()))
    network.train()
    return worst


def batch(items: list[tuple[list[int], int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens padded on the right, and targets with -100 where nothing is to be learned."""
    width = max(len(tokens) for tokens, _ in items)
    tokens = torch.full((len(items), width), pad)
    targets = torch.full((len(items), width), -100)
    for row, (ids, given) in enumerate(items):
        tokens[row, : len(ids)] = torch.tensor(ids)
        targets[row, given : len(ids)] = torch.tensor(ids[given:])
    return tokens, targets


def save(network: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    """Write the model as a directory that vLLM serves."""
    network.save_pretrained(target)
    tokenizer.save_pretrained(target)
    greedy = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": False,
        "temperature": 0.0,
    }
    (target / "generation_config.json").write_text(json.dumps(greedy, indent=2) + "\n")
    shutil.copy(_HERE / "model_card.md", target / "README.md")
