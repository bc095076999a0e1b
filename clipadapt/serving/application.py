"""The web application: its addresses, and what each answers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from torch import Tensor

from clipadapt import __version__
from clipadapt.data.tasks import unique_names
from clipadapt.errors import UserError
from clipadapt.runs.predictor import Predictor
from clipadapt.serving.answers import read_options, write_answers
from clipadapt.serving.batching import Batcher
from clipadapt.serving.images import SentImage, read_image, receive_images
from clipadapt.serving.limits import BAD_REQUEST, Limits, RefusedRequest
from clipadapt.threads import count_cores

FAULT = 500
LOG = logging.getLogger("uvicorn.error")


class Service:
    """Answers requests with a predictor, whose classes are encoded once.

    Args:
        predictor: of a finished run.
        limits: on requests and batches.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        from clipadapt.serving.metrics import Metrics

        self.predictor, self.limits, self.metrics = predictor, limits, Metrics()
        self.names = unique_names(predictor.class_names)
        self._text = predictor.class_embeddings()
        self._readers = ThreadPoolExecutor(count_cores(), "clipadapt-reader")

    @asynccontextmanager
    async def running(self, application: FastAPI) -> AsyncIterator[None]:
        """Run the batches while the server is there; requests that it took are answered before it ends."""
        self.batcher = Batcher(self._answer, self.limits, self.metrics.sizes.add)
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()
        self.batcher.close()
        self._readers.shutdown()

    async def predict(self, request: Request) -> JSONResponse:
        """Answer a request with predictions, or with one sentence on what is wrong with it."""
        began, images = time.perf_counter(), 0
        try:
            found = await self._predictions(request)
            images, response = len(found), JSONResponse({"predictions": found})
        except UserError as error:
            response = tell(str(error), error.status if isinstance(error, RefusedRequest) else BAD_REQUEST)
        except Exception:
            LOG.exception("a request could not be answered")
            response = tell("the server could not answer this: its log says why", FAULT)
        self.metrics.answered(response.status_code, images, time.perf_counter() - began)
        return response

    async def _predictions(self, request: Request) -> list[dict[str, Any]]:
        options = read_options(request.query_params.multi_items(), self.predictor)
        images = await receive_images(request, self.limits)
        with self.batcher.reserve(len(images)):
            probabilities = await self.batcher.submit(await self._read(images))
        return write_answers([image.name for image in images], probabilities, self.names, self.predictor, options)

    async def _read(self, images: Sequence[SentImage]) -> list[Tensor]:
        """Return what the predictor sees of images; they are decoded in several threads."""
        loop = asyncio.get_running_loop()
        read = (loop.run_in_executor(self._readers, read_image, one, self.predictor, self.limits) for one in images)
        return [*await asyncio.gather(*read)]

    def _answer(self, images: Sequence[Tensor]) -> Tensor:
        return self.predictor.answers_to(images, self._text)

    async def health(self) -> dict[str, Any]:
        """Return that the server answers."""
        return {"status": "ok", "queued": self.batcher.queued}

    async def show_metrics(self) -> PlainTextResponse:
        """Return the metrics in Prometheus's format."""
        return PlainTextResponse(self.metrics.text(self.batcher.queued), media_type="text/plain; version=0.0.4")

    async def about(self) -> PlainTextResponse:
        """Return a line on what this is."""
        return PlainTextResponse(
            f"clipadapt {__version__}: {len(self.names):,} classes with {self.predictor.model.clip.source['name']}; "
            "POST images to /predict; /health, /metrics and /openapi.json say more\n"
        )


def make_application(predictor: Predictor, limits: Limits) -> FastAPI:
    """Return the application; its pages load nothing from elsewhere.

    Args:
        predictor: of a finished run.
        limits: on requests and batches.
    """
    service = Service(predictor, limits)
    application = FastAPI(
        title="clipadapt", version=__version__, docs_url=None, redoc_url=None, lifespan=service.running
    )
    application.add_api_route("/predict", service.predict, methods=["POST"], openapi_extra={"requestBody": BODY})
    application.add_api_route("/health", service.health, methods=["GET"])
    application.add_api_route("/metrics", service.show_metrics, methods=["GET"], response_class=PlainTextResponse)
    application.add_api_route("/", service.about, methods=["GET"], response_class=PlainTextResponse)

    @application.exception_handler(HTTPException)
    async def tell_status(request: Request, error: HTTPException) -> JSONResponse:
        return tell(f"{request.method} {request.url.path}: {error.detail}", error.status_code)

    return application


def tell(message: str, status: int) -> JSONResponse:
    """Return one sentence as an answer."""
    return JSONResponse({"error": message}, status)


BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}}},
            }
        },
    },
}
"""The body of a request for predictions, as OpenAPI describes it."""
