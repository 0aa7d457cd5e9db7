"""The web server of a study: the pages, and a small JSON interface that hands out trials and takes answers.

An annotator is known by the secret in the link. The model's decisions never leave the server, except for what a
practice trial tells afterwards; a picture is given only for the trial that is due, and an explanation only where the
trial shows one.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from underfire.errors import InputError, MissingExtra
from underfire.study.design import Study, Trial
from underfire.study.store import Annotator, Answer, Store, Taken

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_BODY = 4096  # bytes that a request may have
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATIC = {"study.js": "text/javascript", "study.css": "text/css"}
_TASK = "Say which class the program gives it, even where you would decide otherwise. Be quick, but be right."
_TITLES = {False: "images only", True: "images with explanations"}
_SIGHTS = {
    False: "You will see one image at a time.",
    True: "Beside each image you will see it again, with colours where it mattered for the program's decision.",
}


class _Refused(Exception):
    """A request that cannot be answered; its message goes to the page, with `extra`."""

    def __init__(self, status: int, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status, self.extra = status, extra


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(
    study: Study, store: Store, *, host: str = "127.0.0.1", clock: Callable[[], float] = time.monotonic
) -> Starlette:
    """The study as a web application.

    Args:
        study: what is shown.
        store: where the answers go.
        host: what the server listens on; a name of this machine alone refuses requests by any other name.
        clock: seconds that only grow, against which the times from the browser are held.

    Raises:
        MissingExtra: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("starlette", "study") from None

    # By any other name a request to this machine alone comes from a web site that wants to read along.
    names = {"127.0.0.1", "localhost", "::1", host} if is_loopback(host) else None
    desk = _Desk(study, store, clock)
    places = {
        "/": desk.welcome,
        "/a/{token}": desk.trials,
        "/static/{name}": desk.static,
        "/api/{token}/next": desk.next,
        "/picture/{token}/{trial:int}/{kind}": desk.picture,
    }
    routes = [Route(place, _answered(method, names)) for place, method in places.items()]
    for place, method in {"/api/join": desk.join, "/api/{token}/answer": desk.answer}.items():
        routes.append(Route(place, _answered(method, names), methods=["POST"]))
    return Starlette(routes=routes)


