"""Every operation of the OpenAPI document shows an example of what goes in and what comes out."""

from typing import Any

import pytest

from agent_app.api.app import make_api

DOCUMENT: dict[str, Any] = make_api().openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]


OPERATIONS = [
    pytest.param(operation, id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def has_example(media: dict[str, Any]) -> bool:
    schema = media.get("schema", {})
    options = [schema, *schema.get("anyOf", ())]
    named = [SCHEMAS[o["$ref"].rsplit("/")[-1]] for o in options if "$ref" in o]
    return "example" in media or "examples" in media or any("examples" in s for s in named)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_has_examples(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    bodies = operation.get("requestBody", {}).get("content", {})
    done = next(status for status in operation["responses"] if status.startswith("2"))
    answers = operation["responses"][done]["content"]
    for kind, media in {**bodies, **answers}.items():
        assert has_example(media), kind


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_error_is_the_documented_body(operation: dict[str, Any]) -> None:
    if "security" not in operation:
        return
    errors = {status: a for status, a in operation["responses"].items() if status[0] in "45"}
    assert {"400", "401", "403", "429", "503"} <= set(errors)
    for status, answer in errors.items():
        media = answer["content"]["application/json"]
        assert media["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, status
        assert media["example"]["error"]["code"]


def test_the_frameworks_own_error_is_nowhere() -> None:
    assert "ValidationError" not in str(DOCUMENT)
