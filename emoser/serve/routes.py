"""The endpoints: predictions, timelines, embeddings, probes, metrics and the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from emoser.inference.options import TimelineOptions
from emoser.results.prediction import Prediction
from emoser.results.transcripts.reading import parse_turns
from emoser.serve.errors import StoppingError
from emoser.serve.metrics import CONTENT_TYPE
from emoser.serve.service import Analyse, Service
from emoser.text import shorten

PAGES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
NO_FOREIGN_HOST = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"}
JSON = "application/json"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "turns": {
                            "type": "string",
                            "description": "for /v1/turns: the content of an RTTM, SRT, WebVTT, "
                            "TextGrid, EAF, CSV or JSON file; without it, each channel is a "
                            "speaker",
                        },
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
ERROR = {
    "description": "The error, with the sentence that the command line gives.",
    "content": {
        JSON: {"example": {"error": {"type": "AudioError", "message": "call.wav is empty"}}}
    },
}
CODES: tuple[int | str, ...] = (400, 401, 403, 408, 413, 422, 429, 501, 503, 504)
STATUSES: dict[int | str, dict[str, Any]] = dict.fromkeys(CODES, ERROR)
EXAMPLE = Prediction.from_scores(
    {"neutral": 0.75, "sad": 0.25}, duration=2.5, model="emoser-small", source="call.wav"
)
Channel = Annotated[str, Query(description="mix, left, right or the index of a channel, from 0")]
TimelineChannel = Annotated[str, Query(description="as for predict, or each for every channel")]
TurnsChannel = Annotated[str, Query(description="as for predict, or each: that of every turn")]
AdaptSpeakers = Annotated[
    bool,
    Query(
        description="adapt to each speaker with at least 8 turns with speech; makes answers worse "
        "for one whose turns all carry the same emotion"
    ),
]
Filename = Annotated[str, Query(description="name of a raw body, for the answer and errors")]
Vad = Annotated[Literal["energy", "silero", "none"], Query(description="voice activity detection")]


def refuse_unknown(request: Request) -> None:
    """Refuse parameters of the query that an endpoint does not take.

    Raises:
        ValueError: If there are any.
    """
    known = [item.alias for item in request.scope["route"].dependant.query_params]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise ValueError(f"{shorten(unknown)} is not a parameter; use {', '.join(known)}")


SETTINGS: dict[str, Any] = {
    "responses": STATUSES,
    "openapi_extra": BODY,
    "dependencies": [Depends(refuse_unknown)],
}
PREDICTED: dict[str, Any] = {
    **SETTINGS,
    "responses": {**STATUSES, 200: {"content": {JSON: {"example": EXAMPLE.to_dict()}}}},
}


def build_router(service: Service) -> APIRouter:
    """The endpoints of a service."""
    router = APIRouter()
    _add_answers(router, service)
    _add_timeline(router, service)
    _add_turns(router, service)
    _add_probes(router, service)
    router.add_api_route("/favicon.ico", lambda: Response(status_code=204), include_in_schema=False)
    for path, name in PAGES.items():
        router.add_api_route(path, _file(name), include_in_schema=False)
    return router


def _add_answers(router: APIRouter, service: Service) -> None:
    classifier = service.classifier

    @router.post("/v1/predict", summary="The emotion of a recording", **PREDICTED)
    async def predict(
        request: Request, channel: Channel = "mix", filename: Filename = ""
    ) -> Response:
        def analyse(file: Any) -> tuple[Mapping[str, Any], float]:
            found = classifier.predict(file, channel=parse_channel(channel))
            return found.to_dict(), found.duration

        return await _respond(service, request, analyse)

    @router.post("/v1/embed", summary="The embedding of a recording", **SETTINGS)
    async def embed(request: Request, filename: Filename = "") -> Response:
        def analyse(file: Any) -> tuple[Mapping[str, Any], float]:
            (values,) = classifier.embed([file])
            answer = {"source": file.name, "embedding": values.tolist()}
            return {**answer, "model": classifier.info.name}, 0.0

        return await _respond(service, request, analyse)


def _add_timeline(router: APIRouter, service: Service) -> None:
    @router.post("/v1/timeline", summary="The emotions of a recording over time", **SETTINGS)
    async def timeline(  # noqa: PLR0913  # each is a parameter of the query
        request: Request,
        window_seconds: float = TimelineOptions.window_seconds,
        hop_seconds: float = TimelineOptions.hop_seconds,
        smoothing: float = TimelineOptions.smoothing,
        threshold: float = TimelineOptions.threshold,
        vad: Vad = "energy",
        channel: TimelineChannel = "mix",
        filename: Filename = "",
    ) -> Response:
        def analyse(file: Any) -> tuple[Mapping[str, Any], float]:
            found = service.classifier.timeline(
                file,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
                smoothing=smoothing,
                threshold=threshold,
                vad=None if vad == "none" else vad,
                channel=parse_channel(channel),
            )
            return found.to_dict(), found.duration

        return await _respond(service, request, analyse)


def _add_turns(router: APIRouter, service: Service) -> None:
    @router.post("/v1/turns", summary="The emotion of every turn of a conversation", **SETTINGS)
    async def turns(
        request: Request,
        channel: TurnsChannel = "mix",
        adapt_speakers: AdaptSpeakers = False,
        filename: Filename = "",
    ) -> Response:
        def analyse(file: Any) -> tuple[Mapping[str, Any], float]:
            listed = None
            if file.turns is not None:
                listed = parse_turns(file.turns, name="turns", recording=file.name)
            found = service.classifier.predict_turns(
                file,
                listed,
                channel=parse_channel(channel),
                on_error="return",
                adapt_speakers=adapt_speakers,
            )
            if found.failure is not None:
                raise found.failure
            return found.to_dict(), sum(turn.duration for turn in found if turn.prediction)

        return await _respond(service, request, analyse)


async def _respond(service: Service, request: Request, analyse: Analyse) -> Response:
    body = await service.answer(request, request.url.path, analyse)
    return Response(body, media_type=JSON)


def _add_probes(router: APIRouter, service: Service) -> None:
    @router.get("/health", summary="Whether the process responds")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/ready", summary="Whether new requests are accepted", responses={503: ERROR})
    async def ready() -> JSONResponse:
        if service.jobs.stopping:
            raise StoppingError("the service is stopping; send the request to another one")
        info = service.classifier.info
        return JSONResponse(
            {
                "status": "ready",
                "model": info.name,
                "labels": list(service.classifier.labels),
                "dimensions": list(service.classifier.dimensions),
                "backend": info.backend,
                "device": info.device,
                "dtype": info.dtype,
            }
        )

    @router.get("/metrics", summary="Metrics in the text format of Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def parse_channel(text: str) -> int | str:
    """The value of `channel`, an int if it is the index of a channel.

    Example:
        >>> parse_channel("left"), parse_channel("1")
        ('left', 1)
    """
    return int(text) if text.lstrip("-").isdigit() else text


def _file(name: str) -> Any:
    path = Path(__file__).with_name(name)

    async def send() -> FileResponse:
        return FileResponse(path, headers=NO_FOREIGN_HOST)

    return send
