"""Options that several commands share, under one name and one help text each."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.budget import MOST_BUDGET
from pipeline.stopping import NAMES, hears_signals

if TYPE_CHECKING:
    from pipeline.api import Overrides
    from pipeline.ledger import Ledger
    from pipeline.notices import Notify

_CLOCK_TIME = re.compile(r"\d?\d:\d\d")
MOST = 2**63 - 1
"""A ledger books no larger number."""


class Dollars(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """An amount of money greater than zero, as an exact decimal."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """Read it."""
        try:
            amount = Decimal(str(value).removeprefix("$"))
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount of dollars", param, ctx)
        if not amount.is_finite() or amount <= 0:
            self.fail("must be greater than 0", param, ctx)
        if amount > MOST_BUDGET:
            self.fail(f"must be at most {MOST_BUDGET:,}", param, ctx)
        return amount


class Count(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """A whole number of at least 1."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(f"{value!r} is not a whole number of at least 1", param, ctx)
        if number > MOST:
            self.fail(f"{value!r} is more than {MOST:,}", param, ctx)
        return number


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """A time to come, as epoch seconds: `07:00` is the next seven o'clock of this machine's clock."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        now = datetime.now().astimezone()
        try:
            moment = _moment(str(value).strip(), now)
        except (ValueError, OverflowError):  # the last hours of the year 9999 have no moment everywhere
            self.fail(f"{value!r} is no time; write 07:00, or a day too: 2026-11-25T07:00", param, ctx)
        if moment <= now:
            self.fail(f"{value} is over", param, ctx)
        return moment.timestamp()


def _moment(text: str, now: datetime) -> datetime:
    if _CLOCK_TIME.fullmatch(text):
        today = datetime.combine(now.date(), time.fromisoformat(text.zfill(len("07:00"))))
        clocks = (today, today.replace(fold=1), today + timedelta(days=1))  # twice in the night that has an hour twice
        return next(moment for moment in map(_existing, clocks) if moment > now)
    return datetime.fromisoformat(text).astimezone()  # without a zone: this machine's


def _existing(clock: datetime) -> datetime:
    """Return the moment that this machine's clock shows so; a later one in the night in which it jumps over that.

    Which of both readings of such a time is the later one is not the same in all versions of Python.
    """
    moment = clock.astimezone()
    if moment.replace(tzinfo=None) == clock:
        return moment
    return max(moment, clock.replace(fold=1).astimezone())


until_option = click.option(
    "--until", type=Moment(), metavar="TIME", help="Let nothing more out from then on: 07:00, or 2026-11-25T07:00."
)
ledger_option = click.option(
    "--ledger",
    "ledger_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("promptmill.duckdb"),
    show_default=True,
    envvar="PROMPTMILL_LEDGER",
    show_envvar=True,
    help="The DuckDB file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress, only warnings and the result.")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change a key of the job for this command, e.g. --set model.max_tokens=300.",
)
limit_option = click.option("--limit", type=Count(), help="Look only at the first N rows that [input] where selects.")
budget_option = click.option(
    "--budget",
    type=Dollars(),
    help="Never spend more on this plan, all its runs together; another input, prompt or model has it anew.",
)
price_option = click.option("--price", metavar="IN,OUT", help="Dollars per 1M input and output tokens.")

log_option = click.option(
    "--log",
    "log_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append a log of what happens to this file.",
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(["info", "debug"]),
    help="debug: one line per exchange, too (never prompts or answers).  [default: info]",
)


def job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that change a job."""
    for option in (price_option, budget_option, limit_option, set_option):
        function = option(function)
    return function


def overrides_of(settings: tuple[str, ...], budget: Decimal | None, price: str | None) -> "Overrides":
    """Put them together."""
    from pipeline.api import Overrides

    return Overrides(settings, budget, price, price_file=price_file())


def price_file() -> Path | None:
    """Return the user's own price list: `$PROMPTMILL_PRICES`, else the usual place if there is one."""
    named = os.environ.get("PROMPTMILL_PRICES")
    if named:
        return Path(named)
    from pipeline.pricebook import USUAL_FILE

    usual = in_home(USUAL_FILE)
    return usual if usual.is_file() else None


def in_home(path: str) -> Path:
    """Return the path that `~/...` means; as it is for a user without a home, as in a container."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- pathlib raises there


def warn(text: str) -> None:
    """Say something on stderr, on a line of its own: in a terminal the progress line makes room.

    Where nobody takes it, it is left unsaid: a run must not wait for a reader.
    """
    from pipeline.cli._show import rewrites, takes_text
    from pipeline.text import printable_lines

    if not takes_text(sys.stderr):
        return
    room = "\r\x1b[K" if rewrites(sys.stderr) else ""
    with contextlib.suppress(OSError):  # nobody reads stderr any more: the run goes on all the same
        click.echo(f"{room}promptmill: {printable_lines(text)}", err=True)


def hear_ctrl_c() -> None:
    """Make Ctrl-C interrupt a prompt at once: a library may have put a handler in place that restarts the read."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in the background of a script
    if hears_signals() and not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def heard_at_once() -> Iterator[None]:
    """Hear Ctrl-C so for a while."""
    before = signal.getsignal(signal.SIGINT)
    hear_ctrl_c()
    try:
        yield
    finally:
        if before is not None and hears_signals():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def ends_tidily() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end what a command does as Ctrl-C does: it takes its files away.

    A second one ends it as ever.
    """
    heard = []

    def interrupt(number: int, _: object) -> None:
        heard.append(number)
        signal.signal(number, before[signal.Signals(number)])
        raise KeyboardInterrupt

    before = {}
    if hears_signals():
        for each in NAMES:
            if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
                before[each] = signal.signal(each, interrupt)
    try:
        yield
    except BaseException:
        if heard:  # Polars makes a panic of what is raised in its midst
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_secret(value: str) -> None:
    """Never print this value, whatever happens: `main` hides it in the traceback of an internal error."""
    secrets = click.get_current_context().find_object(list)
    if secrets is not None and value:
        secrets.append(value)


def open_ledger(path: Path, notify: "Notify" = warn) -> "Ledger":
    """Return the ledger at this path. Raises UsageError for a name that DuckDB would take for a data file."""
    import logging

    from pipeline.ledger import Ledger
    from pipeline.notices import LOGGER

    if not LOGGER.handlers:  # what a user should know is said here; Python would print a logger's warnings, too
        LOGGER.addHandler(logging.NullHandler())
    return Ledger(path, notify=notify)
