"""`results` writes beside the job, never over it, and says which answers these are."""

import json

import pytest
from project import Project, texts


@pytest.fixture
def project(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    (tmp_path / "data").mkdir()
    (tmp_path / "prompt.md").write_text("{{ text }}")
    (tmp_path / "schema.json").write_text("{}")
    project.rows(texts(4), "data/a.jsonl")
    project.job(data="data/a.jsonl", more='[output]\nschema_file = "schema.json"')
    job = tmp_path / "job.toml"
    job.write_text(job.read_text().replace('user = "{{ text }}"', 'file = "prompt.md"'))
    project.run("run", "job.toml", "--yes")
    return project


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".gate"}


def refused(project, output, *args):
    """The command fails, says why, and no file has changed or appeared."""
    before = contents(project.folder)
    said = project.run("results", *args, "-o", str(output), code=2).stderr
    assert contents(project.folder) == before
    return said


@pytest.mark.parametrize("args", [("job",), ("job.toml",), ("job.toml", "--with-input")])
def test_the_input_is_never_replaced_by_the_results(project, args):
    folder = project.folder
    for output in ("data/a.jsonl", folder / "data" / "a.jsonl", "data/../data/a.jsonl"):
        said = refused(project, output, *args)
        assert f"-o {output} is an input file of the job (data/a.jsonl), which would be lost; name another file" in said
    (folder / "soft.jsonl").symlink_to("data/a.jsonl")
    (folder / "hard.jsonl").hardlink_to(folder / "data" / "a.jsonl")
    (folder / "way").symlink_to("data")
    for output in ("soft.jsonl", "hard.jsonl", "way/a.jsonl"):
        assert "is an input file of the job" in refused(project, output, *args)
    project.run("results", *args, "-o", "data/b.jsonl")  # one file is the input, not its folder


@pytest.mark.parametrize("path", ["data", "data/*.jsonl", "**/?.jsonl", "dat[a]/?.jsonl", "way/*.jsonl"])
def test_the_results_never_become_an_input(project, path):
    (project.folder / "way").symlink_to("data")
    project.run("run", "job.toml", "--yes", "--set", f"input.path={path}")
    assert "is an input file of the job" in refused(project, "data/a.jsonl", "job")
    assert f"-o data/b.jsonl would become an input file of the job ({path})" in refused(project, "data/b.jsonl", "job")
    project.run("results", "job", "-o", "data/b.csv")
    project.run("results", "job", "-o", "out.jsonl")


def test_the_input_that_only_the_job_file_names_is_spared_too(project):
    project.rows(texts(3), "data/next.jsonl")
    said = refused(project, "data/next.jsonl", "job.toml", "--set", "input.path=data/next.jsonl")
    assert "is an input file of the job (data/next.jsonl)" in said
    project.run("results", "job.toml", "-o", "out.jsonl", "--set", 'input.path="no\\u0000file"', code=None)


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("job.toml", "job file"),
        ("prompt.md", "prompt file"),
        ("schema.json", "schema file"),
        ("promptmill.duckdb", "ledger"),
    ],
)
def test_nothing_the_job_is_made_of_is_replaced_under_another_name(project, target, what):
    (project.folder / "out.jsonl").symlink_to(target)
    assert f"-o out.jsonl is the {what} " in refused(project, "out.jsonl", "job")


def test_no_result_appears_among_the_journals(project):
    (journal,) = (project.folder / "promptmill.journal").glob("*.jsonl")
    for output in (journal, "promptmill.journal/new.jsonl"):
        assert "that folder holds the ledger's journals" in refused(project, output, "job")


def test_inputs_are_found_from_another_folder_beside_the_ledger(project, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = Project(elsewhere)
    said = other.run("results", "job", "--ledger", "../promptmill.duckdb", "-o", "../data/a.jsonl", code=2).stderr
    assert "is an input file of the job" in said
    assert len((tmp_path / "data" / "a.jsonl").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "data" / "a.jsonl").read_text().splitlines()[0])["id"] == "r0"


def test_settings_without_a_job_file_are_a_mistake(project):
    said = project.run("results", "job", "--set", "model.name=x", "-o", "out.jsonl", code=2).stderr
    assert "--set changes what a job's file says, so it needs the file, not the name 'job'" in said


# -- which answers these are ------------------------------------------------------------------------


def test_answers_to_another_prompt_are_not_passed_off_as_those_of_the_job(project):
    (project.folder / "prompt.md").write_text("In short: {{ text }}")
    done = project.run("results", "job.toml", "-o", "out.jsonl")
    assert done.stderr == (
        "promptmill: these are the answers of run 1, and a file that job.toml reads has changed since. Run it again, or"
        " add --with-input for what is answered of the job as it is now\n"
    )
    assert done.stdout == "4 rows -> out.jsonl (4 ok)\n"
    now = project.run("results", "job.toml", "--with-input", "-o", "out.jsonl")
    assert (now.stdout, now.stderr) == ("4 rows -> out.jsonl (4 pending)\n", "")
    project.run("run", "job.toml", "--yes")
    assert project.run("results", "job.toml", "-o", "out.jsonl").stderr == ""


def test_settings_count_when_answers_are_compared_with_the_job(project):
    again = ("--set", "model.name=other")
    said = project.run("results", "job.toml", "-o", "out.jsonl", *again).stderr
    assert "answers of run 1, and job.toml says something else now: model.name. Run it again" in said
    project.run("run", "job.toml", "--yes", *again, "--price", "1,1")
    assert "answers of run 2, and job.toml says" in project.run("results", "job.toml", "-o", "out.jsonl").stderr
    assert project.run("results", "job.toml", "-o", "out.jsonl", *again).stderr == ""
    harmless = ("--set", "limits.concurrency=3", "--set", "model.max_tokens=9")
    assert project.run("results", "job.toml", "-o", "out.jsonl", *again, *harmless).stderr == ""


def test_results_say_what_is_pending_and_that_the_input_was_not_read_to_its_end(project):
    project.rows(texts(9), "data/a.jsonl")
    project.run("run", "job.toml", "--yes", "--limit", "6")
    said = project.run("results", "job", "-o", "out.jsonl").stdout
    assert said == "6 rows -> out.jsonl (6 ok; the input was not read to its end, so there may be more rows)\n"
    said = project.run("results", "job.toml", "--with-input", "-o", "out.csv").stdout
    assert said == "9 rows -> out.csv (6 ok, 3 pending)\n"


@pytest.mark.parametrize("name", ["data/a.jsonl", "job.toml", "prompt.md"])
def test_answers_are_written_although_the_job_can_not_be_compared_any_more(project, name):
    (project.folder / name).unlink()
    done = project.run("results", "job.toml", "-o", "out.jsonl")
    assert done.stdout == "4 rows -> out.jsonl (4 ok)\n"
    assert "these are the ledger's answers, and nobody can tell whether" in done.stderr
    assert name in done.stderr
