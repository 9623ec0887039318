"""What moving a model means, host by host and step by step. Pure: states in, plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ops.app import plan as app_plan
from ops.app.state import NO_APP, App
from ops.errors import InputError, OpsError
from ops.models.state import ModelOnHost
from ops.operations.plan import Plan, Step

BLUE_GREEN, SWAP, AUTO = "blue-green", "swap", "auto"
STRATEGIES = (AUTO, BLUE_GREEN, SWAP)
LADDER = (1, 10, 50, 100)
MINUTE = 60.0


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        strategy: `auto`, `blue-green` or `swap`.
        ladder: Per cent of a host's requests that the new slot gets, stage by stage.
        stage_seconds: How long each stage is watched.
        keep_seconds: How long the old engine stays ready for a rollback.
        canary: The host that goes first; empty for the first one.
        suite: The eval suite that a new engine must pass, whole; `{}` for none.
        hold_seconds: How long the app holds requests on while no host serves.
        drain_seconds: How long requests under way may take.
        ready_seconds: How long an engine may load.
        max_error_share: Of the new slot's requests.
        max_slowdown: Its first byte's 95th percentile over the old one's.
        why: In the operator's words.
    """

    strategy: str = AUTO
    ladder: tuple[int, ...] = LADDER
    stage_seconds: float = 20.0
    keep_seconds: float = 30 * MINUTE
    canary: str = ""
    suite: Mapping[str, Any] = field(default_factory=dict)
    hold_seconds: float = 120.0
    drain_seconds: float = 330.0
    ready_seconds: float = 1800.0
    max_error_share: float = 0.01
    max_slowdown: float = 3.0
    why: str = ""


def plan_upgrade(
    name: str,
    states: Sequence[ModelOnHost],
    wanted: Mapping[str, Any],
    choices: Choices,
    *,
    verb: str = "model upgrade",
    partial: bool = False,
    before: Sequence[Step] = (),
    app: App = NO_APP,
) -> Plan:
    """Plan to move every given host to what is wanted.

    Args:
        name: The model's.
        states: Of its hosts.
        wanted: The entry of the inventory's `models:` that they are to serve.
        choices: How.
        verb: What the operation is called.
        partial: Only some of the model's hosts are given: the inventory is left alone.
        before: Steps that bring the weights (`ops.weights`), so that preparing finds them there.
        app: It follows where what it knows of the model changes.

    Raises:
        InputError: A choice cannot be.
        OpsError: A host cannot be moved: nothing serves there, or one is held already.
    """
    check_choices(states, choices)
    for state in states:
        if not state.active or state.held:
            raise OpsError(
                f"{state.host} "
                + ("holds requests back" if state.held else f"has no engine of {name} yet"),
                place=state.host,
                cure="ops doctor, or ops provision",
            )
    moving = ordered([s for s in states if differs(s.entry, wanted)], choices.canary)
    if not moving:
        raise InputError(f"every host serves {describe(wanted)} already", cure="ops status")
    alone = len(states) == 1 and not partial
    strategies = {s.host: choose_strategy(s, wanted, choices) for s in moving}
    shrink, grow = _follow(name, moving[0].entry, wanted, choices, NO_APP if partial else app)
    prepare = [step for s in moving for step in prepare_steps(name, s, wanted)]
    steps = [*before, *prepare, *shrink]
    for number, state in enumerate(moving):
        ladder = choices.ladder if number == 0 else (100,)
        beside = strategies[state.host] == BLUE_GREEN
        make = blue_green_steps if beside else _swap
        steps += make(name, state, wanted, replace(choices, ladder=ladder))
    steps += grow
    if not partial:
        steps.append(_write(name, wanted, moving[0].entry))
    # A swap has stopped the old one already, and on the way back there is no room for both either.
    steps += [retire_step(name, s, choices) for s in moving if strategies[s.host] == BLUE_GREEN]
    warnings = _warnings(strategies, choices, alone, partial)
    if shrink + grow:
        warnings += app_plan.alone_warnings(app_plan.Choices(), len(app.instances))
    return Plan(
        verb=verb,
        subject=name,
        summary=tuple(_summary(name, moving, wanted, strategies, choices)),
        steps=tuple(steps),
        warnings=tuple(warnings),
        why=choices.why,
    )


