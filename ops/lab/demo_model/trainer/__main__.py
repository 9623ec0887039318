"""Train the demo model: `python -m trainer DIALOGUES KNOWLEDGE WORKPLACE TARGET`.

Deterministic (fixed seed, one order of examples). A checkpoint in WORKPLACE lets a run that was
killed go on where it was. TARGET is written last and only if every dialogue is exact.
"""

import os
import random
import sys
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM
from transformers.utils import logging

from . import model
from .examples import exact, read_dialogues, read_passages, sample

SEED = 20260101
BATCH = 24
SHORT = 130  # tokens
PEAK_RATE = 4e-3
STEPS = 500
CHECK_EVERY = 50
CERTAIN = 0.7
SAVE_SECONDS = 15.0

Items = list[tuple[list[int], int]]


def main(dialogues_file: Path, knowledge: Path, workplace: Path, target: Path) -> int:
    """Train, prove and write the model; the exit code."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)  # fixed: sums split by the number of threads round differently
    logging.set_verbosity_error()
    dialogues, passages = read_dialogues(dialogues_file), read_passages(knowledge)
    wanted = exact(dialogues, passages)
    texts = [str(m.get("content") or m.get("tool_calls")) for e in wanted for m in e.messages]
    tokenizer = model.train_tokenizer(texts)
    network = model.new_network(tokenizer)
    proof = [model.encode(tokenizer, example) for example in wanted]
    drawn = sample(dialogues, passages, random.Random(SEED), 3000)  # noqa: S311
    batches = _batches([model.encode(tokenizer, example) for example in drawn])
    worst = _train(network, batches, proof, workplace / "checkpoint.pt")
    if worst < CERTAIN:
        print(f"error: after {STEPS} steps the least certain token has {worst:.2f}", flush=True)
        return 1
    model.save(network, tokenizer, target)
    loaded = AutoTokenizer.from_pretrained(target)
    if [model.encode(loaded, example) for example in wanted] != proof:
        print("error: the tokenizer that was written reads otherwise than the one trained")
        return 1
    return 0


def _batches(items: Items) -> list[Items]:
    """Batches of every kind of reply; only the long ones keep to themselves, to save padding."""
    short = [item for item in items if len(item[0]) <= SHORT]
    long = [item for item in items if len(item[0]) > SHORT]
    return [
        kind[start : start + size]
        for kind, size in ((short, BATCH), (long, BATCH // 2))
        for start in range(0, len(kind), size)
    ]


def _train(network: Qwen2ForCausalLM, batches: list[Items], proof: Items, saved: Path) -> float:
    """Train until every token of `proof` is certain; how certain the least certain one is."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98))
    step, worst, last_save = _resume(network, optimizer, saved), 0.0, time.monotonic()
    while step < STEPS:
        rate = min(1.0, (step + 1) / 30) * (1.0 - 0.98 * step / STEPS)
        optimizer.param_groups[0]["lr"] = PEAK_RATE * rate
        order = random.Random(SEED + step // len(batches))  # noqa: S311
        chosen = order.sample(batches, len(batches))[step % len(batches)]
        tokens, targets = model.batch(chosen, pad=0)
        loss = network(input_ids=tokens, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % CHECK_EVERY == 0:
            worst = model.least_certain(network, proof)
            print(f"step {step}/{STEPS}  loss {loss.item():.4f}  certain {worst:.3f}", flush=True)
            if worst >= CERTAIN:
                return worst
        if time.monotonic() - last_save > SAVE_SECONDS:
            _checkpoint(network, optimizer, step, saved)
            last_save = time.monotonic()
    return worst


def _resume(network: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, saved: Path) -> int:
    if not saved.exists():
        return 0
    state = torch.load(saved, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"resumed at step {state['step']}", flush=True)
    return int(state["step"])


def _checkpoint(
    network: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, step: int, saved: Path
) -> None:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    fresh = saved.with_suffix(".fresh")
    torch.save(state, fresh)
    os.replace(fresh, saved)  # noqa: PTH105 - atomic, and what it does is its name


if __name__ == "__main__":
    sys.exit(main(*(Path(argument) for argument in sys.argv[1:5])))
