"""The interface of the server: what it gives, what it keeps to itself, and what it refuses."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from underfire.errors import MissingExtra
from underfire.figures.overlay import colour_bar
from underfire.study import words
from underfire.study.app import application
from underfire.study.design import Trial

pytestmark = pytest.mark.slow  # one of the twenty heaviest files


@pytest.fixture
def token(server: Any) -> str:
    return str(json.loads(server.ask("POST", "/api/join", {"name": "Ada", "consent": True}))["token"])


def refused(server: Any, method: str, path: str, content: Any = None, **headers: str) -> tuple[int, str]:
    status, found, _ = server.request(method, path, content, headers)
    error = json.loads(found)["error"]
    assert status >= 400 and "\n" not in error
    return status, error


def given(**changes: Any) -> dict[str, Any]:
    return {"trial": 0, "answer": 5, "seconds": 1.5, "hidden": False, **changes}


def test_pages_load_nothing_from_elsewhere(server: Any, token: str) -> None:
    for path in ("/", f"/a/{token}", "/static/study.js", "/static/study.css"):
        status, content, headers = server.request("GET", path)
        assert status == 200
        assert b"http://" not in content and b"https://" not in content
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"


def test_a_name_is_escaped(server: Any) -> None:
    found = json.loads(server.ask("POST", "/api/join", {"name": "<script>alert('x')</script>", "consent": True}))
    page = server.ask("GET", f"/a/{found['token']}").decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_an_answer_is_kept_with_both_times(server: Any, token: str, clock: Any) -> None:
    due = json.loads(server.ask("GET", f"/api/{token}/next"))
    assert due["count"] == "Practice" and due["before"]["title"].startswith("First part: ")
    clock.wait(2.5)
    reply = json.loads(server.ask("POST", f"/api/{token}/answer", given()))
    trial = server.study.plan(0)[0]
    prediction = server.study.items[trial.item].prediction
    assert reply["decision"] == server.study.name_of(prediction) and reply["right"] is (prediction == 5)
    (kept,) = server.store.answers()
    assert (kept.item, kept.answer, kept.seconds, kept.server_seconds) == (trial.item, 5, 1.5, 2.5)
    assert reply["next"]["trial"] == 1


def test_the_models_decision_is_told_in_practice_only(server: Any, token: str) -> None:
    plan, told = server.study.plan(0), []
    for number in range(len(plan)):
        reply = json.loads(server.ask("POST", f"/api/{token}/answer", given(trial=number)))
        told.append("decision" in reply)
    assert told == [trial.practice for trial in plan]
    (annotator,) = server.store.annotators()
    assert reply["next"] == {"done": True, "trial": 12, "total": 12, "code": annotator.code}
    assert len(annotator.code) == 9 and json.loads(server.ask("GET", f"/api/{token}/next")) == reply["next"]
    assert refused(server, "POST", f"/api/{token}/answer", given(trial=12))[0] == 409


def test_a_picture_is_given_for_the_due_trial_only(server: Any, token: str) -> None:
    plan = server.study.plan(0)
    assert not plan[0].explained
    picture = server.ask("GET", f"/picture/{token}/0/image")
    assert picture == server.study.picture(plan[0].item, "image").read_bytes()
    for path in (f"{token}/1/image", f"{token}/0/map", f"{token}/0/study.json", "nobody/0/image", f"{token}/99/image"):
        assert refused(server, "GET", f"/picture/{path}")[0] == 404


def test_explanations_are_given_where_they_are_shown(server: Any) -> None:
    server.ask("POST", "/api/join", {"name": "Ada", "consent": True})
    token = json.loads(server.ask("POST", "/api/join", {"name": "Grace", "consent": True}))[
        "token"
    ]  # the second begins with them
    due = json.loads(server.ask("GET", f"/api/{token}/next"))
    assert due["explained"] and server.ask("GET", due["map"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../design.py",
        "/static/%2e%2e%2fdesign.py",
        "/static/results.html",
        "/picture/x/..%2f..%2fstudy.json/image",
        "/study.json",
        "/answers.sqlite",
    ],
)
def test_no_other_file_is_given(server: Any, path: str) -> None:
    assert server.request("GET", path)[0] == 404


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"answer": 3}, 400, "the answer must be one of the classes [2, 5, 6, 9], got 3"),
        ({"answer": "5"}, 400, "got '5'"),
        ({"answer": True}, 400, "got True"),
        ({"answer": [5]}, 400, "got [5]"),
        ({"seconds": 0}, 400, "seconds must be positive"),
        ({"seconds": -3.0}, 400, "seconds must be positive"),
        ({"seconds": float("nan")}, 400, "seconds must be positive"),
        ({"seconds": float("inf")}, 400, "seconds must be positive"),
        ({"seconds": 10**400}, 400, "seconds must be positive"),
        ({"seconds": "1"}, 400, "seconds must be a number"),
        ({"seconds": True}, 400, "seconds must be a number"),
        ({"hidden": 0}, 400, "hidden true or false"),
        ({"trial": 1}, 409, "current trial is 0, not 1"),
        ({"trial": None}, 409, "current trial is 0, not None"),
        ({"trial": "\ud800"}, 409, r"current trial is 0, not '\ud800'"),
        ({"trial": 10**3900}, 409, "not a whole number of 3901 digits"),
        ({"answer": "\ud800"}, 400, r"got '\ud800'"),
        ({"answer": 10**3900}, 400, "got a whole number of 3901 digits"),
        ({"answer": [[[[5] * 9] * 9] * 9]}, 400, "got [[[[5, 5"),
    ],
)
def test_a_wrong_answer_is_refused(server: Any, token: str, changes: Any, status: int, says: str) -> None:
    found = refused(server, "POST", f"/api/{token}/answer", given(**changes))
    assert found[0] == status and says in found[1]
    assert server.store.answers() == []


def test_an_answer_that_comes_twice_gives_the_trial_that_is_due(server: Any, token: str) -> None:
    server.ask("POST", f"/api/{token}/answer", given())
    status, found, _ = server.request("POST", f"/api/{token}/answer", given(answer=9))
    assert status == 409 and json.loads(found)["next"]["trial"] == 1
    assert [a.answer for a in server.store.answers()] == [5]


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        ({"name": 3, "consent": True}, 400, "name"),
        ({"name": "", "consent": True}, 400, "1 to 40"),
        ({"name": "Ada", "consent": True}, 409, "somebody already takes part as 'Ada'"),
        ({"name": "Eve"}, 400, "consent"),
        ({"name": "Eve", "consent": 1}, 400, "consent"),
        ([], 400, "JSON object"),
        (b"{", 400, "not JSON"),
        (b"x" * 5000, 413, "at most 4096 bytes"),
    ],
)
def test_a_wrong_name_is_refused(server: Any, token: str, content: Any, status: int, says: str) -> None:
    found = refused(server, "POST", "/api/join", content)
    assert found[0] == status and says in found[1]
    assert len(server.store.annotators()) == 1


def test_a_withdrawal_deletes_the_annotator_and_frees_the_place(server: Any, token: str) -> None:
    server.ask("POST", f"/api/{token}/answer", given())
    assert json.loads(server.ask("POST", f"/api/{token}/withdraw", {})) == {"withdrawn": 1}
    assert server.store.answers() == server.store.annotators() == [] and server.store.withdrawals() == 1
    for method, path, content in (("GET", "next", None), ("POST", "answer", given()), ("POST", "withdraw", {})):
        assert refused(server, method, f"/api/{token}/{path}", content)[0] == 404
    server.ask("POST", "/api/join", {"name": "Ada", "consent": True})
    assert [a.number for a in server.store.annotators()] == [0]


def test_the_legend_follows_the_map(server: Any, token: str) -> None:
    study = server.study
    for signed, ends in ((True, "against the decision"), (False, "not important"), (None, None)):
        items = tuple(replace(item, signed=signed) for item in study.items)
        found = words.legend(replace(study, items=items), Trial(0, True, False))
        assert (found and found["low"]) == ends
    assert words.legend(study, Trial(0, False, False)) is None
    assert json.loads(server.ask("GET", f"/api/{token}/next"))["legend"] is None


def test_the_colours_of_the_legend_are_those_of_the_maps(server: Any) -> None:
    style = server.ask("GET", "/static/study.css").decode()
    for rule, signed in (("#scale {", False), ("#scale.signed {", True)):
        stops = re.findall("#([0-9a-f]{6})", style[style.index(rule) :].split("}")[0])
        colours = colour_bar(signed)[:, 0, [round(i * 255 / 8) for i in range(9)]].T
        assert [tuple(bytes.fromhex(stop)) for stop in stops] == [
            tuple(c) for c in (colours * 255).round().int().tolist()
        ]


def test_the_statement_stands_before_the_consent(made: Callable[..., Any], serve: Callable[..., Any]) -> None:
    page = serve(made(n=4), statement="Ask <ada@example.org>.\n\nApproved.").ask("GET", "/").decode()
    assert (
        page.index("<p>Ask &lt;ada@example.org&gt;.</p>") < page.index("<p>Approved.</p>") < page.index('id="consent"')
    )


def test_other_sites_cannot_ask(server: Any) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert refused(server, "POST", "/api/join", b"name=Eve", **form)[0] == 415
    assert refused(server, "GET", "/", Host="evil.example")[0] == 400
    assert server.request("GET", "/", headers={"Host": f"localhost:{server.port}"})[0] == 200
    assert server.store.annotators() == []


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "0x0", "%ED%A0%80", "00"])
def test_a_trial_that_is_no_number_has_no_picture(server: Any, token: str, number: str) -> None:
    assert refused(server, "GET", f"/picture/{token}/{number}/image")[0] == 404
    assert refused(server, "GET", f"/api/{number}/next")[0] == 404


def test_a_client_that_hangs_up_leaves_no_traceback(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    head = (
        b"POST /api/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(head + b'{"name"')
    server.ask("GET", "/")  # the server answers others
    time.sleep(0.2)
    assert caplog.records == []
    assert server.store.annotators() == []


def test_a_store_that_cannot_be_used_is_said(server: Any, token: str) -> None:
    with closing(sqlite3.connect(server.store.path)) as database:
        database.execute("DROP TRIGGER answers_of_annotators_are_kept")
        database.execute("DROP TABLE answers")
    status, error = refused(server, "GET", f"/api/{token}/next")
    assert status == 503
    assert "no such table" in error


def test_practice_is_promised_only_if_there_is_some(made: Callable[..., Any], serve: Callable[..., Any]) -> None:
    pages = [serve(made(n=8, practice=n, folder=f"s{n}")).ask("GET", "/").decode() for n in (4, 0)]
    assert ["practice" in page for page in pages] == [True, False]


def test_an_unknown_link_says_so(server: Any) -> None:
    status, page, _ = server.request("GET", "/a/nobody")
    assert status == 404 and b"This link is unknown" in page
    assert refused(server, "GET", "/api/nobody/next")[0] == 404
    assert refused(server, "POST", "/api/nobody/answer", given())[0] == 404


def test_without_the_extra_it_is_said(made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(MissingExtra, match="pip install starlette uvicorn"):
        application(made(), None)  # type: ignore[arg-type]
