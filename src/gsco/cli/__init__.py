"""The command line: one typer app, one file per command group."""

from __future__ import annotations

import os
import sys
import warnings

__all__ = ["InterruptedByPersonError", "main"]


class InterruptedByPersonError(Exception):
    """A person stopped the work; the text says how to go on. (Typer keeps a `KeyboardInterrupt`.)"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and leave the process with its exit code.

    A mistake in what was given is one line on stderr and exit code 2; an interrupt is one line and 130.
    ``GSCO_DEBUG=1`` shows the traceback behind an error.

    Args:
        arguments: the arguments after the program's name; those of the process when None.
    """
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    from gsco.cli.app import app
    from gsco.errors import UserError

    if not sys.warnoptions:  # what libraries tell each other's authors is not for the person at the terminal
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|timm|torch)\b")
    try:
        result = app(arguments, prog_name="gsco", standalone_mode=False)
    except UserError as error:
        return _fail(str(error), error)
    except (InterruptedByPersonError, KeyboardInterrupt) as stop:
        return _fail(str(stop) or "interrupted", None, 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own: a wrong option, a missing argument
            return _fail_usage(error)
        if type(error).__name__ == "Abort":
            return _fail("aborted", None, 130)
        from gsco.disk import as_storage_error

        storage = as_storage_error(error)
        if storage is None:
            raise
        return _fail(str(storage), error)
    if result == 130:
        return _fail("interrupted", None, 130)
    return result if isinstance(result, int) else 0


def _fail(text: str, error: BaseException | None, code: int = 2) -> int:
    if error is not None and os.environ.get("GSCO_DEBUG"):
        raise error
    print(f"gsco: {' '.join(text.split())}", file=sys.stderr)
    return code


def _fail_usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "gsco"
    message = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    return _fail(f"{message}. Try `{command} --help`.", error)
