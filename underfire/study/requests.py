"""Read requests and make responses: checks of the host and the body, refusals as JSON, and the headers of all pages."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from underfire.study.store import StoreError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_BODY = 4096  # the largest body of a request, in bytes
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refused(Exception):
    """The refusal of a request; the response has the HTTP status, the message and the fields of `extra`."""

    def __init__(self, status: int, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status, self.extra = status, extra


def endpoint_of(
    handler: Callable[[Request], Awaitable[Response]], hosts: set[str] | None
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: set the headers, turn refusals into JSON, and refuse host names that are not in `hosts`."""
    from starlette.requests import ClientDisconnect

    async def endpoint(request: Request) -> Response:
        try:
            _check_host(request, hosts)
            response = await handler(request)
        except Refused as refused:
            response = as_json({"error": str(refused), **refused.extra}, refused.status)
        except StoreError as error:  # such as a full disk: the same request may succeed later
            response = as_json({"error": str(error)}, 503)
        except ClientDisconnect:  # nobody receives this response
            response = as_json({"error": "the request was cut off"}, 400)
        response.headers.update(_HEADERS)
        return response

    return endpoint


def _check_host(request: Request, hosts: set[str] | None) -> None:
    """Refuse a request without exactly one valid `Host` header, or with a name that is not in `hosts`."""
    given = request.headers.getlist("host")
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise Refused(400, "the request must name one host, such as localhost:8000")
    if hosts is not None and found["name"].strip("[]").lower() not in hosts:
        raise Refused(400, "the request names another host")


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request; refuse other content types, because forms on foreign sites can send them."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "the request must be JSON")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY:
            raise Refused(413, f"a request must have at most {_BODY} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None
    if not isinstance(content, dict):
        raise Refused(400, "the request must be a JSON object")
    return content


def as_json(content: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response."""
    from starlette.responses import Response

    # ASCII, because a text that a client sent may contain surrogates, which UTF-8 cannot encode
    return Response(json.dumps(content), status_code=status, media_type="application/json")
