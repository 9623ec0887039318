"""`stand-in-engine serve MODEL_DIR …`, with the flags of `vllm serve`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from stand_in_engine import faults, script
from stand_in_engine.app import Service, make_app
from stand_in_engine.engine import Engine, Pace
from stand_in_engine.metrics import Metrics
from stand_in_engine.server import serve

VALUELESS = "flags of vLLM that mean nothing here are ignored, each with a line on stderr"


def parser() -> argparse.ArgumentParser:
    """The command line; every setting that vLLM lacks also comes from the environment."""
    top = argparse.ArgumentParser(prog="stand-in-engine", description=__doc__)
    command = top.add_subparsers(required=True).add_parser("serve", epilog=VALUELESS)
    command.add_argument("model", help="folder of the model; it must exist, nothing is read")
    command.add_argument("--served-model-name", default="")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--max-model-len", type=int, default=8192)
    command.add_argument("--max-num-seqs", type=int, default=128)
    command.add_argument("--shutdown-timeout", type=float, default=0.0)
    environment = os.environ.get
    command.add_argument(
        "--script", default=environment("STAND_IN_SCRIPT"), help="answers, in YAML"
    )
    command.add_argument(
        "--dialogues", default=environment("STAND_IN_DIALOGUES"), help="the demo model's dialogues"
    )
    command.add_argument(
        "--first-token-ms", type=float, default=float(environment("STAND_IN_FIRST_TOKEN_MS", "20"))
    )
    command.add_argument(
        "--tokens-per-second",
        type=float,
        default=float(environment("STAND_IN_TOKENS_PER_SECOND", "100")),
    )
    command.add_argument(
        "--faults", default=environment("STAND_IN_FAULTS", ""), help=faults.__doc__
    )
    command.add_argument(
        "--faults-file",
        default=environment("STAND_IN_FAULTS_FILE"),
        help="read again whenever it changes; it takes the place of --faults while it exists",
    )
    return top


def main(arguments: list[str] | None = None) -> None:
    """Run the engine until it is told to end; exits 2 where the command line is wrong."""
    top = parser()
    given, ignored = top.parse_known_args(arguments)
    if ignored:
        print(f"stand-in engine: ignored: {' '.join(ignored)}", file=sys.stderr, flush=True)
    if not Path(given.model).is_dir():
        top.error(f"no model at {given.model}; stage it, or name another folder")
    try:
        initial = faults.parse(given.faults)
        rules = script.read_script(Path(given.script)) if given.script else []
        rules += script.read_dialogues(Path(given.dialogues)) if given.dialogues else []
    except (faults.UnknownFaultError, OSError, KeyError) as error:
        top.error(str(error))
    trouble = faults.Faults(initial, Path(given.faults_file) if given.faults_file else None)
    trouble.at_load()
    asyncio.run(_run(given, trouble, rules))


async def _run(given: argparse.Namespace, trouble: faults.Faults, rules: list[script.Rule]) -> None:
    name = given.served_model_name or given.model
    engine = Engine(
        Metrics(name, given.max_model_len),
        trouble,
        Pace(given.first_token_ms / 1000, given.tokens_per_second),
        slots=given.max_num_seqs,
        cache_tokens=given.max_num_seqs * given.max_model_len,
    )
    service = Service(
        engine, rules, name, given.model, given.max_model_len, started=int(time.time())
    )
    await serve(
        make_app(service),
        engine,
        host=given.host,
        port=given.port,
        timeout=given.shutdown_timeout,
        keep_alive=int(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
    )
