"""What `promptmill reconcile` doesn't compare, it names."""

import json
from datetime import timedelta

import pytest
from project import Project
from usage_pages import DAY, SNAPSHOT, TWO_DAYS, anthropic_page, book, costs, last_day, page, save, usage


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def found(project, *contents, args=(), code=0):
    """What is said about files with these contents."""
    names = [save(project, content, f"export{n}") for n, content in enumerate(contents)]
    return json.loads(project.run("reconcile", *names, "--json", *args, code=code).stdout)


def notes(project, *contents, args=(), code=0):
    return found(project, *contents, args=args, code=code)["notes"]


# -- columns and keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "ignored"),
    [
        (f"day,model,input_tokens,output_tokens,cost\n2026-11-20,{SNAPSHOT},1500,300,99\n", "cost"),
        ("day,requests,fee,api_key_id,start_time,free,tier\n2026-11-20,2,\u20ac1.50,77,1795132800,0,2-4k\n", "fee"),
        ("day,usd,credit\n2026-11-20,0.75,\n2026-11-20,,9\n", "credit"),
        ("date,usd,USD,total\n2026-11-20,0.75,0.99,1 EUR\n", "USD, total"),
        ("input_tokens,output_tokens,num_model_requests,start_time,amount_value,cost_usd\n1500,300,2,1795132800,3,.7\n",
         "amount_value, cost_usd"),
        (page([usage(input_audio_tokens=77, output_reasoning_tokens=120, batch=True)]),
         "input_audio_tokens, output_reasoning_tokens"),
    ],
)  # fmt: skip
def test_columns_and_keys_with_figures_that_are_not_compared_are_named(project, content, ignored):
    book(project, *TWO_DAYS)
    assert notes(project, content) == [f"export0: not compared: {ignored}"]


def test_what_is_nested_in_a_result_is_named_with_its_place(project):
    book(project, (DAY, 504, 0, 97, "1"), provider="anthropic", model="claude-opus-4-5")
    said = {"uncached_input_tokens": 504, "output_tokens": 97, "model": "claude-opus-4-5",
            "cache_creation": {"ephemeral_1h": 0}, "server_tool_use": {"web_search_requests": 40}}  # fmt: skip
    assert notes(project, anthropic_page(said)) == ["export0: not compared: server_tool_use.web_search_requests"]


def test_a_figure_that_no_file_tells_is_named_and_no_zero(project):
    book(project, (DAY, 504, 0, 97, "1"), provider="anthropic", model="claude-opus-4-5")
    said = (
        "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_output_tokens\n"
        "2026-11-20,claude-opus-4-5-20251101,504,97\n"
    )
    assert found(project, said)["not_told"] == ["requests", "cached_input_tokens", "usd"]
    assert [line["figure"] for line in found(project, said)["lines"]] == ["input_tokens", "output_tokens"]
    shown = project.run("reconcile", save(project, said)).stdout
    assert "not compared, as the files don't tell them: requests, cached_input_tokens, usd" in shown


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (f"day,model,requests,usd\n2026-11-20,{SNAPSHOT},2,\n", "usd is empty in 1 of 1 usage lines"),
        (f"day,model,requests,usd\n2026-11-20,{SNAPSHOT},2,\n2026-11-20,{SNAPSHOT},,0.75\n",
         "requests is empty in 1 of 2 usage lines; usd is empty in 1 of 2 usage lines"),
        (page([usage(input_cached_tokens=None)]), "cached_input_tokens is empty in 1 of 1 usage lines"),
        ("day,usd\n2026-11-20,0.75\n2026-11-19,\n", ""),
    ],
)  # fmt: skip
def test_a_figure_that_is_empty_is_named_and_a_day_without_usage_is_none(project, content, note):
    book(project, *TWO_DAYS)
    assert "; ".join(notes(project, content)) == "; ".join(f"export0: {one}" for one in note.split("; ") if one)


# -- days -------------------------------------------------------------------------------------------


def test_days_between_the_files_are_named_with_what_the_ledger_has_there(project):
    book(project, *TWO_DAYS, (DAY + timedelta(days=5), 10, 0, 1, "1"))
    first, later = "day,usd\n2026-11-20,0.75\n", "day,usd\n2026-11-25,1.00\n"
    assert notes(project, first, later) == [
        "usd: no file tells 2026-11-21; what the ledger has there is not compared: attempts 1, known cost $0.10"
    ]
    usd_of_one = notes(project, page([usage()], [last_day()]), page([costs("0.75")]))
    assert usd_of_one == [
        "usd: no file tells 2026-11-21; what the ledger has there is not compared: attempts 1, known cost $0.10"
    ]


