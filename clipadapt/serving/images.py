"""Images of a request: read from its body within limits, and checked before they are decoded."""

import asyncio
import base64
import binascii
import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from torch import Tensor

from clipadapt.data.images import open_checked
from clipadapt.data.inputs import UNNAMED
from clipadapt.errors import DataError
from clipadapt.paths import shorten
from clipadapt.runs.predictor import Predictor
from clipadapt.serving.limits import TIMEOUT, TOO_LARGE, WRONG_TYPE, Limits, RefusedRequest

HOW = 'send files, as in curl -F image=@photo.jpg, or JSON, as in {"images": ["base64 of a file"]}'
MEGABYTE, SECONDS = 1_000_000, 60
"""Bytes of a megabyte, and the longest time that a request's body may take."""
READ_ON = 4
"""Times the allowed size up to which a body is read to its end, since clients that still send see no answer."""


@dataclass(frozen=True)
class SentImage:
    """An image as it was sent.

    Attributes:
        name: of its file, or its number.
        content: the bytes of its file.
    """

    name: str
    content: bytes


async def receive_images(request: Request, limits: Limits) -> list[SentImage]:
    """Return the images of a request, in their order.

    Raises:
        RefusedRequest: it is too large, too slow, has too many images or none, or they can't be found in it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise RefusedRequest(f"a request of the type '{shorten(kind)}' isn't read: {HOW}", WRONG_TYPE)
    body = await _read_body(request, limits)
    found = await _from_form(request, body, limits) if kind.startswith("multipart") else _from_json(body)
    if not found:
        raise RefusedRequest(f"there are no images in the request: {HOW}")
    if len(found) > limits.max_images:
        raise _too_many(limits)
    return found


def read_image(image: SentImage, predictor: Predictor, limits: Limits) -> Tensor:
    """Return what the predictor sees of an image, which is decoded only if its header is within the limits.

    Raises:
        DataError: the image can't be read, or has too many pixels.
    """
    if predictor.framing.bands is None:  # files of many bands are no images to Pillow, and have its limit alone
        with open_checked(image.name, image.content) as (_, header):
            pixels = header.width * header.height
            if pixels > limits.max_pixels:
                raise DataError(f"it has {pixels:,} pixels, and {limits.max_pixels:,} are taken here; make it smaller")
    try:
        return predictor.read(image.content)
    except DataError as error:
        raise DataError(str(error).replace(UNNAMED, image.name)) from error


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request; of one that is too large, no more is kept than is allowed."""
    most, parts, size = limits.max_request_mb * MEGABYTE, [], 0
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed[:20]) > READ_ON * most:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    parts.append(part)
                elif size > READ_ON * most:
                    break
    except TimeoutError:
        raise RefusedRequest(f"the request took more than {SECONDS} seconds to arrive", TIMEOUT) from None
    if size > most:
        raise _too_large(limits)
    return b"".join(parts)


async def _from_form(request: Request, body: bytes, limits: Limits) -> list[SentImage]:
    """Return the files of a form."""

    async def replay() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, replay).form(max_files=limits.max_images, max_fields=8) as form:
            values = [value for _, value in form.multi_items()]
            files = [value for value in values if isinstance(value, UploadFile)]
            if len(files) < len(values):
                raise RefusedRequest(f"a field of the form is no file: {HOW}; options go into the address, as ?top=3")
            named = [(file.filename or f"image {place}", file) for place, file in enumerate(files, 1)]
            return [SentImage(shorten(name), await file.read()) for name, file in named]
    except HTTPException as error:
        if "Too many files" in error.detail:
            raise _too_many(limits) from error
        raise RefusedRequest(f"the form can't be read: {error.detail}") from error


def _from_json(body: bytes) -> list[SentImage]:
    """Return the images of a JSON object, `{"images": [base64, …]}`."""
    try:
        sent = json.loads(body)
    except RecursionError as error:
        raise RefusedRequest(f"the request's JSON has too many brackets in one another: {HOW}") from error
    except ValueError as error:
        raise RefusedRequest(f"the request is no JSON: {error}") from error
    images = sent.get("images") if isinstance(sent, dict) else None
    if not isinstance(images, list) or len(sent) != 1:
        raise RefusedRequest(f"the JSON must be an object with the key images alone: {HOW}")
    return [SentImage(f"image {place}", _decode(image, place)) for place, image in enumerate(images, 1)]


def _decode(text: object, place: int) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise RefusedRequest(f"image {place} is no base64 of a file: {HOW}")


def _too_large(limits: Limits) -> RefusedRequest:
    return RefusedRequest(f"the request is larger than {limits.max_request_mb} MB: send fewer images", TOO_LARGE)


def _too_many(limits: Limits) -> RefusedRequest:
    return RefusedRequest(f"the request has more than {limits.max_images} images: send fewer at once", TOO_LARGE)
