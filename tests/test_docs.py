"""The pages say what is true: links, commands and queries of all, and every name in docs/cli.md and docs/sql.md.

`UPDATE_DOCS=1 pytest tests/test_docs.py` rewrites the help texts in docs/cli.md.
"""

import contextlib
import importlib
import json
import os
import re
import shutil
import sys
import tomllib
from dataclasses import fields
from decimal import Decimal
from typing import get_args

import click
import duckdb
import pytest
from click.testing import CliRunner
from pages import PAGES, README, ROOT, anchors, blocks, column, commands, links, plain, prose, quoted, rows, sections
from project import Project, texts
from stub import StubServer
from stub_faults import NO_USAGE, REFUSAL, status

from pipeline import Overrides, RunOptions, RunReport, providers
from pipeline.cli import group
from pipeline.reconciling import Verdict
from pipeline.records import AttemptKind, AttemptResult, CountMethod, Status

CLI, SQL = ROOT / "docs" / "cli.md", ROOT / "docs" / "sql.md"
COMMANDS = group.list_commands(click.Context(group))
OTHER_PROGRAMS = {"make", "git", "cd", "pip", "export", "python"}
NOT_RUN = {"stop", "--watch", "reconcile"}
"""What only makes sense beside a running job, never ends, or needs a provider's file."""
QUIET = {"check", "estimate"}
"""Commands whose output is the same wherever they run, so that the pages must show the true one."""


# Every page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


