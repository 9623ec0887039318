"""Each engine slot of a host: its settings, its weights, and whether it answers."""

from __future__ import annotations

import json
import re
import shlex
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ops.doctor.evidence.command import first, read, redact

SETTINGS = Path("/etc/engine")
FACT = Path("/etc/ansible/facts.d/engine.fact")
MANIFEST = ".manifest.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt",
              "tiktoken.model", "qwen.tiktoken", "spiece.model")  # fmt: skip
PAGE_SECONDS, TOKEN_SECONDS, APART_SECONDS = 3.0, 20.0, 3.0
# It must reach the host itself, whatever proxy root's environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def gather() -> dict[str, Any]:
    """Return the models' facts and the slots that have settings."""
    text = read(FACT)
    found: dict[str, Any] = {"fact": {}, "fact_complaint": "", "slots": []}
    if text:
        try:
            found["fact"] = json.loads(text)["models"]
        except (ValueError, KeyError, TypeError) as error:
            found["fact_complaint"] = f"{FACT}: {type(error).__name__}: {error}"
    paths = sorted(SETTINGS.glob("*.env"))
    with ThreadPoolExecutor(max_workers=max(1, len(paths))) as pool:  # one that hangs takes a while
        found["slots"] = list(pool.map(slot, paths))
    return found


def slot(path: Path) -> dict[str, Any]:
    """Return one slot, from its settings and its port."""
    text = read(path)
    model, _, name = path.stem.rpartition("-")
    words = shlex.split(first(r'^ENGINE_ARGS="?(.*?)"?$', text))
    flags = options(words)
    port = first(r"^ENGINE_PORT=(\d+)", text)
    weights = words[1] if len(words) > 1 else ""
    command = first(r"^ENGINE_COMMAND=(\S+)", text)
    return {
        "model": model,
        "slot": name,
        "unit": f"engine@{path.stem}.service",
        "settings_at": path.stat().st_mtime,
        "port": port,
        "command": command,
        "command_there": bool(command) and Path(command).exists(),
        "gpus": first(r"^CUDA_VISIBLE_DEVICES=(.*)$", text),
        "arguments": redact(" ".join(words)),
        "flags": {name: redact(value) for name, value in flags.items()},
        "weights": look_at(Path(weights)) if weights else None,
        "answers": answers(port, flags.get("served-model-name") or model) if port else None,
    }


def options(words: list[str]) -> dict[str, str]:
    """Return `--name value` and `--name=value` as a mapping."""
    found = {}
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = words[place + 1] if place + 1 < len(words) else ""
            found[name] = value if equals else "" if following.startswith("--") else following
    return found


def look_at(folder: Path) -> dict[str, Any]:
    """Compare a revision's files with its manifest, by name and size: no reading of terabytes."""
    found: dict[str, Any] = {
        "path": str(folder),
        "there": folder.is_dir(),
        "manifest": False,
        "size": 0,
        "missing": [],
        "wrong_size": [],
        "tokenizer": any((folder / name).exists() for name in TOKENIZERS),
    }
    try:
        files = json.loads(read(folder / MANIFEST))["files"]
        found.update(manifest=True, size=sum(entry["size"] for entry in files.values()))
    except (ValueError, KeyError, TypeError):
        return found
    for name, entry in sorted(files.items()):
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError:
            found["missing"].append(name)
            continue
        if size != entry["size"]:
            found["wrong_size"].append(f"{name}: {size} bytes, {entry['size']} in the manifest")
    return found


def answers(port: str, model: str) -> dict[str, Any] | None:
    """Return how an engine answers: its health, a token, and whether tokens come.

    None where nothing listens.
    """
    base = f"http://127.0.0.1:{port}"
    status, _ = page(f"{base}/health")
    if status < 0:
        return None
    found: dict[str, Any] = {"health": status}
    before = counts(page(f"{base}/metrics")[1])
    if before["running"]:  # it works: another token would only wait behind the others
        time.sleep(APART_SECONDS)
        after = counts(page(f"{base}/metrics")[1])
        return {**found, **after, "tokens_apart": after["tokens"] - before["tokens"]}
    body = json.dumps({"model": model, "prompt": "ping", "max_tokens": 1}).encode()
    began = time.monotonic()
    status, text = page(f"{base}/v1/completions", body, TOKEN_SECONDS)
    seconds = time.monotonic() - began
    return {**found, **before, "token": status, "said": redact(text[:500]), "seconds": seconds}


def page(address: str, body: bytes | None = None, seconds: float = PAGE_SECONDS) -> tuple[int, str]:
    """Return status and text; 0 where no answer came in time, -1 where nobody listens."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, body, headers)  # noqa: S310 - http, this host
    try:
        with OPENER.open(request, timeout=seconds) as answer:
            return int(answer.status), answer.read(1 << 20).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return int(error.code), error.read(4000).decode(errors="replace")
    except ConnectionRefusedError as error:
        return -1, str(error)
    except urllib.error.URLError as error:
        return (-1 if isinstance(error.reason, ConnectionRefusedError) else 0), str(error.reason)
    except (OSError, ValueError) as error:
        return 0, str(error)


def counts(text: str) -> dict[str, float]:
    """Read requests and tokens from vLLM's metrics, summed over its engine cores."""

    def total(name: str) -> float:
        return sum(float(v) for v in re.findall(rf"^vllm:{name}(?:\{{.*\}})? (\S+)$", text, re.M))

    return {
        "running": total("num_requests_running"),
        "waiting": total("num_requests_waiting"),
        "tokens": total("prompt_tokens_total") + total("generation_tokens_total"),
    }
