"""The sample data, the jobs that use it, and the line that says how good the answers are."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent
DATA = ROOT / "sample_data"
JOBS = sorted((ROOT / "jobs").glob("*.toml"))
TRUTH = {"truth_order_id": "A-1", "truth_name": "Ann Lee", "truth_city": None}


def messages() -> list[dict]:
    return [json.loads(line) for line in (DATA / "messages.jsonl").read_text(encoding="utf-8").splitlines()]


def frame(path: str) -> pl.DataFrame:
    return pl.read_parquet(ROOT / path) if path.endswith(".parquet") else pl.read_ndjson(ROOT / path)


def score(path: Path | str) -> subprocess.CompletedProcess:
    command = [sys.executable, DATA / "score.py", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("path", ["sample_data/messages.jsonl", "sample_data/speeches.parquet"])
def test_no_two_rows_have_the_same_id_or_the_same_text(path):
    data = frame(path)
    assert data["id"].n_unique() == data["text"].n_unique() == data.height > 0


def test_what_a_message_should_yield_stands_in_it_word_for_word():
    for row in messages():
        truths = [value for key, value in row.items() if key.startswith("truth_") and value is not None]
        assert len(truths) >= 2
        assert all(truth in row["text"] for truth in truths), row["id"]


def test_some_message_lacks_a_field():
    assert [row["id"] for row in messages() if row["truth_city"] is None]


def test_passages_have_120_to_250_words_and_the_file_stays_small():
    words = frame("sample_data/speeches.parquet")["text"].str.split(" ").list.len()
    assert words.min() >= 120
    assert words.max() <= 250
    assert (DATA / "speeches.parquet").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", ["messages.jsonl", "speeches.parquet"])
def test_every_data_file_states_its_licence_and_its_number_of_rows(name):
    table = [line for line in (DATA / "README.md").read_text().splitlines() if line.startswith(f"| `{name}`")]
    (line,) = table
    assert "CC0-1.0" in line
    assert f" {frame(f'sample_data/{name}').height:,} " in line


def test_no_data_file_goes_without_mention():
    stated = (DATA / "README.md").read_text()
    assert [file.name for file in DATA.iterdir() if file.is_file() and f"{file.name}`" not in stated] == ["README.md"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_column_a_job_names_is_in_its_data(path):
    job = tomllib.loads(path.read_text(encoding="utf-8"))
    data = frame(job["input"]["path"])
    prompt = job["prompt"].get("system", "") + job["prompt"]["user"]
    used = set(re.findall(r"\{\{\s*(\w+)", prompt)) | {job["input"]["id"]}
    assert used <= set(data.columns)
    assert not any(column.startswith("truth_") for column in used), "a job must not see the truth"
    if "where" in job["input"]:
        assert 0 < data.sql(f"SELECT * FROM self WHERE {job['input']['where']}").height < data.height


def test_the_two_extraction_jobs_ask_for_what_the_truth_columns_hold():
    expected = {key.removeprefix("truth_") for key in messages()[0] if key.startswith("truth_")}
    for name in ("extract", "modelslab"):
        schema = tomllib.loads((ROOT / "jobs" / f"{name}.toml").read_text(encoding="utf-8"))["output"]["schema"]
        assert set(schema["properties"]) == set(schema["required"]) == expected


def test_the_score_counts_each_field_over_all_rows(tmp_path):
    rows = [
        {"id": 1, **TRUTH, "status": "ok", "parsed": {"order_id": " a-1", "name": "Ann Lee", "city": None}},
        {"id": 2, **TRUTH, "status": "ok", "parsed": {"order_id": "A-2", "name": "Ann Lee", "city": "Rome"}},
        {"id": 3, **TRUTH, "status": "ok", "parsed": '{"order_id": "A-1", "name": "x"}'},
        {"id": 4, **TRUTH, "status": "truncated", "parsed": None},
    ]
    result = score(write(tmp_path / "results.jsonl", rows))
    assert result.stdout == (
        "fields right: 6 of 12 (order_id 2/4, name 2/4, city 2/4), measured against the truth columns\n"
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty; run the job first"),
        ("{]", ":1 is not JSON"),
        ('{"parsed": null}\n{"id": 2}', ":2 is no result with a column `parsed`"),
        ("[1]", ":1 is no result with a column `parsed`"),
        ('{"parsed": null}', "write it with promptmill results --with-input"),
    ],
)
def test_a_file_that_cannot_be_scored_is_an_error_in_one_sentence(tmp_path, content, problem):
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    result = score(path)
    assert result.returncode == 1
    assert str(path) in result.stderr
    assert problem in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_not_there_is_an_error_in_one_sentence(tmp_path):
    result = score(tmp_path / "none.jsonl")
    assert result.returncode == 1
    assert "none.jsonl can't be read" in result.stderr
    assert "Traceback" not in result.stderr
