"""What the ledger can tell, one file per report: a SQL text and the columns people see first."""

from dataclasses import dataclass
from typing import Any

from pipeline.errors import LedgerError
from pipeline.ledger import Ledger, rows_of


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a report, as plain values."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]


def run_report(ledger: Ledger, sql: str, parameters: list[Any] | None = None) -> Table:
    """Run a report's SQL on the ledger."""
    with ledger.read() as connection:
        found = rows_of(connection, sql, parameters)
    return Table(tuple(found[0]) if found else (), found)


def run_reports(ledger: Ledger, *sql: str) -> list[Table]:
    """Run several reports on the ledger as it stands at one moment."""
    with ledger.read() as connection:
        found = [rows_of(connection, one) for one in sql]
    return [Table(tuple(rows[0]) if rows else (), rows) for rows in found]


def require_job(ledger: Ledger, job: str) -> None:
    """Raise LedgerError, naming the jobs there are, if the ledger doesn't know this one."""
    with ledger.read() as connection:
        known = [row["job"] for row in rows_of(connection, "select job from jobs order by job")]
    if job not in known:
        listed = ", ".join(known) or "none yet"
        raise LedgerError(
            f"the ledger {ledger.path} knows no job {job!r} (it has: {listed}); `promptmill run` starts it"
        )
