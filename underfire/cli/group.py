"""Define the group of all verbs, which reports an expected error in one line and by an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from copy import copy
from typing import Any

import typer
from typer.core import TyperGroup

from underfire.cli.codes import BAD_INPUT, CLOSED, INTERRUPTED, NOT_BELIEVED
from underfire.cli.shared import ERR, cut, one_line, reserve_stdout
from underfire.errors import OracleError, UnderfireError
from underfire.files import is_full

_HOW_TO_RESUME = {
    "audit": "; run the same command again and it continues",
    "train": "; run the same command again with --resume and it continues",
}
_UsageError: Any = typer.BadParameter.__base__  # typer does not export it, and its module depends on the version


class Group(TyperGroup):
    """A group of verbs that keeps stdout for results while a verb runs."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb; only `OUT` and `print_json` print to stdout, everything else that it prints goes to stderr."""
        command: Any = copy(super().get_command(ctx, cmd_name))
        if command is not None and not isinstance(command, TyperGroup):
            command.invoke = reserve_stdout()(command.invoke)
        return command


class Verbs(Group):
    """A group of verbs that reports an expected error in one line and by an exit code.

    Any other exception is a bug and keeps its traceback.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the verb."""
        empty = not args
        try:
            return list(super().parse_args(ctx, args))
        except _UsageError as error:
            if empty:  # the help is shown
                raise
            raise _refusal(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Run a verb and handle its errors."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED) from None
        except _UsageError as error:
            raise _refusal(error) from None
        except (UnderfireError, OSError) as error:
            _trace(ctx)
            ERR.print(f"error: {one_line(error)}")
            unfinished = isinstance(error, OracleError) or is_full(error)
            raise typer.Exit(NOT_BELIEVED if unfinished else BAD_INPUT) from None
        except SystemExit as end:  # a model, its factory or a plugin called sys.exit
            _trace(ctx)
            ERR.print(f"error: code outside underfire ended the program, with sys.exit({end.code!r})")
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt as error:
            ERR.print(f"{str(error) or 'interrupted'}{_HOW_TO_RESUME.get(ctx.invoked_subcommand, '')}")
            raise typer.Exit(INTERRUPTED) from None


def _refusal(error: Any) -> typer.Exit:
    """Print a wrong use of the command line in one line, and return the exit."""
    where = error.ctx.command_path if error.ctx else "underfire"
    message = cut(" ".join(error.format_message().split()))
    ERR.print(f"error: {message}{'' if message[-1:] in '.?)' else '.'} See: {where} --help", markup=False)
    return typer.Exit(BAD_INPUT)


def _trace(ctx: Any) -> None:
    """Print the traceback of the current exception if --debug is given."""
    if ctx.params.get("debug"):
        ERR.print(traceback.format_exc(), end="")
