"""Static files of the page: those in the folder `page`, with a policy under which only they can run."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from pipeline.serving.errors import ApiError

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}


def has(path: str) -> bool:
    """Whether a path is a file of the page."""
    return path.startswith("/page/") and path.removeprefix("/page/") in _names()


async def index(_: Request) -> Response:
    """GET /."""
    return _response("index.html")


async def file(request: Request) -> Response:
    """GET /page/NAME."""
    return _response(request.path_params["name"])


def _names() -> set[str]:
    return {path.name for path in _FOLDER.glob("*") if path.suffix in _TYPES and path.is_file()}


def _response(name: str) -> Response:
    if name not in _names():
        raise ApiError(404, "no such file of the page")
    path = _FOLDER / name
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=_HEADERS)
