"""Draws a look at the fleet for a terminal, wide or narrow. Pure: nothing here asks a host."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ops.live.operation import OperationView
from ops.live.rates import History, Rates
from ops.live.state import EXPIRES_SOON_DAYS, FAILED, FULL, INACTIVE, Fill, HostState, Slot
from ops.live.watch import Look
from ops.live.words import clock, known, number, percent, seconds, span, whole

WIDE = 110
"""Columns from which on there is room for what a narrow terminal leaves out."""
BAR_COLUMNS = 24
REVISION_LETTERS = 12
GIB = 1 << 30
HOT_C = 85
BAD, WARN, GOOD, QUIET = "bold red", "yellow", "green", "dim"


def overview(look: Look, width: int) -> Group:
    """What `ops status` prints."""
    return _stacked(
        operation_part(look.operation, look.at),
        hosts_part(look, width),
        models_part(look),
        gpus_part(look),
        attention_part(look),
    )


def live_view(look: Look, history: History, width: int, head: str = "") -> Group:
    """What `ops top` shows: what moves first, what stands still last."""
    return _stacked(
        Text(head, style=QUIET, no_wrap=True, overflow="ellipsis") if head else None,
        operation_part(look.operation, look.at, bar=True),
        attention_part(look),
        traffic_part(look, history, width),
        app_part(look, history),
        hosts_part(look, width, history),
        gpus_part(look),
    )


class Cropped:
    """A picture cut to the terminal's height, that says so.

    Args:
        inner: The picture.
    """

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.max_height
        lines = console.render_lines(self._inner, options.update(height=None), pad=False)
        kept = lines if len(lines) <= height else lines[: height - 1]
        for place, line in enumerate(kept):
            if place:
                yield Segment.line()
            yield from line
        if len(kept) < len(lines):
            hidden = f"… {len(lines) - len(kept)} more lines: a taller terminal, or --once"
            yield Segment.line()
            yield Text(hidden, style=WARN, no_wrap=True, overflow="ellipsis", end="")


def operation_part(
    operation: OperationView | None, now: float, *, bar: bool = False
) -> RenderableType | None:
    """The operation that is running or was left unfinished, by whom, since when, how far."""
    if operation is None:
        return None
    running = operation.status == "running"
    head = Text.assemble(
        ("operation ", QUIET), (f"{operation.verb} {operation.subject}".strip(), "bold")
    )
    if not running:
        words = {"unfinished": "left unfinished", "stuck": "not brought back"}
        head.append(f"  {words.get(operation.status, operation.status)}", style=BAD)
    elif operation.back:
        head.append("  bringing back", style=WARN)
    head.append(f"  step {operation.step} of {operation.steps}" if operation.steps else "")
    head.append(f": {operation.title}" if operation.title else "")
    about = Text(f"  {operation.by}", style=QUIET)
    if operation.began is not None:
        about.append(f" since {clock(operation.began)} UTC ({span(now - operation.began)})")
    about.append(f": {operation.why}" if operation.why else "")
    name = Table.grid(padding=(0, 1))
    name.add_row(" ", Text(operation.id, style=QUIET, no_wrap=True, overflow="ellipsis"))
    if bar and operation.steps:
        style = WARN if operation.back else GOOD
        done = ProgressBar(operation.steps, operation.done, width=BAR_COLUMNS, complete_style=style)
        name = Table.grid(padding=(0, 1))
        name.add_row(" ", done, Text(operation.id, style=QUIET, no_wrap=True, overflow="ellipsis"))
    lines: list[RenderableType] = [head, about, name]
    if operation.failure:
        lines.append(Text(f"  {operation.failure.splitlines()[0]}", style=BAD))
    if not running:
        lines.append(Text("  ops resume goes on, ops abort brings everything back", style=WARN))
    return Group(*lines)


def hosts_part(look: Look, width: int, history: History | None = None) -> RenderableType:
    """A row per host; one that does not answer too."""
    wide = width >= WIDE
    paths = [path for path in ("/", "/srv") if any(path in state.disks for state in look.hosts)]
    certificates = any(state.certificate_days is not None for state in look.hosts)
    drawn = _table("host")
    if wide:
        drawn.add_column("address", no_wrap=True)
    grouped = wide or history is None
    if grouped:
        drawn.add_column("groups", overflow="fold")
    for heading in ("state", "load", "memory", *paths, *(["cert"] if certificates else [])):
        drawn.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for state in look.hosts:
        name = Text(state.host, style="bold")
        if not wide and history is None:
            name.append(f"\n{state.address}", style=QUIET)
        cells: list[RenderableType] = [name]
        cells += [state.address] if wide else []
        cells += [Text(" ".join(state.groups), style=QUIET)] if grouped else []
        cells.append(condition(state, history))
        if not state.problem:
            cells += [_load(state), _fill(state.memory)]
            cells += [_share(state.disks.get(path)) for path in paths]
            cells += [_certificate(state.certificate_days)] if certificates else []
        drawn.add_row(*cells)
    return drawn


def condition(state: HostState, history: History | None = None) -> Text:
    """A host in a word; what is wrong in many is told below."""
    if state.problem:
        return Text("no answer", style=BAD)
    if state.unwell:
        return Text(f"{len(state.unwell)} not well", style=BAD)
    refused = history.refused_per_second(state.host) if history else None
    beside = f", {refused:.1f} refused/s" if refused else ""
    if state.drained:
        return Text(f"drained{beside}", style=WARN)
    held = [name for name, model in state.models.items() if model.held]
    if held:
        return Text(f"{' '.join(held)} held{beside}", style=WARN)
    return Text(f"{len(state.units)} units well", style=GOOD)


def models_part(look: Look) -> RenderableType | None:
    """A row per slot that is something: what serves, and what is kept."""
    drawn = _table("model", "host", "slot", "revision", "vLLM")
    drawn.add_column("share", justify="right", no_wrap=True)
    drawn.add_column("", overflow="fold")
    for name, state, slot, serves in _slots(look):
        drawn.add_row(
            name,
            state.host,
            _slot(slot, serves),
            _revision(slot),
            slot.environment or "-",
            f"{slot.share} %",
            _part_and_state(slot, serves),
        )
    return drawn if drawn.row_count else None


def traffic_part(look: Look, history: History, width: int) -> RenderableType | None:
    """A row per slot: its share, and how it does."""
    wide = width >= WIDE
    drawn = _table("model", "host", "slot", tight=not wide)
    first_token = "ttft p95" if wide else "p95"
    for heading in ("share", "req/s", "run", "wait", "tok/s", first_token, "err"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    if wide:
        for heading in ("prompt/s", "cache"):
            drawn.add_column(heading, justify="right", no_wrap=True)
    drawn.add_column("revision", no_wrap=True)
    if wide:
        drawn.add_column("")
    for name, state, slot, serves in _slots(look):
        found = history.slot(state.host, name, slot.name)
        cells: list[RenderableType] = [name, state.host, _slot(slot, serves), f"{slot.share} %"]
        cells += _figures(slot, found)
        if wide:
            cells += [number(found.prompt_tokens_per_second), percent(found.kv_cache)]
        cells.append(_revision(slot))
        cells += [_part(slot, serves)] if wide else []
        drawn.add_row(*cells)
    return drawn if drawn.row_count else None


def _figures(slot: Slot, found: Rates) -> list[RenderableType]:
    silent = slot.state == "active" and slot.counts is not None and not slot.counts.answers
    word = Text("silent", style=BAD) if silent else _word(slot)
    return [
        number(found.requests_per_second),
        word if silent or slot.state != "active" else whole(found.running),
        Text(whole(found.waiting), style=WARN if found.waiting else ""),
        number(found.tokens_per_second),
        seconds(found.first_token_p95_seconds),
        Text(percent(found.error_share, 1), style=BAD if found.error_share else ""),
    ]


def app_part(look: Look, history: History) -> RenderableType | None:
    """A row per instance of the agent app."""
    drawn = _table("app", "instance", "state")
    for heading in ("runs", "queued", "req/s", "err"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for state in look.hosts:
        for one in state.instances:
            found = history.instance(state.host, one.port)
            silent = one.counts is not None and not one.counts.answers
            word = "silent" if silent and one.state == "active" else one.state
            drawn.add_row(
                state.host,
                one.port,
                Text(word, style=GOOD if word == "active" else BAD),
                whole(found.in_flight),
                Text(whole(found.queued), style=WARN if found.queued else ""),
                number(found.requests_per_second),
                Text(percent(found.error_share, 1), style=BAD if found.error_share else ""),
            )
    return drawn if drawn.row_count else None


def gpus_part(look: Look) -> RenderableType | None:
    """A row per GPU."""
    drawn = _table("gpu", "")
    drawn.add_column("name", overflow="fold")
    for heading in ("memory", "", "temp", "busy"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for state in look.hosts:
        for gpu in state.gpus:
            used, total = gpu.memory_used_mib, gpu.memory_total_mib
            memory = Fill((used or 0) << 20, (total or 0) << 20)
            hot = gpu.temperature_c is not None and gpu.temperature_c >= HOT_C
            drawn.add_row(
                state.host,
                str(gpu.index),
                gpu.name,
                _fill(memory, warn=False) if used is not None and total else "-",
                percent(memory.share) if used is not None and total else "-",
                Text(known(gpu.temperature_c, "°C"), style=BAD if hot else ""),
                known(gpu.utilization_percent, "%"),
            )
    return drawn if drawn.row_count else None


def attention_part(look: Look) -> RenderableType | None:
    """What a person should look at, a line each."""
    found = [(state.host, words, style) for state in look.hosts for words, style in _matters(state)]
    if not found:
        return None
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(overflow="fold")
    for host, words, style in found:
        drawn.add_row(host, Text(words, style=style))
    return drawn


def _matters(state: HostState) -> Iterable[tuple[str, str]]:
    if state.problem:
        yield state.problem.removeprefix(f"{state.host} "), BAD
    for unit, now in state.unwell.items():
        yield f"{unit} is {now}", BAD
    for words in state.complaints:
        yield words, BAD
    if state.drained:
        yield f"drained: {state.drained}", WARN
    for name, model in state.models.items():
        if model.held:
            yield f"{name} is held: {model.held}", WARN
    for path, fill in state.disks.items():
        if fill.share >= FULL:
            yield f"{path} is {percent(fill.share)} full", WARN
    if state.certificate_days is not None and state.certificate_days < EXPIRES_SOON_DAYS:
        over = state.certificate_days < 0
        ends = "has expired" if over else f"ends in {state.certificate_days:.0f} days"
        yield f"the certificate {ends}", BAD if over else WARN


def _slots(look: Look) -> Iterable[tuple[str, HostState, Slot, bool]]:
    """Slots worth a row, by model and host, the one that serves first."""
    names = {name: None for state in look.hosts for name in state.models}
    for name in names:
        for state in look.hosts:
            model = state.models.get(name)
            if model is None:
                continue
            ranked = sorted(model.slots.values(), key=lambda slot: slot.name != model.active)
            for slot in ranked:
                serves = slot.name == model.active
                if serves or slot.share or slot.state != "inactive" or slot.revision:
                    yield name, state, slot, serves


def _slot(slot: Slot, serves: bool) -> Text:
    colours = {"blue": "bright_blue", "green": "bright_green"}
    mark = "●" if slot.state == "active" else "○"
    return Text(f"{mark} {slot.name}", style=f"bold {colours[slot.name]}" if serves else "")


def _word(slot: Slot) -> Text:
    """A slot's unit in a word."""
    if slot.state == FAILED:
        return Text("failed", style=BAD)
    words = {"activating": "starting", "deactivating": "stopping", INACTIVE: "stopped"}
    return Text(words.get(slot.state, slot.state), style=WARN if slot.share else QUIET)


