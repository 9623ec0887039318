"""Graders: why an answer is wrong, empty where it is right. Pure, but for the judge's question."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ops.evals.suite import Contains, Exact, Grader, JsonSchema, Judge, Regex, ToolCall

FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
SHOWN = 120
JUDGE = (
    "You judge an answer. Question asked of the model:\n{question}\n\nIts answer:\n{answer}\n\n"
    "Criterion: {criterion}\nDoes the answer meet the criterion? Say only YES or NO."
)
AskJudge = Callable[[str], str]


@dataclass(frozen=True)
class Reply:
    """What a model answered."""

    text: str
    calls: tuple[Mapping[str, Any], ...] = ()
    """Each with `name` and `arguments`, the latter as the model wrote it."""


def grade(grader: Grader, question: str, reply: Reply, ask_judge: AskJudge) -> str:
    """Return why the answer is wrong, empty where it is right."""
    match grader:
        case Exact(exact=wanted):
            right = reply.text.strip() == wanted.strip()
            return "" if right else f"not exactly {_cut(wanted)}: {_cut(reply.text)}"
        case Contains(contains=wanted_texts):
            lacks = [text for text in wanted_texts if text.lower() not in reply.text.lower()]
            return f"lacks {', '.join(lacks)}: {_cut(reply.text)}" if lacks else ""
        case Regex(regex=pattern):
            return "" if re.search(pattern, reply.text) else f"no {pattern}: {_cut(reply.text)}"
        case JsonSchema(json_schema=schema):
            return _check_schema(schema, reply.text)
        case ToolCall():
            return _check_call(grader, reply)
        case Judge(judge=criterion):
            asked = JUDGE.format(question=question, answer=reply.text, criterion=criterion)
            verdict = ask_judge(asked).strip()
            yes = verdict.upper().startswith("YES")
            return "" if yes else f"the judge says {_cut(verdict)} to: {criterion}"


def _check_schema(schema: Mapping[str, Any], text: str) -> str:
    from jsonschema import Draft202012Validator

    fenced = FENCE.search(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return f"no JSON: {_cut(text)}"
    errors = sorted(Draft202012Validator(schema).iter_errors(value), key=lambda e: e.json_path)
    return f"{errors[0].json_path}: {errors[0].message}" if errors else ""


def _check_call(grader: ToolCall, reply: Reply) -> str:
    called = ", ".join(f"{call['name']}({_cut(str(call['arguments']))})" for call in reply.calls)
    wanted = grader.tool_call
    if wanted is None:
        return f"calls {called}" if reply.calls else ""
    for call in reply.calls:
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError:
            continue
        if call["name"] == wanted.name and wanted.arguments.items() <= arguments.items():
            return ""
    return f"does not call {wanted.name}({json.dumps(wanted.arguments)}): {called or 'no call'}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
