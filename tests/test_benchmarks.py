"""The benchmarks measure what they say: no figure is asserted here, only what is counted, killed and written."""

import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from project import Project, texts
from stub import StubServer

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import data
import measure
import report
import results
import svg

from pipeline.tokens._encodings import encoding

BURN = "import time\nwhile time.process_time() < 0.2: pass\n"
HOARD = "held = bytearray(300_000_000)\nimport time; time.sleep(60)"
HOARD_IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOARD!r}])"


def test_processor_time_is_that_of_the_command_and_its_children(tmp_path):
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
    assert measure.measure([sys.executable, "-c", child + BURN], tmp_path).cpu >= 0.4


def test_a_command_that_takes_too_much_memory_is_killed_and_its_peak_known(tmp_path):
    cost = measure.measure([sys.executable, "-c", HOARD], tmp_path, expect=(-9,), most_bytes=100_000_000)
    assert cost.peak_anonymous > 100_000_000


def test_memory_counts_child_processes(tmp_path):
    cost = measure.measure([sys.executable, "-c", HOARD_IN_A_CHILD], tmp_path, expect=(1, -9), most_bytes=100_000_000)
    assert cost.peak_anonymous > 100_000_000


def test_a_command_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match="no such luck"):
        measure.measure([sys.executable, "-c", "import sys; sys.exit('no such luck')"], tmp_path)


@pytest.mark.parametrize("mixed", [False, True])
def test_every_row_is_another_and_begins_with_the_number_of_its_tokens(tmp_path, monkeypatch, mixed):
    monkeypatch.setattr(data, "CACHE", tmp_path)
    path = data.jsonl(300, mixed=mixed)
    rows = [orjson.loads(line)["text"] for line in path.read_bytes().splitlines()]
    assert len(set(rows)) == 300
    assert [len(encoding("o200k_base").encode_ordinary(text)) for text in rows] == data.tokens(path)


def test_the_watch_on_the_loop_lets_the_run_be_and_says_how_late_the_loop_was(tmp_path):
    watched = Path(measure.__file__).parent / "lag.py"
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(20))
        project.job()
        command = [sys.executable, str(watched), "run", "job.toml", "--yes"]
        began = time.time()
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert stub.calls == 20
    ticks = orjson.loads(done.stderr.rpartition("\nlag ")[2])
    assert ticks
    assert all(began < due <= time.time() and late >= 0 for due, late in ticks)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """An empty page, and results that are kept beside it."""
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "DOCUMENT", document)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    return document


def result(name, *, plot):
    aims = [results.Aim.at_most("a", 2, 1.0, "s"), results.Aim.at_least("b", 2, 1.0, "s")]
    return results.Result(name, "make it", [results.Table("T", ("", "n"), [("x", "1")])], aims, [plot], FACTS)


FACTS = dict.fromkeys(("measured", "commit", "load", "machine", "python", "server", "libraries"), "?")


def test_the_page_holds_what_was_measured_and_says_what_was_missed(page):
    for name, points in (("memory", [(10, 1.0), (100, 2.0)]), ("large", [(100, 2.5), (1000, 3.0)])):
        result(name, plot=results.Plot("memory", "Memory", "MB", lines={"ours": points})).save()
    report.write()
    text = page.read_text()
    assert (text.partition("\n")[0], text.splitlines()[-1], "old" in text) == ("before", "after", False)
    assert "| a | at most 2 s | 1.0 s | yes |" in text
    assert "| b | at least 2 s | 1.0 s | **no** |" in text
    assert text.count("performance-memory.svg") == 1
    assert (page.parent / "performance-memory.svg").read_text().count("<circle") == 3


def test_bars_are_drawn_to_scale():
    drawn = svg.draw(results.Plot("cpu", "CPU", "s", bars={"<ours>": 0.5, "theirs": 2.0}))
    assert "&lt;ours&gt;" in drawn
    width = (svg.WIDTH - svg.LEFT - svg.RIGHT) / 4
    assert f'width="{width:.0f}"' in drawn
    assert f'width="{4 * width:.0f}"' in drawn