class _Desk:
    """Answers the requests."""

    def __init__(self, study: Study, store: Store, clock: Callable[[], float]) -> None:
        self.study, self.store, self.clock = study, store, clock
        self.sent: dict[tuple[int, int], float] = {}  # when each trial was last handed out
        self.plans: dict[int, tuple[Trial, ...]] = {}
        self.pages = Environment(
            loader=PackageLoader("underfire.study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    # --- pages -------------------------------------------------------------------------------------------------------

    async def welcome(self, request: Request) -> Response:
        """What it is about, and where to give a name."""
        return self._page("welcome.html", images=self.study.shown, breaks=self.study.shown > 20)

    async def trials(self, request: Request) -> Response:
        """The page on which the whole study happens."""
        annotator = self.store.find(request.path_params["token"])
        if annotator is None:
            return self._page("unknown.html", status=404)
        return self._page("trials.html", annotator=annotator)

    async def static(self, request: Request) -> Response:
        """The style sheet and the script."""
        from starlette.responses import Response

        name = request.path_params["name"]
        if name not in _STATIC:
            raise _Refused(404, "there is no such file")
        content = files("underfire.study").joinpath("templates", name).read_text(encoding="utf-8")
        return Response(content, media_type=_STATIC[name])

    async def picture(self, request: Request) -> Response:
        """An image or its explanation, of the trial that is due."""
        from starlette.responses import FileResponse

        annotator, kind = self._who(request), request.path_params["kind"]
        number, plan = request.path_params["trial"], self._plan(annotator)
        due = self.store.done(annotator)
        if number != due or due >= len(plan) or kind not in ("image", "map"):
            raise _Refused(404, "there is no such picture now")
        if kind == "map" and not plan[number].explained:
            raise _Refused(404, "this trial has no explanation")
        return FileResponse(self.study.picture(plan[number].item, kind), media_type="image/png")

    # --- the interface -----------------------------------------------------------------------------------------------

    async def join(self, request: Request) -> Response:
        """Take a new annotator in: `{"name"}` gives `{"name", "token"}`."""
        content = await _content(request)
        name = content.get("name")
        if not isinstance(name, str):
            raise _Refused(400, "a name is wanted")
        try:
            annotator = self.store.join(name)
        except Taken as error:
            raise _Refused(409, str(error)) from None
        except InputError as error:
            raise _Refused(400, str(error)) from None
        return _json({"name": annotator.name, "token": annotator.token})

    async def next(self, request: Request) -> Response:
        """The trial that is due."""
        return _json(self._due(self._who(request)))

    async def answer(self, request: Request) -> Response:
        """Keep an answer: `{"trial", "answer", "seconds", "hidden"}` gives the next trial, and what practice tells."""
        received = self.clock()
        annotator, content = self._who(request), await _content(request)
        number, said, seconds, hidden = (content.get(k) for k in ("trial", "answer", "seconds", "hidden"))
        plan, due = self._plan(annotator), self.store.done(annotator)
        if number != due or due >= len(plan):
            raise _Refused(409, f"trial {due + 1} is due, not {number}", next=self._due(annotator))
        if type(said) is not int or said not in self.study.classes:
            raise _Refused(400, f"the answer must be one of the classes {sorted(self.study.classes)}, got {said!r}")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not isinstance(hidden, bool):
            raise _Refused(400, "seconds must be a number, and hidden true or false")
        seconds = float(max(min(seconds, 1e9), -1.0))  # a whole number may be too large for a float
        trial, sent = plan[due], self.sent.get((annotator.number, due))
        took = None if sent is None else received - sent
        row = Answer(annotator.number, due, trial.item, trial.explained, trial.practice, said, seconds, took, hidden)
        try:
            kept = self.store.add(row)
        except InputError as error:
            raise _Refused(400, str(error)) from None
        if not kept:
            raise _Refused(409, "the trial has an answer already", next=self._due(annotator))
        said_by_model = self.study.items[trial.item].prediction
        told = {"decision": self.study.name_of(said_by_model), "right": said == said_by_model} if trial.practice else {}
        return _json({**told, "next": self._due(annotator)})

    def _due(self, annotator: Annotator) -> dict[str, Any]:
        plan, number = self._plan(annotator), self.store.done(annotator)
        if number >= len(plan):
            return {"done": True, "trial": number, "total": len(plan)}
        trial = plan[number]
        self.sent[annotator.number, number] = self.clock()
        where = f"/picture/{annotator.token}/{number}"
        counted = sum(not t.practice for t in plan[: number + 1])
        return {
            "done": False,
            "trial": number,
            "total": len(plan),
            "count": "Practice" if trial.practice else f"Image {counted} of {self.study.shown}",
            "explained": trial.explained,
            "before": self._before(trial, plan),
            "image": f"{where}/image",
            "map": f"{where}/map" if trial.explained else None,
        }

    def _before(self, trial: Trial, plan: tuple[Trial, ...]) -> dict[str, Any] | None:
        title, sight = _TITLES[trial.explained], _SIGHTS[trial.explained]
        part = "First part" if trial.explained == plan[0].explained else "Second part"
        if trial.before == "practice" or (trial.before == "block" and not self.study.practice):
            practice = ["First some practice: after each answer you are told what the program says."]
            return {"title": f"{part}: {title}", "text": [sight, _TASK, *(practice if trial.practice else [])]}
        if trial.before == "block":
            return {"title": "Practice is over", "text": ["From now on the answers count, and you are not told more."]}
        if trial.before == "break":
            return {"title": "Have a break", "text": ["Rest your eyes as long as you like: no time is measured now."]}
        return None

    def _plan(self, annotator: Annotator) -> tuple[Trial, ...]:
        if annotator.number not in self.plans:
            self.plans[annotator.number] = self.study.plan(annotator.number)
        return self.plans[annotator.number]

    def _who(self, request: Request) -> Annotator:
        annotator = self.store.find(request.path_params["token"])
        if annotator is None:
            raise _Refused(404, "nobody has this link; begin at the first page")
        return annotator

    def _page(self, name: str, status: int = 200, **values: Any) -> Response:
        from starlette.responses import HTMLResponse

        page = self.pages.get_template(name).render(choices=self.study.choices, **values)
        return HTMLResponse(page, status_code=status)


def _answered(
    method: Callable[[Request], Awaitable[Response]], names: set[str] | None
) -> Callable[[Request], Awaitable[Response]]:
    """The method with the headers of every answer, and with refusals as one line of JSON; `names` are the server's."""

    async def endpoint(request: Request) -> Response:
        try:
            if names is not None and request.url.hostname not in names:
                raise _Refused(400, "this server has another name")
            response = await method(request)
        except _Refused as refused:
            response = _json({"error": str(refused), **refused.extra}, refused.status)
        response.headers.update(_HEADERS)
        return response

    return endpoint


async def _content(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; other types of content are refused, as forms of other sites would come so."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "JSON is wanted")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY:
            raise _Refused(413, f"a request has at most {_BODY} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused(400, "the request is not JSON") from None
    if not isinstance(content, dict):
        raise _Refused(400, "a JSON object is wanted")
    return content


def _json(content: dict[str, Any], status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status_code=status)
