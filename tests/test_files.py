"""Files that a job names: what is no file, or not the user's, is refused before it is read."""

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
