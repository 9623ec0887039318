"""What restarting, deploying and taking back the app means, instance by instance. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ops.app.config import Bounds
from ops.app.state import App, AppOnHost, Instance
from ops.errors import InputError
from ops.operations.plan import Plan, Step
from ops.operations.together import batches

NO_LAST_INSTANCE = (
    "every instance is out at once: the edge answers 502 until they are back; with two or more "
    "(agent_app_instances), and --max-unavailable below that, nobody notices"
)


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        max_unavailable: Instances that are out at once.
        stage_seconds: How long the first instance with a new release is watched.
        max_error_share: Of its requests, beyond what the others fail meanwhile.
        drain_seconds: How long requests under way may take.
        ready_seconds: How long an instance may take to start.
        canary: The host whose first instance goes first; empty for the first one.
        why: In the operator's words.
    """

    max_unavailable: int = 1
    stage_seconds: float = 20.0
    max_error_share: float = 0.01
    drain_seconds: float = 330.0
    ready_seconds: float = 120.0
    canary: str = ""
    why: str = ""


def plan_restart(found: Sequence[Instance], choices: Choices, *, total: int | None = None) -> Plan:
    """Plan to restart instances, so many at once.

    Args:
        found: Which.
        choices: How.
        total: How many the fleet has; default: these are all.

    Raises:
        InputError: A choice cannot be.
    """
    check_choices(choices)
    steps = restart_steps(found, choices)
    head = f"{len(found)} instance(s) of the app, {choices.max_unavailable} at a time"
    warnings = alone_warnings(choices, total or len(found))
    return Plan("restart", "app", (head,), tuple(steps), warnings, choices.why)


def restart_steps(found: Sequence[Instance], choices: Choices) -> list[Step]:
    """Restart instances, so many at once."""
    return [
        cycle(batch, f"restart {names(batch)}", {}, {}, choices)
        for batch in batches(found, choices.max_unavailable)
    ]


def plan_deploy(
    found: Sequence[Instance],
    states: Sequence[AppOnHost],
    release: str,
    source: str,
    choices: Choices,
) -> Plan:
    """Plan to move every instance to a release: built beside, canary first, proven one by one.

    Args:
        found: All instances.
        states: Of their hosts.
        release: Its name, as the build will give it.
        source: The app's folder on the control machine.
        choices: How.

    Raises:
        InputError: A choice cannot be, or every instance runs it already.
    """
    steps = [
        Step("app.build", state.host, f"{state.host}: build {release} beside what runs",
             {"release": release, "source": source})
        for state in states
    ]  # fmt: skip
    steps.append(
        Step("app.migrate", states[0].host, "the database takes the release's additions",
             {"release": release})
    )  # fmt: skip
    steps += move_steps(found, states, {state.host: release for state in states}, choices)
    return _moving("app deploy", found, states, f"to release {release}", steps, choices)


def plan_rollback(
    found: Sequence[Instance], states: Sequence[AppOnHost], release: str, choices: Choices
) -> Plan:
    """Plan to bring every instance back to what its host ran before, or to a release that is there.

    Raises:
        InputError: A host has nothing to go back to, or runs it already.
    """
    targets = {state.host: release or state.previous for state in states}
    for state in states:
        if targets[state.host] not in state.releases:
            what = f"no release {release}" if release else "nothing to go back to"
            raise InputError(
                f"{state.host} has {what}",
                place=f"{state.host}: /opt/agent_app/releases",
                cure="--to one of: " + (", ".join(state.releases) or "(none)"),
            )
    steps = move_steps(found, states, targets, choices)
    told = ", ".join(dict.fromkeys(targets.values()))
    return _moving("app rollback", found, states, f"back to release {told}", steps, choices)


def move_steps(
    found: Sequence[Instance],
    states: Sequence[AppOnHost],
    targets: Mapping[str, str],
    choices: Choices,
) -> list[Step]:
    """Move instances to their host's release: the canary alone and watched, then the others.

    Raises:
        InputError: Nothing differs.
    """
    check_choices(choices, [state.host for state in states])
    running = {state.host: state.running for state in states}
    moving = [one for one in found if running[one.host][one.port] != targets[one.host]]
    commits = [state for state in states if state.current != targets[state.host]]
    if not moving and not commits:
        raise InputError("every instance runs that release already", cure="ops status")
    moving.sort(key=lambda one: one.host != choices.canary)
    steps = []
    for number, batch in enumerate(
        [tuple(moving[:1]), *batches(moving[1:], choices.max_unavailable)]
    ):
        # Instances of one batch go from and to the same, or they go by themselves.
        for same in _alike(batch, running, targets):
            before, to = running[same[0].host][same[0].port], targets[same[0].host]
            title = f"{names(same)} to {to}"
            steps.append(cycle(same, title, {"release": to}, {"release": before}, choices, True))
        if number == 0 and batch and choices.stage_seconds and len(found) > 1:
            steps.append(_watch(batch[0], choices))
    return steps + [_commit(state, targets[state.host]) for state in commits]


