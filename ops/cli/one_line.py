"""Ends every command that fails with one line on standard error, never with a traceback.

Exit status 1 says that something failed, 2 that the command or a setting is wrong. With `ISH_LOG_LEVEL=DEBUG` the
traceback is shown as well.
"""

import asyncio
import os
import sys
import traceback
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from typer import Abort, Exit, TyperException
from typer.core import TyperGroup
from typing_extensions import override

from contracts.plain_text import plain
from contracts.service_errors import ServiceTrouble
from contracts.settings import read_settings, stop
from ops.stack.errors import StackError

Answer = TypeVar("Answer")


class OneLineGroup(TyperGroup):
    """The whole `ish` command: no exception of any of its commands gets past it."""

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Args:
            ctx: Of the command line.
        """
        _write_what_can_be_written()
        try:
            return super().invoke(ctx)
        except (Exit, Abort, TyperException):
            raise
        except BrokenPipeError:
            # the reader of our output has seen enough, such as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(1) from None
        except Exception as error:  # noqa: BLE001  # the one place where a command ends
            end(error)


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run what a command does; ends the process with one line when it fails.

    Args:
        work: The command's coroutine.
    """
    try:
        return asyncio.run(work)
    except Exception as error:  # noqa: BLE001  # the one place where a command ends
        end(error)


def end(error: Exception) -> NoReturn:
    """End the process with the line of an error.

    Args:
        error: What a command raised.
    """
    if read_settings().log_level == "DEBUG":
        traceback.print_exception(error)
    stop(line_of(error), code=1)


def line_of(error: BaseException) -> str:
    """What a person is told of an error.

    Args:
        error: What a command raised.
    """
    if isinstance(error, BaseExceptionGroup):
        return line_of(error.exceptions[0])
    if isinstance(error, ServiceTrouble | StackError | ValueError):
        return plain(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return plain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    said = plain(" ".join(str(error).split()))
    return (
        f"this is a fault of ish itself ({type(error).__name__}{': ' + said if said else ''}); ISH_LOG_LEVEL=DEBUG shows "
        "where, please report it"
    )


def _write_what_can_be_written() -> None:
    """A terminal that cannot show a character gets its number instead of the command's end."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
