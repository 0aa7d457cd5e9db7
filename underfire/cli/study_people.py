"""`underfire study serve` and `withdraw`: let people take part in a study, and delete the answers of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from underfire.cli.flags import Quiet
from underfire.cli.shared import ERR, OUT
from underfire.errors import InputError, MissingExtra, nearest, shown

Folder = Annotated[Path, typer.Argument(help="The folder of a prepared study.")]
_LONGEST = 20_000  # characters of a statement


def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 admits other machines.")] = "127.0.0.1",
    statement: Annotated[
        Path | None,
        typer.Option(help="A text file for the first page, before consent: who runs the study, whom to contact."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0: a free one.")] = 8000,
    quiet: Quiet = False,
) -> None:
    """Serve a study to the browsers of annotators until Ctrl-C; every answer is stored at once."""
    import errno
    import os
    import socket

    from underfire.study.app import application, is_loopback
    from underfire.study.design import read_study
    from underfire.study.store import AnswerStore

    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("uvicorn", "starlette") from None
    if not host:  # Python would listen on all addresses
        raise InputError("--host is empty; give an address such as 127.0.0.1, or 0.0.0.0 for all")
    study, text = read_study(folder), _read_statement(statement)
    study.check_pictures()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address to the system's message; an unknown host name has no such message.
        unknown = error.errno is None or isinstance(error, socket.gaierror)
        reason = error.strerror if unknown else os.strerror(error.errno or 0)
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise InputError(f"cannot listen on {host} port {port}: {reason}; choose another with {other}") from None
    with listening:
        store = AnswerStore(folder)
        app = application(study, store, host=host, statement=text)
        place = f"[{host}]" if ":" in host else host
        if not quiet:
            OUT.print(f"http://{place}:{listening.getsockname()[1]}/")
            reach = "" if is_loopback(host) else "; every machine that can reach this one can take part"
            ERR.print(f"Press Ctrl-C to stop. Every answer is stored in {store.path}{reach}")
        try:
            config = uvicorn.Config(app, log_level="error", access_log=False, ws="none", lifespan="off")
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            count = len(store.answers())
            store.close()
    if not quiet:
        ERR.print(f"stopped with {count} answers; next: underfire study report {folder}")


def withdraw(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The name of the annotator, as in the report.")],
    quiet: Quiet = False,
) -> None:
    """Delete an annotator who withdraws, with all answers; annotators can also do so on the pages of the study."""
    from underfire.study.design import read_study
    from underfire.study.store import FILE, AnswerStore

    read_study(folder)
    if not (folder / FILE).exists():
        raise InputError(f"the study has no annotators yet; serve it with: underfire study serve {folder}")
    store = AnswerStore(folder)
    try:
        found = {annotator.name: annotator for annotator in store.annotators()}
        if name not in found:
            raise InputError(f"the study has no annotator {shown(name)}; {nearest(name, list(found))}")
        count = store.withdraw(found[name])
    finally:
        store.close()
    if not quiet:
        ERR.print(f"{name} has withdrawn: the name and {count} {'answer' if count == 1 else 'answers'} are deleted")


def _read_statement(file: Path | None) -> str:
    """Return the text of a file; raise InputError if it cannot be read, is no text, is empty, or too long."""
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"cannot read --statement {file}: {error.strerror}; it must be a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"--statement must be a text file in UTF-8, and {file} is not") from None
    if not 0 < len(text) <= _LONGEST:
        raise InputError(f"--statement must have 1 to {_LONGEST} characters, and {file} has {len(text)}")
    return text
