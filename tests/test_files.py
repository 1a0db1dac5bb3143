"""What is no file, or not the user's, is refused before it is read; no planted link is written through."""

import os
import re
from pathlib import Path

import pytest
from project import Project, texts

from pipeline.files import MOST_BYTES, read_bytes, read_text

LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux only")
PLACES = {
    "a prompt": ("--set", "prompt.file={}"),
    "a schema": ("--set", "output.schema_file={}"),
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    project.rows(texts(1))
    text = project.job().read_text(encoding="utf-8").replace('user = "{{ text }}"\n', "")
    project.job(text=text)
    return project


def _checked(project, what, file):
    prompt = () if what == "a prompt" else ("--set", "prompt.user=x")
    option, value = PLACES[what]
    return project.run("check", "job.toml", *prompt, option, value.format(file), code=2).stderr


@pytest.mark.parametrize("what", PLACES)
def test_a_pipe_that_a_job_names_is_refused_and_does_not_hang(project, what):
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    for name in ("pipe", "link"):
        said = _checked(project, what, name)
        assert f"{name} can't be read: it is a pipe or a device; write its content into a file" in said


@pytest.mark.parametrize("what", PLACES)
def test_a_device_that_a_job_names_is_refused_and_not_read(project, what):
    assert "/dev/zero can't be read: it is a pipe or a device" in _checked(project, what, "/dev/zero")


@LINUX
@pytest.mark.parametrize("what", PLACES)
def test_what_the_system_shows_of_programs_is_refused_also_through_a_link(project, what):
    Path("prompt.md").symlink_to("/proc/self/environ")
    for name in ("/proc/self/environ", "prompt.md", "/proc/../proc/self/environ"):
        said = _checked(project, what, name)
        assert re.search(r"can't be read: it is what the system shows of running programs", said), said


@LINUX
def test_an_input_below_proc_is_refused_too(project):
    Path("rows2.jsonl").symlink_to("/proc/self/environ")
    Path("folder").mkdir()
    Path("folder/rows.jsonl").symlink_to("/proc/self/environ")
    for path in ("/proc/self/environ", "rows2.jsonl", "folder", "folder/*", "/proc/self/enviro?"):
        settings = ("--set", f"input.path={path}", "--set", "input.format=jsonl", "--set", "prompt.user=x")
        said = project.run("check", "job.toml", *settings, code=2).stderr
        assert "can't be read: it is what the system shows of running programs" in said, said


@pytest.mark.parametrize("what", PLACES)
def test_a_file_that_is_too_large_is_refused_with_the_limit(project, what):
    with Path("large").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "large can't be read: it is larger than 16 MiB" in _checked(project, what, "large")
    with Path("large").open("wb") as file:
        file.truncate(MOST_BYTES)
    assert len(read_bytes(Path("large"))) == MOST_BYTES


def test_a_pipe_for_a_price_file_is_refused(project):
    os.mkfifo("pipe")
    project.environ["PROMPTMILL_PRICES"] = "pipe"
    said = project.run("check", "job.toml", "--set", "prompt.user=x", "--set", "price={}", code=None).stderr
    said += project.run("prices", code=2).stderr
    assert "the price file pipe can't be read: it is a pipe or a device" in said


def test_a_folder_and_a_name_with_a_nul_are_refused(project):
    Path("folder").mkdir()
    assert "folder can't be read: it is a folder" in _checked(project, "a prompt", "folder")
    assert "can't be read: no file has a NUL in its name" in _checked(project, "a prompt", '"a\\u0000b"')


def test_text_has_one_kind_of_line_end_and_no_byte_order_mark(project):
    Path("text").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(Path("text")) == "one\ntwo\nthree\n"
    assert read_text(Path("text"), "utf-8") == "\ufeffone\ntwo\nthree\n"


@pytest.fixture
def answered(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    project.job()
    project.run("run", "job.toml", "--yes")
    (tmp_path / "precious.txt").write_text("precious")
    return project


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_results_are_not_written_through_a_link_that_somebody_planted(answered, ending):
    out = answered.folder / f"out.{ending}"
    (answered.folder / f".{out.name}.part").symlink_to("precious.txt")
    answered.run("results", "job.toml", "-o", out.name)
    assert (answered.folder / "precious.txt").read_text() == "precious"
    assert not out.is_symlink()
    assert out.stat().st_size > 10


def test_a_planted_hard_link_is_not_written_through_either(answered):
    os.link(answered.folder / "precious.txt", answered.folder / ".out.csv.part")
    answered.run("results", "job.toml", "-o", "out.csv")
    assert (answered.folder / "precious.txt").read_text() == "precious"


def _plant(place, what):
    if what == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("made.txt" if what == "a link to nothing" else "precious.txt")


PLANTED = ["a link", "a link to nothing", "a pipe"]


@pytest.mark.parametrize("what", PLANTED)
def test_a_lock_beside_results_that_is_no_file_is_named_and_makes_none(answered, what):
    _plant(answered.folder / ".out.csv.lock", what)
    said = answered.run("results", "job.toml", "-o", "out.csv", code=2).stderr
    assert re.search(r"-o out\.csv can't be written: .*\.out\.csv\.lock is a link, a pipe or a device", said), said
    assert not (answered.folder / "made.txt").exists()
    assert (answered.folder / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize("what", PLANTED)
def test_a_gate_that_is_no_file_is_named_and_makes_none(answered, what):
    gate = answered.folder / "promptmill.duckdb.gate"
    gate.unlink()
    _plant(gate, what)
    said = answered.run("status", code=2).stderr
    assert "promptmill.duckdb.gate is a link, a pipe or a device, and no file of promptmill's" in said
    assert not (answered.folder / "made.txt").exists()


def test_a_run_before_a_gate_that_is_a_link_sends_nothing(project, stub):
    _plant(project.folder / "promptmill.duckdb.gate", "a link to nothing")
    project.base_url = stub.base_url
    project.job()
    said = project.run("run", "job.toml", "--yes", code=2).stderr
    assert "promptmill.duckdb.gate is a link, a pipe or a device" in said
    assert not (project.folder / "made.txt").exists()
    assert not stub.requests
