"""`promptmill sql [QUERY]`."""

import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import hear_ctrl_c, in_home, json_option, ledger_option, open_ledger
from pipeline.cli._show import print_rows, say
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.ledger import Ledger

LEAVE = ("exit", "quit", ".exit", ".quit", "\\q")
_COMMENT_FIRST = re.compile(r"--(\s|.*\n)")
HISTORY = "~/.promptmill_history"


class _Command(click.Command):
    """Takes a query that begins with a comment for what it is: `-- ...` looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a line break before such a query."""
        return super().parse_args(ctx, [f"\n{arg}" if _COMMENT_FIRST.match(arg) else arg for arg in args])


@click.command("sql", cls=_Command, short_help="Ask the ledger in SQL, also while a job runs.")
@click.argument("query", required=False)
@ledger_option
@json_option
def command(query: str | None, ledger_path: Path, as_json: bool) -> int:
    """Run QUERY read-only on the ledger (tables and views: docs/sql.md). Without QUERY: a prompt with history.

    The file is opened for each query only, so that a running job is not kept waiting. Without a terminal and without
    QUERY the query is read from standard input.
    """
    ledger = open_ledger(ledger_path)
    hear_ctrl_c()
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
    if query is not None:
        _answer(ledger, query, as_json=as_json)
        return 0
    _prompt(ledger, as_json=as_json)
    return 0


def _answer(ledger: "Ledger", query: str, *, as_json: bool) -> None:
    from pipeline import api

    frame = api.sql(ledger, query)
    print_rows(frame.columns, frame.rows(named=True), as_json=as_json)


def _prompt(ledger: "Ledger", *, as_json: bool) -> None:
    """Read queries that end with `;` until Ctrl-D."""
    history = in_home(HISTORY)
    readline = _readline(history)
    click.echo("SQL on the ledger, read-only. End a query with ; and leave with `exit` or Ctrl-D.", err=True)
    lines: list[str] = []
    while True:
        try:
            line = input("   ...> " if lines else "ledger> ")
        except EOFError:
            click.echo()
            break
        except KeyboardInterrupt:
            click.echo()
            lines = []
            continue
        if not lines and line.strip().rstrip(";").lower() in LEAVE:
            break
        lines.append(line)
        if line.rstrip().endswith(";"):
            try:
                _answer(ledger, "\n".join(lines), as_json=as_json)
            except UserError as error:
                say(str(error), err=True)
            except KeyboardInterrupt:
                say("interrupted", err=True)
            lines = []
        elif not "".join(lines).strip():
            lines = []
    if readline is not None:
        with contextlib.suppress(OSError):
            readline.write_history_file(history)


def _readline(history: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202 -- the module itself, if there is one
    try:
        import readline
    except ImportError:
        return None
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    return readline