def test_many_days_are_counted(project):
    book(project, *((DAY + timedelta(days=n), 10, 0, 1, "1") for n in range(9)))
    (note,) = notes(project, "day,usd\n2026-11-20,1\n", "day,usd\n2026-11-28,1\n")
    assert "no file tells 2026-11-21, 2026-11-22, 2026-11-23 and 4 more days; " in note
    assert "attempts 7, known cost $7.00" in note


# -- pages ------------------------------------------------------------------------------------------

LATER_PAGE = {"data": page([], [last_day()])["data"][1:], "has_more": False}
CUT_OFF = page([usage()], has_more=True)
NOTE = "export0: its last page says has_more: days are missing; fetch the next pages too"


@pytest.mark.parametrize(
    "contents",
    [
        (CUT_OFF,),
        ([CUT_OFF, page([costs("0.75")], [costs("0.10")])],),  # the finished page is of another kind
        (CUT_OFF, page([costs("0.75")], [costs("0.10")])),
    ],
)
def test_nothing_agrees_while_a_page_is_missing(project, contents):
    book(project, *TWO_DAYS)
    said = found(project, *contents, code=3)
    assert said["agrees"] is False
    assert NOTE in said["notes"]
    shown = project.run("reconcile", save(project, CUT_OFF), code=3).stdout
    assert "4 of 4 figures agree" in shown
    assert "pages of the export are missing: what agrees is not all of it" in shown


@pytest.mark.parametrize("contents", [([CUT_OFF, LATER_PAGE],), (CUT_OFF, LATER_PAGE), (LATER_PAGE, CUT_OFF)])
def test_the_next_page_may_be_in_the_same_file_or_in_another(project, contents):
    book(project, *TWO_DAYS)
    assert found(project, *contents)["notes"] == []


@pytest.mark.parametrize("together", [True, False])
def test_a_page_in_the_middle_may_not_be_missing(project, together):
    book(project, *TWO_DAYS)
    pages = page([usage()], [last_day()], [], [])["data"]
    first, third = ({"data": pages[:1], "has_more": True}, {"data": pages[3:], "has_more": False})
    said = found(project, *([[first, third]] if together else [first, third]), code=3)
    assert NOTE in said["notes"]
    whole = {"data": pages[1:3], "has_more": True}
    assert found(project, first, whole, third)["notes"] == []


def test_a_page_on_which_nothing_was_used_is_a_page(project):
    book(project, *TWO_DAYS)
    quiet = {"data": page([usage()], [], [])["data"][1:], "has_more": False}
    said = found(project, CUT_OFF, quiet, code=3)
    assert said["notes"] == []
    only_ours = {(line["day"], line["figure"]) for line in said["lines"] if line["verdict"] == "only ledger"}
    assert ("2026-11-21", "input_tokens") in only_ours, "the page says that nothing was used on its days"
    assert (
        "no usage in it; export a period that has some" in project.run("reconcile", save(project, quiet), code=2).stderr
    )


def test_a_csv_with_our_own_names_may_stand_beside_one_whose_columns_are_named(project):
    book(project, *TWO_DAYS)
    save(project, "on,cost\n2026-11-20,0.75\n", "a.csv")
    save(project, "day,usd,project\n2026-11-21,0.10,42\n", "b.csv")
    done = project.run("reconcile", "a.csv", "b.csv", "--columns", "day=on,usd=cost", "--json")
    assert json.loads(done.stdout)["notes"] == []


# -- twice ------------------------------------------------------------------------------------------


def test_what_two_files_tell_of_the_same_day_and_model_is_named(project):
    book(project, *TWO_DAYS)
    (note,) = notes(project, page([usage()], [last_day()]), page([usage()]), code=3)
    assert note.startswith(
        "export0 and export1 both tell requests, input_tokens, cached_input_tokens, output_tokens of "
    )
    assert note.endswith("2026-11-20: added up; leave one out if it is the same usage")
    assert notes(project, page([usage()]), LATER_PAGE) == []