def follow_steps(
    app: App,
    model: str,
    before: Mapping[str, Any],
    wanted: Mapping[str, Any],
    choices: Choices,
) -> tuple[list[Step], list[Step]]:
    """Have the app follow a model whose bounds change: shrink before its engines, grow after them.

    Args:
        app: All of it; none makes no steps.
        model: Its name.
        before: The entry that is served.
        wanted: The entry that is to be.
        choices: How.

    Returns:
        Steps before the engines move, and steps after.
    """
    old = Bounds.of(before, revision=app.knows_revisions)
    new = Bounds.of(wanted, revision=app.knows_revisions)
    between = old.least(new)
    return (
        _bound(app.instances, model, old, between, choices),
        _bound(app.instances, model, between, new, choices),
    )


def _bound(
    found: Sequence[Instance], model: str, old: Bounds, new: Bounds, choices: Choices
) -> list[Step]:
    if old == new:
        return []
    return [
        cycle(batch, f"{names(batch)} takes {model} as of {new.told()}",
              {"model": model, "bounds": asdict(new)}, {"model": model, "bounds": asdict(old)},
              choices)
        for batch in batches(found, choices.max_unavailable)
    ]  # fmt: skip


def check_choices(choices: Choices, hosts: Sequence[str] = ()) -> None:
    """Refuse choices that cannot be.

    Raises:
        InputError: The message names the option.
    """
    if choices.max_unavailable < 1:
        raise InputError("at least one has to be out at a time", place="--max-unavailable")
    if choices.canary and choices.canary not in hosts:
        raise InputError(
            f"{choices.canary} does not run the app",
            place="--canary",
            cure="one of: " + ", ".join(hosts),
        )


def alone_warnings(choices: Choices, total: int) -> tuple[str, ...]:
    """What to know where no instance is left meanwhile."""
    return (NO_LAST_INSTANCE,) if choices.max_unavailable >= total else ()


def cycle(
    batch: Sequence[Instance],
    title: str,
    to: Mapping[str, Any],
    before: Mapping[str, Any],
    choices: Choices,
    complete: bool = False,
) -> Step:
    """One step: instances out of the edge, changed, restarted, proven, and back in."""
    return Step(
        "app.cycle",
        batch[0].host,
        title,
        {
            "instances": [asdict(instance) for instance in batch],
            "to": dict(to),
            "before": dict(before),
            "complete": complete,
            "drain_seconds": choices.drain_seconds,
            "ready_seconds": choices.ready_seconds,
        },
    )


def names(batch: Sequence[Instance]) -> str:
    """Instances for people."""
    return ", ".join(f"{one.host}:{one.port}" for one in batch)


def _alike(
    batch: Sequence[Instance],
    running: Mapping[str, Mapping[int, str]],
    targets: Mapping[str, str],
) -> list[list[Instance]]:
    groups: dict[tuple[str, str], list[Instance]] = {}
    for one in batch:
        groups.setdefault((running[one.host][one.port], targets[one.host]), []).append(one)
    return list(groups.values())


def _commit(state: AppOnHost, release: str) -> Step:
    title = f"{state.host} runs {release}, also after a reboot"
    return Step("app.commit", state.host, title, {"release": release, "previous": state.current})


def _watch(instance: Instance, choices: Choices) -> Step:
    title = f"{names([instance])} does well for {choices.stage_seconds:.0f} s"
    return Step("app.watch", instance.host, title,
                {"instance": asdict(instance), "seconds": choices.stage_seconds,
                 "max_error_share": choices.max_error_share})  # fmt: skip


def _moving(
    verb: str,
    found: Sequence[Instance],
    states: Sequence[AppOnHost],
    what: str,
    steps: Sequence[Step],
    choices: Choices,
) -> Plan:
    lines = [f"the app {what}"]
    lines += [
        f"{state.host}: {len(state.running)} instance(s), now {state.current}" for state in states
    ]
    return Plan(
        verb=verb,
        subject="app",
        summary=tuple(lines),
        steps=tuple(steps),
        warnings=alone_warnings(choices, len(found)),
        why=choices.why,
    )
