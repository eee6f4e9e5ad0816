"""``/``: the console's page, and ``/console/…``: what it loads."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from ubert_service import console

router = APIRouter(include_in_schema=False)

_FILES = StaticFiles(directory=Path(console.__file__).with_name("static"), check_dir=False)
_PAGE = "index.html"
_HEADERS = {
    # All that the page loads or asks comes from here, and no script or style can be smuggled in by a review's text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked for anew each time, and answered from the browser's copy where that is still the same.
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
