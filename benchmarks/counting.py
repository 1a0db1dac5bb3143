"""What `promptmill estimate` costs beside the tokenizer alone: processor time over the same texts.

    python benchmarks/counting.py [--rows 100000 1000000] [--folder DIR]

Each figure is user + system time of a whole process: tiktoken reading the rows and counting the same texts, on one
thread and on two, `promptmill estimate` with tiktoken, once more with the counts that it kept, on one processor (two
that share a core cost each other up to a half), and with toktok (the extra `fast`, if it is installed). The texts are
1,000 characters each: nine of ten are passages of Python's own documentation, where prose and code meet, and one is
made of words of many scripts, numbers and addresses. The seed is fixed.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

from measure import as_installed

FOREIGN = """
Bestellung Lieferung Rechnungsnummer überwiesen façade année où niño mañana город посылка 注文番号 お届け先 訂單 배송
नमस्ते order_id getUserName() {'a': [1,2]} https://example.com/track?id=77 user@host.org #4711 $1,299.00 12:30 C++ 🙂
"""
ROW_CHARACTERS = 1000
JOB = """
name = "counting"
[input]
path = "rows.jsonl"
id = "id"
[model]
provider = "openai"
name = "gpt-4o-mini"
max_tokens = 200
[prompt]
system = "You summarize messages."
user = "Message:\\n{{ text }}"
[price]
input = "0.15"
output = "0.60"
"""
TIKTOKEN = """
import orjson, tiktoken
from tiktoken_ext import openai_public
from pipeline.tokens._ranks import load_ranks
openai_public.load_tiktoken_bpe = lambda *_, **__: load_ranks("o200k_base")  # which it would fetch
encode = tiktoken.Encoding(**openai_public.o200k_base()).encode_ordinary
"""
TIKTOKEN_ALONE = f"""{TIKTOKEN}
tokens = 0
with open("rows.jsonl", "rb") as file:
    for line in file:
        tokens += len(encode("Message:\\n" + orjson.loads(line)["text"]))
print("input", tokens)
"""
TIKTOKEN_ON_TWO_THREADS = f"""{TIKTOKEN}
import itertools
from concurrent.futures import ThreadPoolExecutor
def count(lines):
    return sum(len(encode("Message:\\n" + orjson.loads(line)["text"])) for line in lines)
tokens = 0
with open("rows.jsonl", "rb") as file, ThreadPoolExecutor(2) as pool:
    while pieces := [lines for _ in range(16) if (lines := list(itertools.islice(file, 256)))]:
        tokens += sum(pool.map(count, pieces))
print("input", tokens)
"""
WITHOUT_TOKTOK = "import sys; sys.modules['toktok'] = None; from pipeline.cli import main; main(sys.argv[1:])"
ON_ONE_PROCESSOR = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
"""Linux only."""
WITH_TOKTOK = "import sys; from pipeline.cli import main; main(sys.argv[1:])"


def write_rows(path: Path, rows: int) -> None:
    """Write the dataset."""
    chooser, prose, words = random.Random(20_261_124), "\n".join(topics.values()), FOREIGN.split()  # noqa: S311 -- data
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 10:
                start = chooser.randrange(len(prose) - ROW_CHARACTERS)
                text = prose[start : start + ROW_CHARACTERS]
            else:
                text = " ".join(chooser.choices(words, k=ROW_CHARACTERS // 4))[:ROW_CHARACTERS]
            unlike = f"{number}: {text}"[:ROW_CHARACTERS]  # repeated rows would not be counted
            file.write(json.dumps({"id": number, "text": unlike}, ensure_ascii=False) + "\n")


def timed(folder: Path, code: str, *arguments: str) -> tuple[float, float, str]:
    """Run Python code in a process of its own; return its processor and wall seconds, and what it said of the input."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(  # noqa: S603 -- this Python, our own code
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**as_installed(), "PROMPTMILL_LEDGER": "counting.duckdb"},
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = next(line for line in done.stdout.splitlines() if line.startswith("input"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, said.removeprefix("input").strip()


def forget(folder: Path) -> None:
    """Delete the kept counts."""
    for file in folder.glob("*.journal/*.counts"):
        file.unlink()


def measure(folder: Path, rows: int) -> None:
    """Print the figures for one number of rows."""
    write_rows(folder / "rows.jsonl", rows)
    (folder / "job.toml").write_text(JOB)
    size = (folder / "rows.jsonl").stat().st_size / rows
    say(f"{rows:,} rows of {size:,.0f} bytes")
    alone = timed(folder, TIKTOKEN_ALONE)
    base = alone[0]
    figures("tiktoken alone", alone, base)
    figures("the same on two threads", timed(folder, TIKTOKEN_ON_TWO_THREADS), base)
    programs = {"estimate, tiktoken": WITHOUT_TOKTOK, "the same, counts kept": WITHOUT_TOKTOK}
    if sys.platform == "linux":
        programs |= {"the same on one processor": ON_ONE_PROCESSOR + WITHOUT_TOKTOK}
    if find_spec("toktok"):
        programs |= {"estimate, toktok": WITH_TOKTOK}
    for name, program in programs.items():
        if "kept" not in name:
            forget(folder)
        figures(name, timed(folder, program, "estimate", "job.toml", "--quiet"), base)


def figures(name: str, measured: tuple[float, float, str], base: float) -> None:
    """Print one line; `base` is what the first one took."""
    cpu, wall, said = measured
    say(f"  {name.ljust(26)}  {cpu:7.1f} s CPU, {cpu / base:4.2f} x {wall:7.1f} s wall   {said}")


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the data is written; default: a folder that is deleted")
    arguments = parser.parse_args()
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measure(Path(folder), rows)


if __name__ == "__main__":
    main()
