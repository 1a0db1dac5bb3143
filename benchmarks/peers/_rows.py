"""What every driver does the same way: read the rows, keep the answers."""

import json
import sys
from pathlib import Path

MODEL = "gpt-4o-mini"


def arguments():
    """Return the rows' file, the vendor's address, requests at a time, the longest answer, the output's file."""
    rows, base_url, concurrency, max_tokens, output = sys.argv[1:]
    return Path(rows), base_url, int(concurrency), int(max_tokens), Path(output)


def read(path):
    """Return ids and texts."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["id"] for row in rows], [row["text"] for row in rows]


def write(path, ids, answers):
    """Write what was answered; an answer that is missing is an error."""
    with path.open("w", encoding="utf-8") as file:
        for number, answer in zip(ids, answers, strict=True):
            if not isinstance(answer, str) or not answer:
                sys.exit(f"row {number} got no answer: {answer!r}")
            file.write(json.dumps({"id": number, "answer": answer}) + "\n")
