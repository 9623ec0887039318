#!/usr/bin/env python3
"""Take a picture of a command that draws on a terminal: its last whole frame, as SVG.

The command runs on a terminal of its own, of the given size, and is ended with `q`. The picture in
docs/operate.md is of a lab under load, while an operation moves its engine:

    python scripts/picture.py --columns 80 --seconds 20 docs/pictures/ops-top.svg ops top
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

HOME = "\x1b[H"
"""What a program that draws on a whole screen begins each frame with."""
KEPT = re.compile(r"\x1b\[[0-9;]*m")
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")
LAST_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Record and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20.0, help="until it is taken")
    parser.add_argument("--title", default="", help="default: the command")
    parser.add_argument("out", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    said = record(chosen.command, chosen.columns, chosen.lines, chosen.seconds)
    title = chosen.title or " ".join(chosen.command)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(drawn(last_frame(said), chosen.columns, title), encoding="utf-8")
    return 0


def record(command: list[str], columns: int, lines: int, length: float) -> str:
    """Run a command on a terminal of its own; return what it wrote there until `q` was pressed."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    variables |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=its_end, env=variables
    ) as process:
        os.close(its_end)
        said = read(terminal, length)
        os.write(terminal, b"q")
        read(terminal, LAST_SECONDS)
        process.terminate()  # for a command that knows no `q`
    os.close(terminal)
    return said


def read(terminal: int, length: float) -> str:
    """Read for so many seconds, or until the command has ended."""
    end = time.monotonic() + length
    said = b""
    while (left := end - time.monotonic()) > 0:
        if not select.select([terminal], [], [], left)[0]:
            break
        try:
            said += os.read(terminal, 1 << 16)
        except OSError:  # how Linux tells that nobody holds the other end any more
            break
    return said.decode(errors="replace")


def last_frame(said: str) -> str:
    """Return the last frame that was followed by another, so whole, with its colours alone."""
    frames = said.split(HOME)
    frame = frames[-2] if len(frames) > 2 else frames[-1]
    return ESCAPE.sub(lambda found: found[0] if KEPT.fullmatch(found[0]) else "", frame)


def drawn(frame: str, columns: int, title: str) -> str:
    """Draw a frame as SVG, in the reader's own fixed-width font: a picture fetches nothing."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    for line in frame.replace("\r", "").rstrip().split("\n"):
        console.print(Text.from_ansi(line), no_wrap=True, crop=False, soft_wrap=True)
    svg = console.export_svg(title=title, theme=MONOKAI, unique_id="picture")
    svg = re.sub(r"@font-face {.*?}\n", "", svg, flags=re.DOTALL).replace("Fira Code, ", "")
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
