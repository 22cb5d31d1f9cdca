"""The server of the page: what it answers, whom it answers, and nothing else; the work is done in jobs.py.

Starlette and uvicorn, on which FastAPI is built, and not FastAPI: forms are checked by the functions that check the
command line, so models of pydantic would say the same again. Routing, static files without a way out of their folder,
ranges, HTTP itself and its limits are theirs; the standard library's server would leave those to us.

It listens on the loopback interface only. A page of another site cannot use it: Host and Origin must be its own.
"""

import json
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totalgen.app.jobs import Jobs
from totalgen.app.uploads import BLOCK, receive, unpack
from totalgen.app.work import FAMILIES, missing_translator
from totalgen.data.demographics import RANGES
from totalgen.data.files import FULL, locked
from totalgen.data.names import fault
from totalgen.data.organs import ORGANS
from totalgen.data.text_files import loads
from totalgen.errors import InputError
from totalgen.weights import load_weights

LOOPBACK = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
LARGEST_FORM = 64 * 1024  # bytes
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data: blob:; font-src data:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class OwnOrigin:
    """Answers 403 to requests that name another host or come from the page of another site, and adds HEADERS.

    port: where it is served; the Host must name it, too.
    """

    def __init__(self, app: ASGIApp, port: int):
        names = (LOOPBACK, "localhost")
        self.app, self.hosts = app, {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                studies = scope["path"].startswith("/files/")  # index.html of a cohort has a style element
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Content-Security-Policy"] = POLICY.format(styles=" 'unsafe-inline'" if studies else "")
            await send(message)

        why = self.refusal(scope["method"], Headers(scope=scope))
        answer: Any = PlainTextResponse(f"Error: {why}\n", 403) if why else self.app
        await answer(scope, receive, with_headers)

    def refusal(self, method: str, headers: Headers) -> str:
        """Why a request is not answered; "" when it is."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "the Host is not this page. Open the address that was printed."
        if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
            return "the request comes from another site. Open the address that was printed."
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and method != "GET":
            return "the request comes from another site. Open the address that was printed."
        return ""


class VisibleFiles(StaticFiles):
    """Static files, but for hidden ones: the salt of a folder is as private as what was uploaded."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        hidden = any(part.startswith(".") for part in Path(path).parts)
        return ("", None) if hidden else super().lookup_path(path)


class AsciiJSON(JSONResponse):
    """JSON with escapes for what UTF-8 has no bytes for: half a character that a form holds, or a name of a file."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Download(StreamingResponse):
    """Sends the whole of an open file, and closes it, whatever becomes of the connection."""

    def __init__(self, file: IO[bytes], name: str):
        quoted = quote(name)
        stated = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
        headers = {"content-length": str(file.seek(0, os.SEEK_END)), "content-disposition": f"attachment; {stated}"}
        self.file = file
        super().__init__(self._blocks(), headers=headers, media_type="application/zip")

    def _blocks(self) -> Iterator[bytes]:
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            yield block

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await super().__call__(scope, receive, send)


def create_app(results: Path, weights: Path, port: int) -> Starlette:
    """The application. results: folder for jobs and studies;  weights: folder of the shipped weights;  port: where it
    is served. Its state has ``jobs``."""
    jobs = Jobs(results, weights)

    @asynccontextmanager
    async def lifespan(app):
        yield
        await run_in_threadpool(jobs.close)

    async def add(request: Request) -> Response:
        form = await _form(request)
        job = await run_in_threadpool(jobs.add, form.get("kind"), form.get("values"))
        return AsciiJSON(dict(id=job.id), 201)

    async def upload(request: Request) -> Response:
        place = await receive(jobs.results / "uploads", request.query_params.get("name", ""), request.stream())
        await run_in_threadpool(unpack, place)
        return AsciiJSON(dict(upload=place.name), 201)

    def cancel(request: Request) -> Response:
        jobs.cancel(request.path_params["id"])
        return Response(status_code=204)

    def page(_: Request) -> Response:
        return FileResponse(STATIC / "page.html")

    def about(_: Request) -> Response:
        return AsciiJSON(known(jobs.weights))

    def archive(request: Request) -> Response:
        return zipped(jobs.results / "studies", **request.path_params)

    routes = [
        Route("/", page),
        Route("/api/about", about),
        Route("/api/jobs", lambda _: AsciiJSON(jobs.listed())),
        Route("/api/jobs", add, methods=["POST"]),
        Route("/api/jobs/{id}", cancel, methods=["DELETE"]),
        Route("/api/uploads", upload, methods=["POST"]),
        Route("/api/studies/{cohort}/{study}/{kind}.zip", archive),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/files", VisibleFiles(directory=jobs.results / "studies")),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={InputError: _refused, OSError: _full})
    app.state.jobs = jobs
    app.add_middleware(OwnOrigin, port=port)
    return app


def known(weights: Path) -> dict[str, Any]:
    """What the page needs to know: families with the training's ranges, organ ids, and why no CT can be translated."""
    ranges = {}
    for family in FAMILIES:
        configuration = load_weights(weights / f"demo-global-{family}.safetensors")[1]
        spans = configuration["data"].get("ranges", {})
        ranges[family] = {name: [factor * each for each in spans[name]] for name, (factor, _) in RANGES.items()
                          if name in spans}  # fmt: skip
    return dict(families=list(FAMILIES), ranges=ranges, organs=ORGANS, translator=missing_translator(weights))


def zipped(studies: Path, cohort: str, study: str, kind: str) -> Response:
    """The NIfTI or DICOM files of a study as a zip archive: a file without a name, which ends with the response or
    the server."""
    folder = studies / cohort / study
    patterns = {"nifti": "*.nii.gz", "dicom": "dicom/**/*.dcm"}
    names = fault(cohort) is None and fault(study) is None
    inside = names and folder.resolve().is_relative_to(studies.resolve()) and folder.is_dir()
    files = sorted(folder.glob(patterns[kind])) if inside and kind in patterns else []
    if not files:
        return PlainTextResponse("Error: there is nothing of this kind. Load the page again.\n", 404)
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=studies.parent))
        with zipfile.ZipFile(file, "w") as archive:
            for each in files:
                archive.write(each, Path(study) / each.relative_to(folder), zipfile.ZIP_DEFLATED)
        stack.pop_all()
    return Download(file, f"{study}-{kind}.zip")


