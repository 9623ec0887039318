"""Errors as clients see them: one shape for all, documented, and the handlers that make it."""

from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from agent_app.api.services import current_correlation
from agent_app.errors import AgentAppError, InvalidRequest

log = structlog.get_logger(__name__)

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="Tell cases apart by this.")
    message: str = Field(description="For people.")
    type: str = Field(description="`server_error` or `invalid_request_error`, as OpenAI has it.")
    param: None = None
    retryable: bool = Field(description="The same request may do better a little later.")
    request_id: str = Field(description="Also in `X-Request-ID`, the log and the engine's log.")


class ErrorBody(BaseModel):
    """Body of every answer that is no success."""

    error: ErrorDetail


def make_body(code: str, message: str, *, retryable: bool, status: int) -> dict[str, Any]:
    """Return an error's body for the request under way."""
    detail = ErrorDetail(
        code=code,
        message=message,
        type="server_error" if status >= 500 else "invalid_request_error",
        retryable=retryable,
        request_id=current_correlation(),
    )
    return ErrorBody(error=detail).model_dump()


def documented(
    status: int, code: str, message: str, description: str, *, retryable: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return an error for a route's `responses`, with an example."""
    detail = ErrorDetail(
        code=code,
        message=message,
        type="server_error" if status >= 500 else "invalid_request_error",
        retryable=retryable,
        request_id="3f0c7d52a4be4b6f8d1e2c9a7b605143",
    )
    example = ErrorBody(error=detail).model_dump()
    return {
        status: {
            "model": ErrorBody,
            "description": description,
            "content": {"application/json": {"example": example}},
        }
    }


ERRORS: dict[int | str, dict[str, Any]] = {
    **documented(
        400, "invalid_request", "body.message: Field required", "The request is wrong as it stands."
    ),
    **documented(
        401, "invalid_api_key", "the API key is missing, unknown, expired or revoked", "No key."
    ),
    **documented(
        403, "insufficient_scope", "this key lacks the scope chat", "The key may not do this."
    ),
    **documented(404, "not_found", "no such thread", "It does not exist for this key."),
    **documented(
        409,
        "thread_busy",
        "the thread is busy with another request",
        "The thread is in another state: busy, or with nothing to resume.",
        retryable=True,
    ),
    **documented(413, "body_too_large", "the body is too large", "Beyond `limits.body_bytes`."),
    **documented(
        422, "limit_exceeded", "the turn used all of its 8 steps", "A bound ended the run."
    ),
    **documented(
        429,
        "rate_limit_exceeded",
        "this key's limit of 60 requests a minute is reached; try again in 1 s",
        "A limit or the budget of the key is reached; `Retry-After` says for how long.",
        retryable=True,
    ),
    **documented(
        503,
        "engine_unavailable",
        "no engine could finish the answer",
        "Something this service rests on does not answer, or it shuts down or is full.",
        retryable=True,
    ),
}
"""What any route behind a key may answer."""


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer with an error of ours."""
    assert isinstance(error, AgentAppError)
    if error.status >= 500:
        log.warning("request_failed", code=error.code, why=str(error))
    headers = {"Retry-After": "2"} if error.retryable else {}
    headers |= error.headers
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = make_body(error.code, error.message, retryable=error.retryable, status=error.status)
    return JSONResponse(body, status_code=error.status, headers=headers)


async def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Answer to a request that does not fit its schema."""
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    )
    text = problems[:1000].encode(errors="replace").decode()  # a key may be half a character
    return await answer_error(request, InvalidRequest(text))


async def answer_http(_request: Request, error: Exception) -> JSONResponse:
    """Answer with what the framework found: no such route, wrong method, body too large."""
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    body = make_body(code, str(error.detail), retryable=False, status=error.status_code)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def answer_unexpected(_request: Request, _error: Exception) -> JSONResponse:
    """Say nothing of the cause: the server logs it."""
    body = make_body("internal_error", "internal error", retryable=False, status=500)
    return JSONResponse(body, status_code=500)
