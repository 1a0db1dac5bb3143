"""Datasets: rows of about 1 KB of realistic text, the same at every call.

Nine of ten texts are passages of Python's own documentation, where prose and code meet; one is made of words of many
scripts, numbers and addresses. A text begins with the number of its tokens (o200k_base), `[00241] ...`, so that the
vendor knows what to bill; then comes the row's number, so no two are equal.
"""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics

import orjson
import polars as pl
import toktok  # type: ignore[import-untyped]

CACHE = Path(__file__).parent / ".data"
CHARACTERS = 1000
LARGE_TIMES, LARGE_EVERY = 50, 100
FOREIGN = """
Bestellung Lieferung Rechnungsnummer überwiesen façade année où niño mañana город посылка 注文番号 お届け先 訂單 배송
नमस्ते order_id getUserName() {'a': [1,2]} https://example.com/track?id=77 user@host.org #4711 $1,299.00 12:30 C++ 🙂
"""
COUNTED_TOGETHER = 1000


def jsonl(rows: int, *, mixed: bool = False) -> Path:
    """Return a file of so many rows, written if it isn't there. Mixed: one row in a hundred is 50 times as long."""
    path = CACHE / f"rows-{rows}{'-mixed' if mixed else ''}.jsonl"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            for number, text in enumerate(_counted(_texts(rows, mixed=mixed))):
                file.write(orjson.dumps({"id": number, "text": text}) + b"\n")
        unfinished.rename(path)
    return path


def parquet(rows: int) -> Path:
    """Return the same rows as Parquet."""
    path = CACHE / f"rows-{rows}.parquet"
    if not path.exists():
        schema = {"id": pl.Int64, "text": pl.String}
        unfinished = path.with_suffix(".unfinished")
        pl.scan_ndjson(jsonl(rows), schema=schema).sink_parquet(unfinished, row_group_size=50_000)
        unfinished.rename(path)
    return path


def tokens(path: Path) -> list[int]:
    """Return the tokens of every text."""
    with path.open("rb") as file:
        return [int(orjson.loads(line)["text"][1:6]) for line in file]


def _texts(rows: int, *, mixed: bool) -> Iterator[str]:
    chooser, words = random.Random(20_261_124), FOREIGN.split()  # noqa: S311 -- data
    prose = "\n".join(topics.values())
    for number in range(rows):
        long = mixed and number % LARGE_EVERY == LARGE_EVERY // 2
        size = CHARACTERS * (LARGE_TIMES if long else 1)
        if number % 10:
            start = chooser.randrange(len(prose) - size)
            text = prose[start : start + size]
        else:
            text = " ".join(chooser.choices(words, k=size // 4))
        yield f"{number}: {text}"[: size - 8]


def _counted(texts: Iterator[str]) -> Iterator[str]:
    """Put the number of tokens in front; its own five digits are always two tokens."""
    while chunk := [f"[00000] {text}" for text in islice(texts, COUNTED_TOGETHER)]:
        counts = toktok.batch_count(chunk, encoding="o200k_base", threads=1)
        for text, count in zip(chunk, counts, strict=True):
            yield f"[{count:05}]{text[7:]}"
