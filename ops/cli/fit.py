"""`ops fit`: does this model fit these GPUs, with which flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Json
from ops.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ops.fit.catalogue import Card
    from ops.fit.question import Question, Source, Wishes

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def fit(
    model: Annotated[
        str, typer.Argument(help="Name, config.json or folder; none: the inventory's models.")
    ] = "",
    gpu: Annotated[str, typer.Option("--gpu", help="Card and count: H100:2, 48GiB:4.")] = "",
    context: Annotated[
        int, typer.Option("--context", min=0, help="Tokens of the longest request.")
    ] = 0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=0, help="Such requests at once.")
    ] = 0,
    precision: Annotated[
        str, typer.Option("--precision", help="Of the weights: bf16 fp8 int8 int4 nvfp4 mxfp4.")
    ] = "",
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", help="KV cache: auto or fp8.")] = "auto",
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", min=0, help="GPUs that share each layer.")
    ] = 0,
    share: Annotated[
        float, typer.Option("--gpu-memory-utilization", help="Share of memory for vLLM.")
    ] = 0.90,
    inventory: Annotated[
        Path | None,
        typer.Option("-i", "--inventory", envvar="OPS_INVENTORY", help="Folder or file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell whether a model fits GPUs under vLLM, with which flags, and what to change.

    Exit status 0: it fits; 1: it does not; 2: the question is wrong.

    Example: ops fit Llama-3.1-70B --gpu H100:2 --context 8192 --concurrency 16
    """
    from ops.fit.catalogue import parse_gpus
    from ops.fit.question import Wishes, ask, load_source

    if not model:
        raise typer.Exit(judge_inventory(inventory, gpu, as_json))
    source = load_source(model)
    source = source.quantised(precision) if precision else source
    wishes = Wishes(context=context, concurrency=concurrency, share=share, kv_dtype=kv_dtype)
    if not gpu:
        raise typer.Exit(compare_cards(source, wishes, as_json))
    question = ask(source, *parse_gpus(gpu), wishes, tensor_parallel)
    raise typer.Exit(judge(question, as_json))


def judge(question: Question, as_json: bool) -> int:
    """Answer one question; returns the exit status."""

    from rich.console import Console

    from ops.fit.answer import describe

    if as_json:
        print_json(describe(question))
    else:
        explain(question, Console(highlight=False, soft_wrap=True))
    return 0 if question.verdict.fits else 1


def explain(question: Question, console: Console) -> None:
    """Print an answer: the sentence first, then what it is made of, then what to do."""
    from ops.fit.advice import suggest
    from ops.fit.answer import flags, headline, sentence

    style = "green" if question.verdict.fits else "red"
    console.print(headline(question), markup=False)
    console.print(sentence(question), style=style, markup=False)
    console.print()
    console.print(parts(question))
    changes = suggest(question)
    if question.verdict.fits:
        console.print("\nvllm serve " + " ".join(flags(question)), markup=False)
    elif changes:
        console.print("\nIt fits after any one of these, best first:")
        for change in changes:
            console.print(f"  - {change.text}", markup=False)
            console.print(f"    {sentence(change.question)}", markup=False)
            console.print(f"    vllm serve {' '.join(flags(change.question))}", markup=False)
    else:
        console.print("\nNo single change that we know makes it fit.")


def parts(question: Question) -> Table:
    """Draw what one GPU holds."""
    from rich.table import Table

    from ops.fit.answer import gib

    verdict, setting = question.verdict, question.setting
    wanted = max(1, setting.concurrency)
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("on each GPU")
    drawn.add_column("", justify="right")
    drawn.add_row("weights", gib(verdict.weights))
    drawn.add_row("activations", gib(verdict.activation))
    drawn.add_row("CUDA graphs", gib(verdict.graphs))
    drawn.add_row("CUDA and NCCL", gib(verdict.runtime))
    drawn.add_row(f"KV cache, {wanted} x {setting.context} tokens", gib(verdict.kv_wanted))
    drawn.add_row("spare", gib(verdict.spare))
    drawn.add_row("longest context alone", f"{verdict.largest_context} tokens")
    return drawn


def compare_cards(source: Source, wishes: Wishes, as_json: bool) -> int:
    """Show which of the usual cards hold a model, and how many of each it takes."""

    from rich.console import Console
    from rich.table import Table

    from ops.fit.answer import describe, gib
    from ops.fit.catalogue import usual_cards

    questions = [fewest(source, card, wishes) for card in usual_cards()]
    fitting = [question for question in questions if question.verdict.fits]
    if as_json:
        print_json({"cards": [describe(question) for question in questions]})
        return 0 if fitting else 1
    drawn = Table(box=None, pad_edge=False)
    for heading in ("card", "GPUs", "per GPU", "of", "requests", "longest context"):
        drawn.add_column(heading, justify="left" if heading == "card" else "right")
    for question in questions:
        verdict = question.verdict
        if not verdict.fits:
            drawn.add_row(question.card.name, "-", "", gib(verdict.budget), verdict.reason, "")
            continue
        drawn.add_row(
            question.card.name,
            str(question.gpus),
            gib(verdict.needed),
            gib(verdict.budget),
            str(verdict.requests),
            str(verdict.largest_context),
        )
    console = Console(highlight=False)
    kind = source.precision.name
    console.print(
        f"{source.title} ({source.shape.parameters / 1e9:.1f}B, {kind}), "
        f"{questions[0].setting.context} tokens: the fewest GPUs of each card",
        markup=False,
    )
    console.print(drawn)
    return 0 if fitting else 1


def fewest(source: Source, card: Card, wishes: Wishes) -> Question:
    """The question with the fewest GPUs of a card that hold a model, or with the most."""
    from ops.fit.model_fit import TENSOR_PARALLEL
    from ops.fit.question import ask

    for count in TENSOR_PARALLEL:
        question = ask(source, card, count, wishes)
        if question.verdict.fits:
            break
    return question


def judge_inventory(inventory: Path | None, gpu: str, as_json: bool) -> int:
    """Judge the models of an inventory; returns the exit status."""

    from rich.console import Console

    from ops.errors import InputError
    from ops.fit.answer import describe, sentence
    from ops.fit.catalogue import parse_gpus
    from ops.fit.fleet import placed_models
    from ops.fleet import load

    if inventory is None or not gpu:
        raise InputError(
            "neither a model nor an inventory with its card is named",
            place="ops fit",
            cure="ops fit Qwen3-8B --gpu L40S, or ops fit -i inventories/example --gpu L40S",
        )
    placed = list(placed_models(load(inventory), parse_gpus(gpu)[0]))
    if as_json:
        rows = [
            {
                "host": one.host,
                "name": one.model,
                "problem": one.problem,
                "answer": describe(one.question) if one.question else None,
            }
            for one in placed
        ]
        print_json({"models": rows})
    else:
        console = Console(highlight=False, soft_wrap=True)
        for one in placed:
            answer = sentence(one.question) if one.question else "no GPU: not judged"
            text = f"{one.host} {one.model}: {one.problem or answer}"
            console.print(text, style="" if one.well else "red", markup=False)
    return 0 if all(one.well for one in placed) else 1
