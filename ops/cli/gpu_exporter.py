"""`ops gpu-exporter`: metrics of this machine's GPUs, as its service gives them on GPU hosts."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def gpu_exporter(
    once: Annotated[bool, typer.Option("--once", help="Print the page and leave.")] = False,
    address: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 9835,
    expected: Annotated[int, typer.Option(help="GPUs that should be here; 0: those seen.")] = 0,
    dcgm: Annotated[bool, typer.Option("--dcgm", help="Show dcgm-exporter's names too.")] = False,
) -> None:
    """Serve Prometheus metrics of this machine's NVIDIA GPUs.

    On GPU hosts role gpu_exporter runs the same code as gpu_exporter.service, from an environment
    of its own. Exit status of --once: 1 where the driver does not open.

    Example: ops gpu-exporter --once
    """
    from ops.gpu_exporter.main import main

    words = ["--address", address, "--port", str(port), "--expected", str(expected)]
    words += ["--once"] * once + ["--dcgm"] * dcgm
    raise typer.Exit(main(words))
