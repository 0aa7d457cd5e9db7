"""Serve a study: its pages, and a small JSON interface that hands out trials and takes answers.

The secret token in the link identifies an annotator. The server sends the right answer only after a practice trial, and
only the pictures of the current trial: the image, and the explanation if that trial shows one.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from underfire.errors import InputError, MissingExtra, shown
from underfire.study import words
from underfire.study.design import Study, Trial
from underfire.study.requests import Refused, as_json, endpoint_of, read_json
from underfire.study.store import Annotator, Answer, AnswerStore, NameTaken

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_STATIC = {"study.js": "text/javascript", "study.css": "text/css"}


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(
    study: Study,
    store: AnswerStore,
    *,
    host: str = "127.0.0.1",
    statement: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Starlette:
    """Return the study as a web application.

    Args:
        study: the study to serve.
        store: the store of the answers.
        host: the address that the server listens on; if it is a loopback address, requests to other host names are
            refused.
        statement: a text for the first page, such as the organiser's contact; empty lines separate its paragraphs.
        clock: returns monotonic seconds, to check the times that the browser measures.

    Raises:
        MissingExtra: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("starlette", "uvicorn") from None

    # On a loopback address, a request with another host name comes from a foreign web site (DNS rebinding).
    hosts = {"127.0.0.1", "localhost", "::1", host} if is_loopback(host) else None
    handlers = _Handlers(study, store, words.statement(statement), clock)
    pages = {
        "/": handlers.welcome,
        "/a/{token}": handlers.trials,
        "/static/{name}": handlers.static,
        "/api/{token}/next": handlers.next,
        "/picture/{token}/{trial}/{kind}": handlers.picture,
    }
    routes = [Route(path, endpoint_of(handler, hosts)) for path, handler in pages.items()]
    posts = {"/api/join": handlers.join}
    posts |= {"/api/{token}/answer": handlers.answer, "/api/{token}/withdraw": handlers.withdraw}
    for path, handler in posts.items():
        routes.append(Route(path, endpoint_of(handler, hosts), methods=["POST"]))
    return Starlette(routes=routes)