def serve(results: Path, weights: Path, port: int, ready: Callable[[str], object]) -> None:
    """Serve until interrupted. port: 0 takes a free one;  ready: called with the address.

    Raises InputError when the port is taken, or another server works in ``results``.
    """
    with locked(results, "the page"), socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError as error:
            raise InputError(f"--port {port}: cannot be opened ({error.strerror}). Give another.") from None
        port = listener.getsockname()[1]
        app = create_app(results, weights, port)
        ready(f"http://{LOOPBACK}:{port}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
        uvicorn.Server(config).run(sockets=[listener])


async def _form(request):
    """The JSON object of a request. Raises InputError for anything else, and for more than LARGEST_FORM."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise InputError("the request is no application/json. Use the page.")
    text = b""
    async for block in request.stream():
        text += block
        if len(text) > LARGEST_FORM:
            raise InputError(f"the form is larger than {LARGEST_FORM} bytes. Shorten it.")
    try:
        found = loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError("the request is no JSON object. Use the page.")
    return found


def _refused(_: Request, error: Exception) -> Response:
    return AsciiJSON(dict(error=str(error)), 400)


def _full(request: Request, error: Exception) -> Response:
    if not (isinstance(error, OSError) and error.errno in FULL):
        raise error
    cure = "Free some space on this disk of the server, and try again."
    return _refused(request, InputError(f"{request.app.state.jobs.results}: {error.strerror}. {cure}"))
