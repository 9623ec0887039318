"""The page at `/`, with its style sheet and script: nothing else is loaded, from nowhere else."""

import hashlib
import re
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent_app.errors import NotFound

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
        version: What names this content in an address; by default its own digest.
    """

    def __init__(self, content: bytes, media_type: str, version: str = "") -> None:
        self.content = content
        self.media_type = media_type
        self.version = version or _version(content)

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


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read(name: str) -> bytes:
    return (resources.files("agent_app.web") / name).read_bytes()


STYLE = Asset(_read("app.css"), "text/css")


def _scripts() -> dict[str, Asset]:
    """Return the modules by their path, each with the versions of what it imports in its text.

    All have one version, which their whole content makes: they import each other in circles.
    """
    folder = resources.files("agent_app.web") / "page"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".js"))
    texts = {"app.js": _read("app.js")} | {f"page/{name}": _read(f"page/{name}") for name in names}
    version = _version(b"".join(texts.values()))
    stamped = {
        path: re.sub(rb'(from "\./[a-z_/]+\.js)"', rb'\1?v=%s"' % version.encode(), text)
        for path, text in texts.items()
    }
    return {path: Asset(text, "text/javascript", version) for path, text in stamped.items()}


SCRIPTS = _scripts()


def _document() -> bytes:
    """Return the document with the versions of what it loads in their addresses."""
    document = _read("index.html")
    for path, asset in ((b"/app.css", STYLE), (b"/app.js", SCRIPTS["app.js"])):
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
    return SCRIPTS["app.js"].answer(request)


@router.get("/page/{name}")
async def module(name: str, request: Request) -> Response:
    """Return a module that the script imports."""
    found = SCRIPTS.get(f"page/{name}")
    if found is None:
        raise NotFound("the page has no such module")
    return found.answer(request)
