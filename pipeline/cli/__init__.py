"""The command line: one file per command; each parses, calls one function of `api`, prints.

Results go to stdout, progress and warnings to stderr. This file stays light: `promptmill --help` loads no more than
click and the commands' own option lists.
"""

import atexit
import contextlib
import errno
import gc
import importlib
import io
import os
import pkgutil
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from pipeline.errors import PAUSED, RunPaused, UserError, did_you_mean
from pipeline.text import printable_lines

ORDER = (
    "run",
    "estimate",
    "check",
    "status",
    "stop",
    "results",
    "errors",
    "retry",
    "spend",
    "prices",
    "reconcile",
    "sql",
)
"""How `--help` lists them: as one meets them. Commands not named here follow in alphabetical order."""
_UNWRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EBADF, errno.EAGAIN, errno.ENXIO,
    errno.ESTALE, errno.ECONNRESET,
)  # fmt: skip
"""What a standard output that can't be written says; anything else came from somewhere else."""
COLLECT_AFTER_OBJECTS = 100_000


class _NobodyReads(Exception):
    """Whoever read our standard output has left: click would make an exit code of 1 of that."""


@contextlib.contextmanager
def _readers_may_leave() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _NobodyReads from error


class Commands(click.Group):
    """Finds commands by listing this folder, and imports the one that is asked for."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments; `--help` prints here."""
        with _readers_may_leave():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _readers_may_leave():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the commands' names: the modules here whose names don't start with `_`."""
        found = {m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")}
        return [name for name in ORDER if name in found] + sorted(found.difference(ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command for a typo."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            hint = did_you_mean(args[0], self.list_commands(ctx)) or "; `promptmill --help` lists the commands"
            raise click.UsageError(f"there is no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="promptmill", prog_name="promptmill")
def group() -> None:
    """Run a prompt over every row of a dataset, and book every token in one DuckDB file.

    Start with `promptmill check JOB`, then `promptmill run JOB`. Exit codes: 0 every row ended well, 1 internal error,
    2 a mistake found before anything was sent, 3 finished but some rows did not end well, 4 paused (the same command
    goes on), 130 second Ctrl-C.
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line and exit with one of the codes that `--help` lists."""
    _cope_with_any_terminal()
    if sys.platform == "win32":
        _complain("Windows is not supported: it lacks the file locks that keep two runs apart; WSL works")
        sys.exit(2)
    # Rows and requests are trees: looking for cycles after every 700 new objects takes a tenth of a scan's time.
    gc.set_threshold(COLLECT_AFTER_OBJECTS)
    # Where Python ends it looks for them again and again, among everything that was ever imported: a sixth of the
    # processor time of a short command, for a process that gives all its memory back anyway.
    atexit.register(gc.freeze)
    secrets: list[str] = []  # the commands put in what must never be printed
    try:
        code = group.main(args=args, prog_name="promptmill", standalone_mode=False, obj=secrets)
    except UserError as error:
        _complain(str(error))
        sys.exit(2)
    except RunPaused as error:  # before a run has begun, so there is no report of it
        _complain(f"paused: {error}. The same command goes on from here.")
        sys.exit(PAUSED)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(printable_lines(shown.getvalue()), err=True, nl=False)
        sys.exit(2)
    except click.Abort:
        _complain("interrupted")
        sys.exit(130)
    except _NobodyReads:
        # `| head` closed our stdout: end quietly, and keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        sys.exit(_tell(error, secrets))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 -- the outermost edge: a bug (or a panic below Python)
        _show_bug(error, secrets)
        sys.exit(1)
    _leave(code if isinstance(code, int) else 0)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        click.echo(f"promptmill: {printable_lines(text)}", err=True)


def _has_lost_its_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 -- it is the same call, and what it raises is all that is wanted
    except OSError:
        return True
    return False


def _tell(error: OSError, secrets: list[str]) -> int:
    """Say what the system does not do for us; return the exit code."""
    if _has_lost_its_folder():
        _complain("the folder where this command runs has been removed; `cd` to one that is there")
        return 2
    if error.filename is not None:
        _complain(f"{error.filename}: {error.strerror or error}")
    elif error.errno in _UNWRITABLE:  # e.g. stdout is a full disk; what was asked for may be done all the same
        _complain(f"the output can't be written: {error.strerror or error}")
    else:
        _show_bug(error, secrets)
    return 1


def _cope_with_any_terminal() -> None:
    """Write what the terminal has no letter for as an escape, instead of ending with an error.

    A closed stdin, stdout or stderr becomes one that leads nowhere: else a file that we open would get its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _show_bug(error: BaseException, secrets: list[str]) -> None:
    """Print a traceback as Python does, but without keys and without what a terminal would obey."""
    import traceback

    from pipeline.providers import hide

    text = hide("".join(traceback.format_exception(error)), secrets)
    click.echo(printable_lines(text), err=True, nl=False)


def _leave(code: int) -> NoReturn:
    """Exit. A scan that a stopped run left behind is not waited for, nor torn down under its feet."""
    if any(thread.daemon and thread.name.startswith("promptmill-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