def _part(slot: Slot, serves: bool) -> str:
    """What a slot is there for, and until when."""
    if serves:
        return "active"
    until = slot.kept_until if slot.state == "active" else None
    kept = f" until {clock(until)[:5]} UTC" if until is not None else ""
    return ("taking over" if slot.share else "standby") + kept


def _part_and_state(slot: Slot, serves: bool) -> Text:
    """The same, and in which state where that is not the usual one."""
    found = Text(_part(slot, serves))
    return found if slot.state == "active" else found.append(", ").append_text(_word(slot))


def _revision(slot: Slot) -> str:
    """As much of a commit as tells it from others."""
    return slot.revision[:REVISION_LETTERS] or "-"


def _table(*headings: str, tight: bool = False) -> Table:
    gap = (0, 1, 0, 0) if tight else (0, 1)
    drawn = Table(box=None, pad_edge=False, header_style=QUIET, padding=gap)
    for heading in headings:
        # Names give way where there is no room; figures never.
        drawn.add_column(heading, no_wrap=heading not in ("model", "host"), overflow="fold")
    return drawn


def _stacked(*parts: RenderableType | None) -> Group:
    """One below the other, with a line between them."""
    shown = [part for part in parts if part is not None]
    lines: list[RenderableType] = []
    for place, part in enumerate(shown):
        lines += [Text(""), part] if place else [part]
    return Group(*lines)


def _load(state: HostState) -> Text:
    busy = state.load > 2 * max(1, state.processors)
    return Text(f"{state.load:.1f}/{state.processors}", style=WARN if busy else "")


def _fill(fill: Fill, *, warn: bool = True) -> Text:
    style = WARN if warn and fill.share >= FULL else ""
    return Text(f"{fill.used / GIB:.1f}/{fill.total / GIB:.0f} GiB", style=style)


def _share(fill: Fill | None) -> Text:
    if fill is None:
        return Text("-")
    return Text(percent(fill.share), style=WARN if fill.share >= FULL else "")


def _certificate(days: float | None) -> Text:
    if days is None:
        return Text("-")
    style = BAD if days < 0 else WARN if days < EXPIRES_SOON_DAYS else ""
    return Text(f"{days:.0f} d", style=style)
