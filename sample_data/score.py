# ruff: noqa: INP001, T201  # a script of its own: its output is the line it prints
"""Compare answers with the truth columns that came along in the results, and print one line.

    promptmill results jobs/extract.toml --with-input -o results.jsonl
    python sample_data/score.py results.jsonl

A column truth_NAME says what the answer's field NAME should be; null means: nothing to find. Equal ignoring case and
spaces at the ends. A row without a usable answer has all its fields wrong.
"""

import json
import sys
from pathlib import Path
from typing import Any

PREFIX = "truth_"


def read_rows(path: str) -> list[dict[str, Any]]:
    """Read a JSONL file of results; ends the program with a sentence if it isn't one."""
    rows: list[dict[str, Any]] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{path} can't be read: {error}")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            sys.exit(f"{path}:{number} is not JSON: {error}")
        if not isinstance(row, dict) or "parsed" not in row:
            sys.exit(f"{path}:{number} is no result with a column `parsed`; write the file with promptmill results")
        rows.append(row)
    if not rows:
        sys.exit(f"{path} is empty; run the job first")
    return rows


def score(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many rows have each field right, in the order of the truth columns."""
    fields = [column.removeprefix(PREFIX) for column in rows[0] if column.startswith(PREFIX)]
    return {field: sum(_is_right(row, field) for row in rows) for field in fields}


def _is_right(row: dict[str, Any], field: str) -> bool:
    answer = row["parsed"]
    if isinstance(answer, str):  # a JSON column may come as text
        answer = json.loads(answer)
    if not isinstance(answer, dict):
        return False
    return _plain(answer.get(field)) == _plain(row.get(PREFIX + field))


def _plain(value: object) -> str:
    return "" if value is None else str(value).strip().casefold()


def main() -> None:
    """Read the file named on the command line."""
    if len(sys.argv) != 2:  # noqa: PLR2004  # the script and the file
        sys.exit("usage: python sample_data/score.py RESULTS.jsonl")
    rows = read_rows(sys.argv[1])
    right = score(rows)
    if not right:
        sys.exit(f"{sys.argv[1]} has no {PREFIX}... columns; write it with promptmill results --with-input")
    by_field = ", ".join(f"{field} {count}/{len(rows)}" for field, count in right.items())
    total = len(rows) * len(right)
    print(f"fields right: {sum(right.values())} of {total} ({by_field}), measured against the truth columns")


if __name__ == "__main__":
    main()
