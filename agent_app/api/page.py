"""The page at `/`, with its style sheet and script: nothing else is loaded, from nowhere else."""

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import Response

router = APIRouter(include_in_schema=False)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
FOR_EVER = "public, max-age=31536000, immutable"


class Asset:
    """A file of the page, known by its content.

    Args:
        content: Its bytes.
        media_type: What they are.
    """

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content = content
        self.media_type = media_type
        self.version = hashlib.sha256(content).hexdigest()[:16]

    def answer(self, request: Request) -> Response:
        """Return it; for ever where the address names this very content, else to be asked again."""
        asked = request.query_params.get("v")
        headers = {
            **HEADERS,
            "ETag": f'"{self.version}"',
            "Cache-Control": FOR_EVER if asked == self.version else "no-cache",
        }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def _read(name: str) -> bytes:
    return (resources.files("agent_app.web") / name).read_bytes()


STYLE = Asset(_read("app.css"), "text/css")
SCRIPT = Asset(_read("app.js"), "text/javascript")


def _document() -> bytes:
    """Return the document with the versions of what it loads in their addresses."""
    document = _read("index.html")
    for path, asset in ((b"/app.css", STYLE), (b"/app.js", SCRIPT)):
        document = document.replace(
            b'"' + path + b'"', b'"%s?v=%s"' % (path, asset.version.encode())
        )
    return document


DOCUMENT = Asset(_document(), "text/html")


@router.api_route("/", methods=["GET", "HEAD"])
async def document(request: Request) -> Response:
    """Return the page."""
    return DOCUMENT.answer(request)


@router.get("/app.css")
async def style(request: Request) -> Response:
    """Return its style sheet."""
    return STYLE.answer(request)


@router.get("/app.js")
async def script(request: Request) -> Response:
    """Return its script."""
    return SCRIPT.answer(request)