def plan_rollback(
    name: str,
    states: Sequence[ModelOnHost],
    choices: Choices,
    *,
    partial: bool = False,
    app: App = NO_APP,
) -> Plan:
    """Plan to bring back what each host served before.

    An engine of before that still runs takes over again, unless the operator insists on a swap.

    Raises:
        InputError: A host has nothing to go back to, or hosts would go to different things, or a
            choice cannot be.
    """
    check_choices(states, choices)
    for state in states:
        if not state.standby:
            raise InputError(
                f"{state.host} has nothing to go back to",
                place=state.host,
                cure="name a revision: ops model upgrade --to",
            )
    wanted = states[0].standby
    if any(differs(state.standby, wanted) for state in states):
        raise InputError(
            "the hosts served different things before",
            place=", ".join(f"{s.host}: {describe(s.standby)}" for s in states),
            cure="go back host by host: --limit HOST",
        )
    if choices.strategy == SWAP or not all(state.standby_runs for state in states):
        return plan_upgrade(
            name, states, wanted, choices, verb="model rollback", partial=partial, app=app
        )
    steps, grow = _follow(name, states[0].entry, wanted, choices, NO_APP if partial else app)
    for state in states:
        steps += _switch(name, state, state.other, wanted, replace(choices, ladder=(100,)))
    steps += grow
    if not partial:
        steps.append(_write(name, wanted, states[0].entry))
    steps += [retire_step(name, state, choices) for state in states]
    hosts = ", ".join(state.host for state in states)
    head = f"{name} back to {describe(wanted)} on {hosts}: the engine of before still runs"
    return Plan("model rollback", name, (head,), tuple(steps), why=choices.why)


def check_choices(states: Sequence[ModelOnHost], choices: Choices) -> None:
    """Refuse choices that cannot be.

    Raises:
        InputError: The message names the option.
    """
    if choices.strategy not in STRATEGIES:
        raise InputError(
            f"no strategy is called {choices.strategy!r}", cure="one of: " + ", ".join(STRATEGIES)
        )
    ladder = choices.ladder
    if not ladder or ladder[-1] != 100 or list(ladder) != sorted(set(ladder)) or ladder[0] < 1:
        raise InputError(
            f"{','.join(map(str, ladder))} is no ladder of shares", cure="--shift 1,10,50,100"
        )
    if choices.canary and choices.canary not in {state.host for state in states}:
        raise InputError(
            f"{choices.canary} does not serve the model",
            place="--canary",
            cure="one of: " + ", ".join(state.host for state in states),
        )


