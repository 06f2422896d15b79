"""POST /v1/images/generations and /v1/images/edits, and the pictures that are fetched."""

from __future__ import annotations

import re

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_contract.wire import PICTURES_HEADER, PICTURES_PATH
from pippin_edge import json_body, multipart
from pippin_edge.errors import BadRequest, NotFound
from pippin_edge.multipart import Form

from ..answering import Kitchen
from ..engines.media import Painter
from ..media.pictures import Picture, Unreadable, picture
from ..openai import forms, images
from ..openai.images import EditRequest, Files, Wish, tokens
from ..picturing import Commission, PictureAnswer
from ..shelf import Shelf
from .reading import Desk

#: Pictures that one is made from, and pixels of each: as many as cameras have.
MAX_SOURCES, MAX_PIXELS = 16, 50_000_000
_BASE = re.compile(r"https?://[\w.:\[\]-]{1,255}/[\w./-]{0,512}")


def router(desk: Desk, kitchen: Kitchen, engine: Painter, shelf: Shelf) -> APIRouter:
    routes = APIRouter()

    def answer(request: Request, wish: Wish, files: Files) -> Response:
        desk.check_model(wish.model)
        kitchen.refuse_unless_ready()
        below = _below(request) if wish.response_format == "url" else None
        request_id = request.scope["state"]["request_id"]
        size = wish.wanted(engine.canvas, files)
        commission = Commission(wish, files, size, below, request_id)
        return PictureAnswer(kitchen, engine, shelf, commission)

    @routes.post("/v1/images/generations")
    async def generate(request: Request) -> Response:
        wish = images.read(json_body.parse(await desk.raw_body(request)))
        return answer(request, wish, Files())

    @routes.post("/v1/images/edits")
    async def edit(request: Request) -> Response:
        form = await multipart.read(request.scope, request.receive)
        wish = forms.read(EditRequest, form)
        return answer(request, wish, _files(form))

    return routes


def pictures(shelf: Shelf) -> APIRouter:
    """Those that are fetched."""
    routes = APIRouter()

    @routes.get(PICTURES_PATH + "{name}")
    async def fetch(request: Request, name: str) -> Response:
        # Who knows the name may have the picture: it is no word for logs.
        request.scope["state"].setdefault("log", {})["path"] = PICTURES_PATH
        found = shelf.get(name)
        if found is None:
            raise NotFound("there is no such picture, or not any more: they are kept for an hour")
        headers = {
            "cache-control": f"private, max-age={found[1]}",
            "x-content-type-options": "nosniff",
        }
        return Response(found[0], media_type="image/png", headers=headers)

    return routes


def _below(request: Request) -> str:
    """Where the client finds pictures: as the gateway says, else at this server."""
    told = request.headers.get(PICTURES_HEADER, "")
    return told if _BASE.fullmatch(told) else str(request.base_url) + PICTURES_PATH[1:]


def _files(form: Form) -> Files:
    """Raises BadRequest."""
    sources, masks = forms.files(form, "image"), forms.files(form, "mask")
    if not sources:
        raise BadRequest("'image' must be given, as a file", param="image")
    if len(sources) > MAX_SOURCES:
        raise BadRequest(f"'image' is there {len(sources)} times: send at most 16", param="image")
    if len(masks) > 1:
        raise BadRequest("'mask' is there twice: send one file", param="mask")
    found = [_picture("image", source) for source in sources]
    first = found[0]
    if masks and _picture("mask", masks[0]) != Picture("png", first.width, first.height):
        raise BadRequest(
            f"'mask' must be a png of the image's size, {first.width}x{first.height}",
            param="mask",
            code="invalid_file",
        )
    return Files(
        sources=tuple(sources),
        mask=masks[0] if masks else None,
        tokens=sum(tokens(one.width, one.height) for one in found),
        size=(first.width, first.height),
    )


def _picture(name: str, content: bytes) -> Picture:
    try:
        found = picture(content)
    except Unreadable as error:
        raise BadRequest(f"'{name}' {error}", param=name, code="invalid_file") from error
    if found.width * found.height > MAX_PIXELS:
        raise BadRequest(
            f"'{name}' is {found.width}x{found.height}: send at most {MAX_PIXELS} pixels",
            param=name,
            code="invalid_file",
        )
    return found
