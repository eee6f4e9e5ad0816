"""``/``: the console's page; ``/console/…``: the files that it loads."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from ubert_service import console

router = APIRouter(include_in_schema=False)

_FILES = StaticFiles(directory=Path(console.__file__).with_name("static"), check_dir=False)
_PAGE = "index.html"
_HEADERS = {
    # The page loads and requests from this origin only, and a review's text can inject no script or style.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Revalidated each time, and served from the browser's cache while unchanged.
    "Cache-Control": "no-cache",
}


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return await _file(_PAGE, request)


@router.get("/console/{name}")
async def file(name: str, request: Request) -> Response:
    """A style sheet, a script or an image of the page."""
    return await _file(name, request)


async def _file(name: str, request: Request) -> Response:
    response = await _FILES.get_response(name, request.scope)
    response.headers.update(_HEADERS)
    return response
