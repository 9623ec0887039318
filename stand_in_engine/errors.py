"""vLLM's error objects."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
ENGINE_DIED = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class ApiError(Exception):
    """An answer that is not 200.

    Args:
        status: HTTP status, also the object's `code`.
        message: As vLLM words it.
        kind: The object's `type`.
        param: The field at fault, where there is one.
    """

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": param, "code": status}
        }


def bad_value(message: str, param: str | None, value: object = None) -> ApiError:
    """A field that parses but may not have that value."""
    if param is not None:
        given = "" if value is None else f", value={value}"
        message = f"{message} (parameter={param}{given})"
    return ApiError(400, message, "BadRequestError", param)


def unknown_model(asked: str, served: str) -> ApiError:
    """Another model's name."""
    message = f"The model `{asked}` does not exist. Valid aliases: {served}."
    return ApiError(404, message, "NotFoundError", "model")


def internal(message: str) -> ApiError:
    """The engine failed, or goes down."""
    return ApiError(500, message, "InternalServerError")


def invalid_body(errors: list[Any]) -> ApiError:
    """A body that does not parse, with each error as vLLM lists it."""
    lines = []
    for error in errors:
        given = error.get("input")
        shown = f"<dict of {len(given)} items>" if isinstance(given, dict) else given
        told = {
            "type": error["type"],
            "loc": ".".join(str(part) for part in ("body", *error["loc"])),
            "msg": error["msg"],
            "input": shown,
        }
        lines.append(f"  {told}")
    count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''}:"
    param = ".".join(str(part) for part in ("body", *errors[0]["loc"]))
    return ApiError(400, "\n".join([count, *lines]), "Bad Request", param)


def from_validation(error: ValidationError) -> ApiError:
    """The same, from what pydantic found."""
    return invalid_body([dict(one) for one in error.errors(include_url=False)])
