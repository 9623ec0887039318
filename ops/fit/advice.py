"""What to change when a model does not fit; each change is checked by the same formula."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ops.fit.catalogue import usual_cards
from ops.fit.model_fit import fewest_gpus, longest
from ops.fit.question import Question

FEW_SEQUENCES = 64
LARGE_SHARE = 0.95
"""As far as one engine alone on a GPU can go: a display or a second slot needs the rest."""
SHORTEST_CONTEXT = 1024
CONTEXT_STEP = 256


@dataclass(frozen=True)
class Suggestion:
    """A change after which the model fits."""

    text: str
    question: Question


def suggest(question: Question) -> list[Suggestion]:
    """Changes that make a model fit, best first; empty when it fits or nothing helps.

    What costs neither quality nor money comes first, then what asks less of the engine, then what
    costs money, then what costs quality: a smaller batch, more of the memory, FP8 cache, FP8
    weights, fewer requests, a shorter context, more GPUs, a larger card, four-bit weights.
    """
    if question.verdict.fits:
        return []
    return [change for change in changes(question) if change.question.verdict.fits]


def changes(question: Question) -> Iterator[Suggestion]:
    """Every change worth a look, whether it helps or not."""
    if not question.setting.concurrency and question.setting.sequences > FEW_SEQUENCES:
        smaller = replace(question.setting, max_num_seqs=FEW_SEQUENCES)
        yield Suggestion(
            f"batch {FEW_SEQUENCES} requests at most, not {question.setting.sequences}",
            replace(question, setting=smaller),
        )
    if question.setting.share < LARGE_SHARE:
        yield Suggestion(
            f"give vLLM {LARGE_SHARE:.0%} of the memory, if nothing else is on the GPU",
            replace(question, setting=replace(question.setting, share=LARGE_SHARE)),
        )
    if question.card.caches_fp8 and question.setting.kv_bytes > 1:
        yield Suggestion(
            "hold the KV cache in FP8",
            replace(question, setting=replace(question.setting, kv_bytes=1)),
        )
    yield from other_weights(question, "fp8")
    yield from lesser_demands(question)
    yield from other_hardware(question)
    yield from other_weights(question, "int4")


def other_weights(question: Question, name: str) -> Iterator[Suggestion]:
    """Weights of fewer bits, where the card runs them and the model is not smaller already."""
    source = question.source.quantised(name)
    if source.precision.weight < question.source.precision.weight and question.card.runs(name):
        kind = {"fp8": "FP8", "int4": "four bits (an AWQ or GPTQ checkpoint)"}[name]
        yield Suggestion(f"hold the weights in {kind}", replace(question, source=source))


def lesser_demands(question: Question) -> Iterator[Suggestion]:
    """Fewer requests at once, or shorter ones."""
    setting, verdict = question.setting, question.verdict
    if setting.concurrency > verdict.requests > 0:
        fewer = replace(setting, concurrency=verdict.requests)
        yield Suggestion(
            f"ask for {verdict.requests} of the {setting.concurrency} requests at once",
            replace(question, setting=fewer),
        )
    room = verdict.kv_room // max(1, setting.concurrency)
    tokens = longest(question.source.shape, setting, room) // CONTEXT_STEP * CONTEXT_STEP
    if SHORTEST_CONTEXT <= tokens < setting.context:
        yield Suggestion(
            f"shorten the context to {tokens} tokens, from {setting.context}",
            replace(question, setting=replace(setting, context=tokens)),
        )


def other_hardware(question: Question) -> Iterator[Suggestion]:
    """More GPUs of the same kind, or as many of the smallest kind that holds the model."""
    source = question.source
    count = fewest_gpus(source.shape, source.precision, question.setting, source.weights_bytes)
    if count > question.gpus:
        hosts = " over two hosts" if count > 8 else ""
        yield Suggestion(
            f"use {count} x {question.card.name}{hosts}", question.on(question.card, count)
        )
    for card in usual_cards():
        other = question.on(card, question.gpus)
        if (
            card.memory > question.card.memory
            and card.runs(source.precision.name)
            and other.verdict.fits
        ):
            yield Suggestion(f"use {question.gpus} x {card.name}", other)
            return
