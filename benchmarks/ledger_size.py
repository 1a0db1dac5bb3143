"""Point 7: what a ledger of 5,000,000 attempts answers, how soon, and with how much memory.

A real run of 10,000 rows fills a ledger; then its rows are multiplied where they are, with keys, answers and indexes of
their own, and one in two hundred fails.
"""

from pathlib import Path

import data
import duckdb
import ours
from measure import MEGABYTE, Measured
from results import Aim, Result, Table, say
from vendor import serving

SEED_ROWS, COPIES = 10_000, 500
MOST_BYTES = 8_000 * MEGABYTE
"""A command that wants more is stopped: the machine has other work."""
KEY = "'v1' || md5(key || n)"
FAILS = "(hash(key, n) % 200 = 0)"
MULTIPLY = f"""
create temp table copies as select range as n from range(1, {COPIES});
insert into rows
    select * exclude (n) replace ({KEY} as key, row_index + n * {SEED_ROWS} as row_index,
                      (row_index + n * {SEED_ROWS})::varchar as row_id) from rows, copies;
insert into attempts
    select * exclude (n) replace ({KEY} as key, sent_at + to_seconds(n) as sent_at,
                      journal_offset + n * 100000000 as journal_offset,
                      case when {FAILS} then 'unavailable' else result end as result,
                      case when {FAILS} then 0 else cost_usd end as cost_usd,
                      case when {FAILS} then 503 else http_status end as http_status,
                      case when {FAILS} then 'server_error' end as error_type,
                      case when {FAILS} then 'upstream ' || n || ' is overloaded' end as error) from attempts, copies;
insert into answers
    select * exclude (n) replace ({KEY} as key,
                      md5(key || n) || substr(output, (hash(n, key) % 700)::bigint + 1, 200) as output)
    from answers, copies where not {FAILS};
insert into outcomes
    select * exclude (n) replace ({KEY} as key,
                      case when {FAILS} then 'failed' else status end as status,
                      case when not {FAILS} then answer_run end as answer_run,
                      case when not {FAILS} then answer_attempt end as answer_attempt,
                      case when {FAILS} then 'server_error' end as error_type,
                      case when {FAILS} then 'upstream ' || n || ' is overloaded' end as error) from outcomes, copies;
insert into plan_ends select * replace ({SEED_ROWS * COPIES} as rows) from plan_ends;
"""  # noqa: S608 -- our own constants
COMMANDS = (
    ("spend",),
    ("spend", "--by", "model,day"),
    ("status",),
    ("errors", "bench"),
    ("results", "bench", "-o", "results.parquet"),
    ("results", "bench", "-o", "results.jsonl"),
    ("sql", "select status, count(*), sum(cost_usd) from results group by all"),
)


def measured() -> Result:
    """Make the ledger and ask it everything."""
    lines, costs = [], []
    with ours.project() as project:
        with serving() as vendor:
            project.job(data.jsonl(SEED_ROWS), vendor.base_url)
            project.command(*ours.RUN)
        ledger = project.folder / "promptmill.duckdb"
        attempts = _multiply(ledger)
        size = ledger.stat().st_size / MEGABYTE
        for command in COMMANDS:
            cost = project.command(*command, expect=(0, -9), most_bytes=MOST_BYTES)
            costs.append(cost)
            shown = " ".join(part if " " not in part else f'"{part}"' for part in command)
            memory = f"{cost.peak_anonymous / MEGABYTE:,.0f} MB{'' if cost.code == 0 else ', stopped'}"
            lines.append((f"`{shown}`", f"{cost.wall:.1f} s", f"{cost.cpu:.1f} s", memory))
            say(f"  {' | '.join(lines[-1])}")
    note = (
        f"{attempts:,} attempts, answers of about 230 characters; the ledger's file has {size:,.0f} MB. A command that"
        f" wants more than {MOST_BYTES / 1e9:.0f} GB is stopped."
    )
    columns = ("promptmill ...", "wall", "CPU", "peak memory")
    command_line = "python benchmarks/bench.py ledger"
    return Result(
        "ledger", command_line, [Table("A ledger of 5,000,000 attempts", columns, lines, note)], [_aim(costs)]
    )


def _aim(costs: list[Measured]) -> Aim:
    slowest, largest = max(cost.wall for cost in costs), max(cost.peak_anonymous for cost in costs)
    found = f"at most {slowest:.0f} s, {largest / MEGABYTE:,.0f} MB"
    wanted = f"seconds each, below {MOST_BYTES / 1e9:.0f} GB"
    return Aim("Commands on 5,000,000 attempts", wanted, found, all(cost.code == 0 for cost in costs))


def _multiply(ledger: Path) -> int:
    with duckdb.connect(ledger, config={"memory_limit": "4GB"}) as connection:
        connection.execute(MULTIPLY)
        found = connection.execute("select count(*) from attempts").fetchone()
    return 0 if found is None else int(found[0])
