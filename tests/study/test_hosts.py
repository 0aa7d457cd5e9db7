"""The addresses that the server is reached by: hosts that no browser would send, and the machine itself."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from underfire.study.app import is_loopback

pytestmark = pytest.mark.slow  # every test starts a server


def _raw(server: Any, text: bytes) -> bytes:
    """What the server sends for a request that no library would make."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        found = b""
        while part := line.recv(65536):
            found += part
    return found


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example@localhost",
        b"localhost:x",
        b"localhost:80:80",
        b"localhost/",
        b"localhost#",
        b"localhost ",
        b"[::1",
        b"localhost, evil.example",
        b"",
        b"\xe9localhost",
        b"localhost:1\r\nHost: evil.example",
    ],
)
def test_a_malformed_host_is_refused(server: Any, host: bytes) -> None:
    found = _raw(server, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    accepted = found.startswith(b"HTTP/1.1 200")
    assert accepted == (host == b"localhost ")  # white space at the end is not a part of the value


def test_a_request_without_a_host_is_refused(server: Any) -> None:
    assert _raw(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_loopback_is_known() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.2", "host.example")] == [
        *[True] * 3,
        *[False] * 3,
    ]