@cache
def _engine() -> Environment:
    """Return the template engine, which compiles each template once."""
    return Environment(
        loader=PackageLoader("underfire.study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


class _Handlers:
    """Answer the requests for the pages, the pictures and the JSON interface of a study."""

    def __init__(
        self, study: Study, store: AnswerStore, statement: tuple[str, ...], clock: Callable[[], float]
    ) -> None:
        self.study, self.store, self.statement, self.clock = study, store, statement, clock
        self.sent: dict[tuple[int, int], float] = {}  # when each trial was last sent, by annotator and trial
        self.plans: dict[int, tuple[Trial, ...]] = {}

    # --- pages -------------------------------------------------------------------------------------------------------

    async def welcome(self, request: Request) -> Response:
        """Return the first page, which describes the study, and takes the consent and a name."""
        about = {"practice": self.study.practice > 0, "images": self.study.shown, "breaks": self.study.shown > 20}
        return self._page("welcome.html", statement=self.statement, **about)

    async def trials(self, request: Request) -> Response:
        """Return the page that shows all trials."""
        annotator = self.store.find(request.path_params["token"])
        if annotator is None:
            return self._page("unknown.html", status=404)
        question, right = words.QUESTIONS[self.study.noticing], words.RIGHT_ANSWER[self.study.noticing]
        return self._page("trials.html", annotator=annotator, question=question, right=right)

    async def static(self, request: Request) -> Response:
        """Return the style sheet or the script."""
        from starlette.responses import Response

        name = request.path_params["name"]
        if name not in _STATIC:
            raise Refused(404, "there is no such file")
        content = files("underfire.study").joinpath("templates", name).read_text(encoding="utf-8")
        return Response(content, media_type=_STATIC[name])

    async def picture(self, request: Request) -> Response:
        """Return the image of the current trial or its explanation."""
        from starlette.responses import FileResponse

        annotator, kind = self._annotator(request), request.path_params["kind"]
        number, plan = request.path_params["trial"], self._plan(annotator)
        due = self.store.done(annotator)
        if number != str(due) or due >= len(plan) or kind not in ("image", "map"):
            raise Refused(404, "this picture does not belong to the current trial")
        if kind not in self.study.kinds(plan[due]):
            raise Refused(404, f"this trial shows no {kind}")
        return FileResponse(self.study.picture(plan[due].item, kind), media_type="image/png")

    # --- the interface -----------------------------------------------------------------------------------------------

    async def join(self, request: Request) -> Response:
        """Register a new annotator: take `{"name", "consent": true}` and return `{"name", "token"}`."""
        content = await read_json(request)
        name = content.get("name")
        if content.get("consent") is not True:
            raise Refused(400, "nobody takes part without consent: send consent true, by ticking the box on the page")
        if not isinstance(name, str):
            raise Refused(400, "send a name")
        try:
            annotator = self.store.join(name)
        except NameTaken as error:
            raise Refused(409, str(error)) from None
        except InputError as error:
            raise Refused(400, str(error)) from None
        return as_json({"name": annotator.name, "token": annotator.token})

    async def withdraw(self, request: Request) -> Response:
        """Delete an annotator with all answers, and return `{"withdrawn"}`, the number of deleted answers."""
        await read_json(request)
        annotator = self._annotator(request)
        self.sent = {key: sent for key, sent in self.sent.items() if key[0] != annotator.number}
        return as_json({"withdrawn": self.store.withdraw(annotator)})

    async def next(self, request: Request) -> Response:
        """Return the current trial."""
        return as_json(self._current(self._annotator(request)))

    async def answer(self, request: Request) -> Response:
        """Take `{"trial", "answer", "seconds", "hidden"}`, store the answer, and return the next trial.

        After a practice trial the response also contains the right answer, as `"decision"`.
        """
        received, content = self.clock(), await read_json(request)
        annotator = self._annotator(request)  # after the body has arrived, since annotators may withdraw meanwhile
        number, answer, seconds, hidden = (content.get(k) for k in ("trial", "answer", "seconds", "hidden"))
        plan, due = self._plan(annotator), self.store.done(annotator)
        if number != due or due >= len(plan):
            raise Refused(409, f"the current trial is {due}, not {shown(number)}", next=self._current(annotator))
        if type(answer) is not int or answer not in self.study.classes:
            raise Refused(
                400, f"the answer must be one of the classes {sorted(self.study.classes)}, got {shown(answer)}"
            )
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not isinstance(hidden, bool):
            raise Refused(400, "seconds must be a number, and hidden true or false")
        seconds = float(max(min(seconds, 1e9), -1.0))  # a large integer may not fit into a float
        trial, sent = plan[due], self.sent.get((annotator.number, due))
        took = None if sent is None else received - sent
        row = Answer(annotator.number, due, trial.item, trial.explained, trial.practice, answer, seconds, took, hidden)
        try:
            stored = self.store.add(row)
        except InputError as error:
            raise Refused(400, str(error)) from None
        if not stored:
            raise Refused(409, "the trial has an answer already", next=self._current(annotator))
        decision = self.study.right(trial.item)
        feedback = {"decision": self.study.name_of(decision), "right": answer == decision} if trial.practice else {}
        return as_json({**feedback, "next": self._current(annotator)})

    def _current(self, annotator: Annotator) -> dict[str, Any]:
        """Return the current trial for the page, and start the clock of that trial."""
        plan, number = self._plan(annotator), self.store.done(annotator)
        if number >= len(plan):
            code = self.store.completion_code(annotator)
            return {"done": True, "trial": number, "total": len(plan), "code": code}
        trial = plan[number]
        kinds = self.study.kinds(trial)
        self.sent[annotator.number, number] = self.clock()
        where = f"/picture/{annotator.token}/{number}"
        counted = sum(not t.practice for t in plan[: number + 1])
        return {
            "done": False,
            "trial": number,
            "total": len(plan),
            "count": "Practice" if trial.practice else f"Image {counted} of {self.study.shown}",
            "explained": trial.explained,
            "before": words.notice(self.study, trial, plan),
            "description": words.description(self.study, trial),
            "legend": words.legend(self.study, trial),
            "class": self.study.items[trial.item].shown_class,
            "image": f"{where}/image" if "image" in kinds else None,
            "map": f"{where}/map" if "map" in kinds else None,
        }

    def _plan(self, annotator: Annotator) -> tuple[Trial, ...]:
        """Return the trials of an annotator, planned once."""
        if annotator.number not in self.plans:
            self.plans[annotator.number] = self.study.plan(annotator.number)
        return self.plans[annotator.number]

    def _annotator(self, request: Request) -> Annotator:
        """Return the annotator whose token is in the path of the request; refuse unknown tokens."""
        annotator = self.store.find(request.path_params["token"])
        if annotator is None:
            raise Refused(404, "no annotator has this link; begin at the first page")
        return annotator

    def _page(self, name: str, status: int = 200, **values: Any) -> Response:
        from starlette.responses import HTMLResponse

        page = _engine().get_template(name).render(study=self.study, choices=self.study.choices, **values)
        return HTMLResponse(page, status_code=status)