MADE = {block.file for block in blocks("python", "toml", "jinja", "json")} | {"benchmarks/.results"}
"""Files that a page shows for the reader to make, and what `make bench` writes."""
FOLDERS = ("tests/", "pipeline/", "benchmarks/", "docs/", "jobs/", "sample_data/")
MODULES = {
    ".".join(file.relative_to(ROOT / "pipeline").with_suffix("").parts).removesuffix(".__init__"): file
    for file in (ROOT / "pipeline").rglob("*.py")
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_every_test_that_a_page_names_exists(page):
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    for name in quoted(prose(page)):
        if name.startswith(FOLDERS) and name not in MADE:
            assert list(ROOT.glob(name)), f"{page.name} names {name}"
        if name.startswith("test_"):
            assert re.search(rf"\bdef {name}\(", tests), f"{page.name} names {name}"


def test_every_promise_names_its_tests():
    page = ROOT / "docs" / "guarantees.md"
    for promise in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        assert any(name.startswith("tests/") for name in quoted(promise)), promise.splitlines()[0]


def test_every_file_and_every_name_on_the_page_about_the_design_is_one_of_the_code():
    columns = {f"{table}.{plain(cells[0])}" for table in sections(SQL) for cells in rows(SQL, "column", section=table)}
    sources = "".join(file.read_text(encoding="utf-8") for file in MODULES.values())
    for name in quoted(prose(ROOT / "docs" / "design.md")):
        if name.startswith(("JOB.", "NAME.")) or not re.fullmatch(r"[\w/]+(\.\w+)*", name):
            continue
        if name.endswith(("/", ".py", ".toml")):
            found = (
                any(list(place.rglob(name)) for place in (ROOT / "pipeline", ROOT / "tests")) or (ROOT / name).exists()
            )
        elif "." in name:
            found = name in columns or is_in_the_code(name.replace("/", "."))
        else:  # a word of ours, or the name of a class or a constant
            found = name[0].islower() or re.search(rf"^(class )?{name}\b", sources, re.MULTILINE)
        assert found, f"the page names {name}"


def is_in_the_code(name):
    """Tell whether a name such as `planning.decide` or `os.write` can be imported; it may leave out our packages."""
    head, _, attribute = name.rpartition(".")
    homes = [f"pipeline.{module}" for module in MODULES if f".{module}".endswith(f".{head}")]
    if head in sys.stdlib_module_names:
        homes.append(head)
    if "." in head and head.rpartition(".")[2][0].isupper():  # a class and one of its attributes
        home, _, owner = head.rpartition(".")
        return is_in_the_code(head) and hasattr(getattr(importlib.import_module(f"pipeline.{home}"), owner), attribute)
    return any(hasattr(importlib.import_module(home), attribute) for home in homes)


def test_the_page_about_the_design_shows_the_layers_of_the_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = "\n".join(contract["layers"]).replace("pipeline.", "")
    assert f"```\n{layers}\n```" in (ROOT / "docs" / "design.md").read_text()


@pytest.mark.parametrize("command", [c for page in PAGES for c in commands(page)], ids=str)
def test_every_command_on_a_page_is_one_that_exists(command):
    if command.program in OTHER_PROGRAMS:
        return
    assert command.program == "promptmill", f"{command}: is {command.program} a program? then name it in OTHER_PROGRAMS"
    try:
        context = group.make_context("promptmill", list(command.args))
        name, known, rest = group.resolve_command(context, command.args)
        assert known is not None
        known.make_context(name, list(rest), parent=context)
    except click.exceptions.Exit:
        pass  # --help and --version


@pytest.mark.model
def test_the_commands_of_the_pages_run_in_the_order_in_which_they_stand(tmp_path, plain_install):
    for folder in ("jobs", "sample_data"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    project = Project(tmp_path)
    for command in [*commands(README), *commands(CLI)]:
        if command.program != "promptmill" or NOT_RUN.intersection(command.args) or _pays(command.block.text):
            continue
        for kept in tmp_path.glob("*.journal/*.counts"):
            kept.unlink()  # each page shows a first estimate
        done = project.run(*command.args, code=None)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if QUIET.intersection(command.args):
            missing = [line for line in command.output if line.strip() not in {"", "..."} and line not in done.stdout]
            assert not missing, f"{command}\nprints\n{done.stdout}"


def _pays(block):
    """A block that exports a key is about a provider who wants money."""
    return bool(re.search(r"^(\$ )?export \w*KEY", block, re.MULTILINE))


# docs/cli.md


def help_text(name):
    args = ["--help"] if name == "promptmill" else [name, "--help"]
    result = CliRunner().invoke(group, args, prog_name="promptmill", terminal_width=100)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.splitlines())


def with_help(page_text):
    def block(match):
        return f"<!-- help: {match[1]} -->\n\n```text\n{help_text(match[1])}\n```\n\n<!-- end of help -->"

    return re.sub(r"<!-- help: (\w+) -->\n.*?<!-- end of help -->", block, page_text, flags=re.DOTALL)


def test_the_help_texts_on_the_page_are_those_of_the_program():
    text = CLI.read_text(encoding="utf-8")
    assert re.findall(r"<!-- help: (\w+) -->", text) == ["promptmill", *COMMANDS]
    if os.environ.get("UPDATE_DOCS") == "1":
        CLI.write_text(with_help(text), encoding="utf-8")
        text = CLI.read_text(encoding="utf-8")
    assert text == with_help(text), "run UPDATE_DOCS=1 pytest tests/test_docs.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_section_with_an_example(name):
    section = f"promptmill {name}"
    assert section in sections(CLI)
    assert [c for c in commands(CLI) if c.block.section == section and c.args[:1] == [name]]


def options():
    """The options of each command, by their long names."""
    context = click.Context(group)
    for name in COMMANDS:
        for option in group.get_command(context, name).get_params(click.Context(group.get_command(context, name))):
            if isinstance(option, click.Option):
                yield name, max(option.opts, key=len), option


def test_the_shared_options_are_listed_with_the_commands_that_take_them():
    takers = {}
    for name, option, _ in options():
        takers.setdefault(option, []).append(name)
    shared = {option: names for option, names in takers.items() if len(names) > 1}
    assert {plain(cells[0]): cells[1].split(", ") for cells in rows(CLI, "option", "commands")} == shared


def test_the_exit_codes_are_those_that_help_lists():
    said = re.search(r"Exit codes: (.*)", " ".join(group.help.split()))[1]
    assert column(CLI, "code", "meaning") == re.findall(r"\b(\d+) [a-z]", said)


def test_the_environment_variables_are_those_that_are_read():
    read = {option.envvar for _, _, option in options() if option.envvar}
    read |= {preset(name).key_env for name in providers.names()} - {None}
    read |= {"PROMPTMILL_PRICES"}
    listed = {name for cells in rows(CLI, "variable", "meaning") for name in quoted(cells[0])}
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    assert listed == read | proxies | {"SSL_CERT_FILE", "SSL_CERT_DIR"}


def preset(name):
    return providers.find(name, base_url=None, dialect=None, options={})


def test_the_keys_of_json_output_are_those_that_are_listed(tmp_path, stub):
    stub.faults = lambda n, _: status(400) if n == 1 else None
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    project.job()
    assert column(CLI, "key", "meaning", chapter="promptmill estimate") == list(
        printed(project, "estimate", "job.toml")
    )
    facts = printed(project, "estimate", "job.toml", "--pilot", "1", "--compare", "gpt-4.1-nano@openai")
    described = {plain(cells[0]): cells[1] for cells in rows(CLI, "key", "meaning", chapter="promptmill estimate")}
    for key, value in (("output", facts["output"]), ("pilot", facts["pilot"]), ("compare", facts["compare"][0])):
        assert [name for name in quoted(described[key]) if name in value] == list(value), key
    report = json.loads(project.run("run", "job.toml", "--yes", "--json", "--quiet", code=3).stdout)
    assert column(CLI, "key", "meaning", section="promptmill run") == list(report)
    for name, *args in (
        ("check", "job.toml"), ("status",), ("errors", "job.toml"), ("spend", "--by", "job"), ("spend --forecast",),
        ("spend --drift",),
    ):  # fmt: skip
        facts = printed(project, *name.split(), *args)
        keys = [key for key in (facts if isinstance(facts, dict) else facts[0]) if [name, key] != ["spend", "job"]]
        listed = re.search(rf"Keys of `{name} --json`[^`]*?: (.*?)\.( |$)", prose(CLI))[1]
        assert [key for key in quoted(listed) if key != "--by"] == keys, name


def test_the_keys_of_prices_and_of_what_if_are_those_that_are_listed(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    text = prose(CLI)
    (price, *_) = printed(project, "prices", "gpt-5-mini")
    listed = quoted(re.search(r"Keys of `prices --json`, one object a price: (.*?)\. Each contradiction", text)[1])
    assert listed == list(price)
    (charges,) = re.findall(r"Each charge has (.*?)\.( |$)", text)
    assert quoted(charges[0]) == list(price["charges"][0])
    (price, *_) = printed(project, "prices", "gpt-oss-20b", "--provider", "modelslab")
    (listed,) = re.findall(r"Each contradiction has (.*?)\. ", text)
    assert quoted(listed) == list(price["contradictions"][0])
    two_days = ("--at", "2026-10-18", "--at", "2026-11-03")
    for name, args in (("--as", ("--as", "gpt-5-mini@openai")), ("--at --at", two_days)):
        (row,) = printed(project, "spend", *args)
        listed = re.search(rf"Keys of `spend {name} --json`[^`]*?: (.*?)\.( |$)", text)[1]
        assert [key for key in quoted(listed) if key != "--by"] == [key for key in row if key != "job"]


def test_the_keys_of_a_comparison_are_those_that_are_listed(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    (tmp_path / "bill.csv").write_text(f"day,usd\n{project.value('select max(day)::varchar from spend')},0.001\n")
    found = printed(project, "reconcile", "bill.csv")
    described = {plain(cells[0]): cells[1] for cells in rows(CLI, "key", "meaning", section="promptmill reconcile")}
    assert list(described) == list(found)
    assert quoted(described["lines"]) == list(found["lines"][0]) == list(found["totals"][0])
    assert column(CLI, "verdict", "meaning", section="promptmill reconcile") == list(get_args(Verdict))


def printed(project, *args):
    return json.loads(project.run(*args, "--json").stdout)


# docs/python.md


@pytest.mark.parametrize("kind", [Overrides, RunOptions, RunReport])
def test_the_fields_of_what_a_program_gives_and_gets_are_listed(kind):
    listed = column(ROOT / "docs" / "python.md", f"`{kind.__name__}`", "meaning")
    assert listed == [each.name for each in fields(kind)]


# docs/sql.md


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A ledger in which every query of the page finds something: two jobs, good answers and bad ones."""

    def fault(_, payload):
        text = payload["messages"][-1]["content"]
        named = {"row 1 ": NO_USAGE, "row 2 ": status(400), "row 3 ": REFUSAL, "row 4 ": status(503)}
        return next((what for start, what in named.items() if text.startswith(start)), None)

    schema = 'schema = { type = "object", properties = { order_id = { type = "string" } } }'
    with StubServer() as stub:
        stub.faults, stub.answer = fault, lambda _: '{"order_id": "A-1042"}'
        project = Project(tmp_path_factory.mktemp("ledger"), stub.base_url)
        rows = [{**row, "truth_city": f"City {n % 3}", "truth_order_id": "A-1042"} for n, row in enumerate(texts(12))]
        project.rows([*rows, *rows])
        for name in ("orders", "copy"):
            project.job(name, more=f"[output]\n{schema}\n[retry]\nattempts = 1")
            project.run("run", f"{name}.toml", "--yes", code=3)
        project.run("results", "orders.toml", "--with-input", "-o", "rows.parquet")
        yield project


def test_every_table_and_view_is_documented_with_its_columns_and_types(ledger):
    found = {}
    for row in ledger.sql("select * from duckdb_columns() where not internal order by table_name, column_index"):
        kind = row["data_type"].lower().partition("(struct")[0]
        found.setdefault(row["table_name"], []).append([row["column_name"], re.sub(r"^struct\(.*", "struct", kind)])
    documented = {
        name: [[plain(cells[0]), cells[1]] for cells in rows(SQL, "column", "type", section=name)]
        for name in sections(SQL)
    }
    assert {name: columns for name, columns in documented.items() if columns} == found


@pytest.mark.parametrize(
    ("head", "known"),
    [
        ("status", (*get_args(Status), "pending")),
        ("result", get_args(AttemptResult)),
        ("kind", get_args(AttemptKind)),
        ("count method", get_args(CountMethod)),
    ],
)
def test_the_words_for_how_things_ended_are_documented(head, known):
    assert column(SQL, head, "meaning") == list(known)


@pytest.mark.parametrize("block", [block for block in blocks("sql") if block.file is None], ids=str)
def test_every_query_runs_and_those_of_the_sql_page_find_something(ledger, block):
    found = ledger.sql(block.text)
    assert found or block.page != SQL


@pytest.mark.parametrize("block", [block for block in blocks("sql") if block.file is not None], ids=str)
def test_every_query_of_a_file_runs_in_any_duckdb_and_finds_something(ledger, block):
    assert (ledger.folder / block.file).exists()
    with contextlib.chdir(ledger.folder), duckdb.connect() as connection:
        assert connection.execute(block.text).fetchall()


def test_the_sql_page_has_fifteen_recipes_and_more():
    assert len(blocks("sql", pages=(SQL,))) >= 15


def test_dollars_by_a_column_of_the_input_add_up_to_what_the_job_cost(ledger):
    (query,) = [b.text for b in blocks("sql", pages=(SQL,)) if b.file and "sum(input_tokens)" in b.text]
    with contextlib.chdir(ledger.folder), duckdb.connect() as connection:
        by_city = connection.execute(query).fetchall()
    assert [row[1] for row in by_city] == [8, 8, 8]
    cost = ledger.value("select sum(cost_usd) from spend where job = 'orders'")
    assert sum(row[2] for row in by_city) == Decimal(cost) > 0


def test_the_sums_of_results_and_of_attempts_agree_as_the_page_says(ledger):
    (query,) = [block.text for block in blocks("sql", pages=(SQL,)) if "by_attempt" in block.text]
    (sums,) = ledger.sql(query)
    assert sums["by_row"] == sums["by_attempt"] != "0.000000000000"