def differs(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an engine must change: by everything but where its weights came from."""
    keys = ({*entry, *wanted} if len(entry) > 1 else {"revision"}) - {"source"}
    return any(entry.get(key) != wanted.get(key) for key in keys)


def describe(entry: Mapping[str, Any]) -> str:
    """A revision, and the vLLM that it names, for people."""
    vllm = f" on vLLM {entry['vllm']}" if entry.get("vllm") else ""
    return f"revision {entry.get('revision') or '(unknown)'}{vllm}"


def choose_strategy(state: ModelOnHost, wanted: Mapping[str, Any], choices: Choices) -> str:
    """Return how a host is moved: blue-green where both fit, unless the operator says otherwise."""
    if choices.strategy != AUTO:
        return choices.strategy
    return BLUE_GREEN if state.has_room_beside(wanted) else SWAP


def ordered(states: Sequence[ModelOnHost], canary: str) -> list[ModelOnHost]:
    """The canary first, the others in the inventory's order."""
    return sorted(states, key=lambda state: state.host != canary)


def _step(kind: str, state: ModelOnHost, title: str, name: str, **values: Any) -> Step:
    return Step(kind, state.host, f"{state.host}: {title}", {"model": name, **values})


def _follow(
    name: str,
    before: Mapping[str, Any],
    wanted: Mapping[str, Any],
    choices: Choices,
    app: App,
) -> tuple[list[Step], list[Step]]:
    """Steps of the app before the engines move, and after."""
    patience = app_plan.Choices(drain_seconds=choices.drain_seconds)
    return app_plan.follow_steps(app, name, before, wanted, patience)


def prepare_steps(name: str, state: ModelOnHost, wanted: Mapping[str, Any]) -> list[Step]:
    """Weights and settings of the other slot; an engine that is kept there goes first."""
    slot = state.other
    steps = []
    if state.standby_runs:
        title = f"stop the engine of {slot}, kept from before"
        steps.append(_step("engine.clear", state, title, name, slot=slot))
    title = f"weights and settings of {slot}, {describe(wanted)}"
    return [*steps, _step("engine.prepare", state, title, name, slot=slot, entry=dict(wanted))]


def blue_green_steps(
    name: str, state: ModelOnHost, wanted: Mapping[str, Any], choices: Choices
) -> list[Step]:
    """Start the other slot beside the one that serves, judge it, and move requests to it."""
    return [
        *_start_and_judge(name, state, wanted, choices),
        *_switch(name, state, state.other, wanted, choices),
    ]


def _swap(name: str, state: ModelOnHost, wanted: Mapping[str, Any], choices: Choices) -> list[Step]:
    old, new = state.active, state.other
    return [
        _step("engine.hold", state, "hold new requests", name, slot=old),
        _step(
            "engine.stop", state, f"stop {old} when its requests have ended", name,
            slot=old, drain_seconds=choices.drain_seconds, ready_seconds=choices.ready_seconds,
        ),
        *_start_and_judge(name, state, wanted, choices),
        _step("engine.shift", state, f"all requests to {new}", name, weights={new: 100},
              before={old: 100}, watched=new, seconds=0, drain_seconds=choices.drain_seconds),
        _step("engine.release", state, "let requests in", name, slot=new),
        _commit(name, state, new, wanted),
    ]  # fmt: skip


def _start_and_judge(
    name: str, state: ModelOnHost, wanted: Mapping[str, Any], choices: Choices
) -> list[Step]:
    new = state.other
    title = f"start {new} until it answers"
    steps = [
        _step("engine.start", state, title, name, slot=new, ready_seconds=choices.ready_seconds,
              drain_seconds=choices.drain_seconds)
    ]  # fmt: skip
    if choices.suite:
        title = f"{new} passes suite {choices.suite['name']}"
        steps.append(
            _step("engine.gate", state, title, name, slot=new, suite=dict(choices.suite),
                  entry=dict(wanted), old=state.active, old_entry=dict(state.entry))
        )  # fmt: skip
    return steps


def _switch(
    name: str, state: ModelOnHost, slot: str, wanted: Mapping[str, Any], choices: Choices
) -> list[Step]:
    old, before = state.active, {state.active: 100}
    steps = []
    for share in choices.ladder:
        weights = {slot: share, old: 100 - share} if share < 100 else {slot: 100}
        steps.append(
            _step(
                "engine.shift", state, f"{share} % of requests to {slot}", name,
                weights=weights, before=before, watched=slot, against=old,
                seconds=choices.stage_seconds, drain_seconds=choices.drain_seconds,
                max_error_share=choices.max_error_share, max_slowdown=choices.max_slowdown,
            )
        )  # fmt: skip
        before = weights
    return [*steps, _commit(name, state, slot, wanted)]


def _commit(name: str, state: ModelOnHost, slot: str, wanted: Mapping[str, Any]) -> Step:
    title = f"{slot} is the one that serves, also after a reboot"
    return _step("engine.commit", state, title, name, slot=slot, entry=dict(wanted),
                 old=state.active, old_entry=dict(state.entry))  # fmt: skip


def _write(name: str, wanted: Mapping[str, Any], before: Mapping[str, Any]) -> Step:
    title = f"the inventory wants {describe(wanted)}"
    return Step("inventory.model", "", title, {"model": name, "entry": dict(wanted),
                                               "before": dict(before)})  # fmt: skip


def retire_step(name: str, state: ModelOnHost, choices: Choices) -> Step:
    """The old slot stays ready for a while, or is stopped."""
    old, keep = state.active, choices.keep_seconds
    title = f"{old} stays ready for {keep / MINUTE:.0f} min" if keep else f"{old} is stopped"
    return _step("engine.retire", state, title, name, slot=old, seconds=keep,
                 drain_seconds=choices.drain_seconds,
                 ready_seconds=choices.ready_seconds)  # fmt: skip


def _summary(
    name: str,
    moving: Sequence[ModelOnHost],
    wanted: Mapping[str, Any],
    strategies: Mapping[str, str],
    choices: Choices,
) -> list[str]:
    lines = [f"{name}: to {describe(wanted)}"]
    for state in moving:
        changes = sorted(
            f"{key} {state.entry.get(key, '(none)')} → {wanted.get(key, '(none)')}"
            for key in {*state.entry, *wanted}
            if key not in ("source", "name") and state.entry.get(key) != wanted.get(key)
        )
        lines.append(f"{state.host}: {strategies[state.host]}; {', '.join(changes)}")
    shares = " → ".join(f"{share} %" for share in choices.ladder)
    first = moving[0].host
    if strategies[first] == BLUE_GREEN:
        lines.append(f"{first} goes first: {shares}, each watched {choices.stage_seconds:.0f} s")
    return lines


def _warnings(
    strategies: Mapping[str, str],
    choices: Choices,
    alone: bool,
    partial: bool,
) -> list[str]:
    found = []
    if alone and SWAP in strategies.values():
        found.append(
            "one engine fits at a time and no other host serves: requests wait while the new one "
            f"loads, and fail after {choices.hold_seconds:.0f} s"
        )
    if not choices.suite:
        found.append("no eval suite is named: the new engine is judged by its answers' form only")
    if partial:
        found.append("other hosts stay as they are, and so does the inventory: site.yml will stop")
    return found
