"""Whose price counts: the user's, the project's, the package's; by provider, model and day."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import genai_prices
import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from project import Project, texts

from pipeline import _genai, pricebook
from pipeline.errors import PriceError
from pipeline.pricebook import Prices, Target, find_prices, stale
from pipeline.pricing import Price, cost_usd, load_prices
from pipeline.records import Usage

D = Decimal
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINE = """
[[price]]
provider = "openai"
model = "gpt-5-mini"
input = "9"
output = "9"
effective_from = 2026-11-20
source = "my contract"
[[price]]
provider = "openai"
model = "gpt-5-mini"
input = "8"
output = "8"
effective_from = 2026-12-01
source = "my contract"
[[price]]
provider = "openai"
model = "gpt-5-mini"
input = "7"
output = "7"
effective_from = 2027-12-01
source = "my contract"
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text(MINE)
    return file


def found(user_file=None, *, provider="openai", model="gpt-5-mini", at=NOW, stated=None, base_url=None):
    prices = find_prices(provider, model, at, stated=stated, base_url=base_url, user_file=user_file)
    return [(price.input, price.source) for price in prices]


def test_a_stated_price_goes_before_the_users_file_and_that_before_the_projects_and_that_before_the_package(mine):
    stated = Price("openai", "gpt-5-mini", D(1), D(1), source="--price")
    assert found(mine, stated=stated) == [(1, "--price")]
    assert found(mine)[0] == (9, "my contract")
    assert found()[0] == (D("0.25"), "genai-prices 0.2.3, from developers.openai.com/api/docs/pricing")
    assert found(model="gpt-5.4-mini")[0][1] == _genai.source()
    assert found(model="gpt-99") == []
    assert found(provider="nobody") == []


def test_a_list_counts_from_the_day_on_which_its_price_begins(mine):
    at = datetime(2026, 11, 19, 23, 59, 59, tzinfo=UTC)
    assert found(mine, at=at)[0][0] == D("0.25")
    assert found(mine, at=at + timedelta(seconds=1))[0][0] == 9


def test_a_run_gets_every_price_that_begins_within_thirty_days(mine):
    assert [usd for usd, _ in found(mine)] == [9, 8]
    assert [usd for usd, _ in found(mine, at=datetime(2026, 11, 1, tzinfo=UTC))] == [D("0.25"), 9, 8]
    assert [usd for usd, _ in found(mine, at=datetime(2026, 10, 31, tzinfo=UTC))] == [D("0.25"), 9]


def test_list_prices_say_nothing_about_another_address_but_the_users_own_file_does(mine):
    assert found(base_url="http://127.0.0.1/v1") == []
    assert found(mine, base_url="http://127.0.0.1/v1")[0][0] == 9
    assert found(mine, model="gpt-4.1-mini", base_url="http://127.0.0.1/v1") == []


def test_our_own_files_are_enough_without_loading_the_package(monkeypatch):
    monkeypatch.setattr(_genai, "_data", lambda: pytest.fail("the package was loaded"))
    assert found()
    assert found(base_url="http://127.0.0.1/v1") == []


def test_a_price_file_that_cannot_be_read_or_is_wrong_is_named(tmp_path):
    with pytest.raises(PriceError, match=r"the price file .*none\.toml can't be read"):
        Prices(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[[price]]\n")
    with pytest.raises(PriceError, match=r"bad\.toml: \[\[price\]\] 1: provider is missing"):
        Prices(tmp_path / "bad.toml")


@pytest.mark.parametrize(("days", "marked"), [(90, False), (91, True)])
@pytest.mark.parametrize(
    ("dates", "words"),
    [
        ({"checked": date(2026, 1, 1)}, "was last checked on 2026-01-01, more than 90 days ago"),
        ({"checked": date(2026, 1, 1), "effective_from": date(2020, 1, 1)}, "was last checked on 2026-01-01"),
        ({"effective_from": date(2026, 1, 1)}, "is of 2026-01-01, more than 90 days ago, and nobody says that"),
    ],
)
def test_a_price_that_nobody_checked_for_ninety_days_is_marked(days, marked, dates, words):
    price = Price("p", "m", D(1), D(1), source="a page", **dates)
    said = stale(price, date(2026, 1, 1) + timedelta(days=days))
    assert (said is not None) == marked
    assert said is None or (words in said and ": compare it with a page" in said)


def test_a_price_without_any_day_is_marked_as_of_unknown_age():
    said = stale(Price("p", "m", D(1), D(1), source="a page"), date(2026, 1, 1))
    assert (
        said
        == "nobody says when the price of m at p was checked: compare it with a page, and write `checked` beside it"
    )


def test_what_runs_on_the_users_own_machine_gets_no_dearer():
    (price,) = find_prices("local", "smollm2-135m-instruct", NOW, stated=None, base_url=None, user_file=None)
    assert stale(price, date(2036, 1, 1)) is None


def test_a_price_of_the_package_is_as_old_as_the_package():
    price = Price("p", "m", D(1), D(1), source=_genai.source(), effective_from=date(2020, 1, 1))
    newest = _genai.newest_day(NOW.date())
    assert newest <= NOW.date()  # the package also knows of days to come
    assert stale(price, NOW.date()) is None
    later = max(_genai._days()) + timedelta(days=91)
    assert f"which has no price newer than {max(_genai._days())}, more than 90 days ago: update" in stale(price, later)


def test_what_the_user_states_for_this_job_is_of_today_and_never_marked(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    project.job()
    assert "nobody says" not in project.run("check", "job.toml").stderr
    assert "nobody says" not in project.run("check", "job.toml", "--price", "1,2").stderr


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("gpt-4o-mni",), "gpt-4o-mini"),
        (("gpt-5-mini", "--provider", "openia"), "openai"),
        (("gpt-5@openia",), "openai"),
    ],
)
def test_a_mistyped_model_or_provider_names_the_nearest_one(tmp_path, arguments, near):
    assert f"; did you mean {near!r}?" in Project(tmp_path).run("prices", *arguments, code=2).stderr


def test_a_model_may_be_named_with_its_provider(tmp_path):
    project = Project(tmp_path)
    named = project.run("prices", "gpt-5-mini@openai").stdout
    assert named == project.run("prices", "gpt-5-mini", "--provider", "openai").stdout


def test_the_users_price_file_is_used_by_a_run_and_old_prices_are_marked(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    text = project.job().read_text()
    (tmp_path / "job.toml").write_text(text[: text.index("[price]")])
    usual = tmp_path / ".config" / "promptmill"
    usual.mkdir(parents=True)
    entry = '[[price]]\nprovider = "stub"\nmodel = "test-model"\ninput = "0.25"\noutput = "2"\nsource = "s"\n'
    (usual / "prices.toml").write_text(entry + "checked = 2020-01-01\n")
    (tmp_path / "other.toml").write_text(entry)
    assert "last checked on 2020-01-01" in project.run("check", "job.toml").stderr
    project.environ["PROMPTMILL_PRICES"] = "other.toml"
    assert "nobody says when the price of test-model at stub was checked" in project.run("check", "job.toml").stderr
    (tmp_path / "other.toml").write_text(f"{entry}checked = {datetime.now(UTC).date()}\n")
    assert "checked" not in project.run("check", "job.toml").stderr
    project.run("run", "job.toml", "--yes")
    assert D(project.value("select sum(cost_usd) from attempts")) == stub.bill


def test_a_run_keeps_the_prices_that_may_come_into_force_and_each_attempt_names_its_own(tmp_path, stub):
    project = Project(tmp_path, stub.base_url, environ={"PROMPTMILL_PRICES": "mine.toml"})
    project.rows(texts(1))
    text = project.job().read_text()
    (tmp_path / "job.toml").write_text(text[: text.index("[price]")])
    entry = '[[price]]\nprovider = "stub"\nmodel = "test-model"\noutput = "2"\nsource = "s"\n'
    today = datetime.now(UTC).date()
    (tmp_path / "mine.toml").write_text(
        f'{entry}input = "0.25"\n{entry}input = "9"\neffective_from = {today + timedelta(days=9)}\n'
        f'[[price.above]]\ninput_tokens_over = 7\ninput = "1"\noutput = "1"\n'
    )
    project.run("run", "job.toml", "--yes")
    now, later = project.sql("select price_id, input, effective_from, terms from prices order by input")
    assert (D(now["input"]), D(later["input"]), later["effective_from"]) == (
        D("0.25"),
        9,
        str(today + timedelta(days=9)),
    )
    assert (now["terms"] is None, "input_tokens_over" in str(later["terms"])) == (True, True)
    assert project.value("select price_id from attempts") == now["price_id"]
    assert D(project.value("select cost_usd from attempts")) == stub.bill


# --- targets


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("gpt-5-mini", Target("gpt-5-mini")),
        ("gpt-oss-20b@groq:batch", Target("gpt-oss-20b", "groq", "batch")),
        ("gpt-5-mini:flex", Target("gpt-5-mini", None, "flex")),
        ("deepseek/deepseek-chat:free@openrouter", Target("deepseek/deepseek-chat:free", "openrouter")),
        ("m:batch@openrouter", Target("m:batch", "openrouter")),
        ("llama3:8b", Target("llama3:8b")),
        ("a@b@groq", Target("a@b", "groq")),
    ],
)
def test_a_target_is_a_model_perhaps_a_provider_perhaps_a_lane(text, target):
    assert Target.parse(text) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["", "@groq", "m@", ":batch", "m@groq:fast"])
def test_what_is_no_target_is_refused_and_quoted(text):
    with pytest.raises(PriceError, match="write MODEL, MODEL@PROVIDER"):
        Target.parse(text)


# --- what a provider's lanes cost


@pytest.mark.parametrize(
    ("provider", "lane", "usd"),
    [
        ("anthropic", "batch", "0.000621375"),
        ("mistral", "batch", "0.000621375"),
        ("groq", "flex", "0.00124275"),
        ("groq", "batch", None),  # it has no price for cache writes: what they cost in a batch is not known
        ("fireworks", "batch", None),
        ("together", "batch", None),
        ("openrouter", "batch", None),
        ("openai", "batch", None),
    ],
)
def test_lanes_stack_as_the_provider_says(tmp_path, provider, lane, usd):
    entry = 'model = "m"\ninput = "1"\noutput = "5"\ncached_input = "0.1"\ncache_write = "1.25"\nsource = "s"\n'
    (tmp_path / "p.toml").write_text(f'[[price]]\nprovider = "{provider}"\n{entry}')
    price = Prices(tmp_path / "p.toml").find(provider, "m", NOW)
    assert price.sells(lane) is (usd is not None)
    if usd is not None:
        assert cost_usd(price, Usage(504 + 123 + 1000, 97, 1000, 123), lane=lane) == D(usd)
    assert not price.sells("priority")


@pytest.mark.parametrize(
    ("provider", "cached", "usd"),
    [
        ("groq", None, "2.5"),
        ("groq", "1", "2.5"),
        ("groq", "0.1", "2.5"),
        ("groq", "1.6", "2.5"),
        ("fireworks", None, "2.5"),
        ("fireworks", "1", None),
        ("mistral", "1", "2.25"),
        ("google", None, None),
    ],
)
@pytest.mark.parametrize("over", [None, 10])
def test_half_price_in_a_batch_stacks_with_cached_tokens_as_the_provider_says_or_is_unknown(
    tmp_path, provider, cached, usd, over
):
    rates = 'input = "2"\noutput = "5"\n' + (f'cached_input = "{cached}"\n' if cached else "")
    entry = f'[[price]]\nprovider = "{provider}"\nmodel = "m"\nsource = "s"\n'
    if over is None:
        entry += rates
    else:
        entry += f'input = "20"\noutput = "50"\n[[price.above]]\ninput_tokens_over = {over}\n{rates}'
    (tmp_path / "p.toml").write_text(entry)
    price = Prices(tmp_path / "p.toml").find(provider, "m", NOW)
    assert price.sells("batch") is (usd is not None)
    if usd is not None:
        assert cost_usd(price, Usage(1_500_000, 400_000, 500_000), lane="batch") == D(usd)


@pytest.mark.parametrize("provider", ["groq", "mistral"])
def test_the_rules_for_batches_agree_with_every_batch_price_that_the_package_knows(provider):
    compared = 0
    for model in _genai._models(provider):
        price = next(iter(_genai.history(provider, model.id)), None)
        if price is not None and price.sells("batch"):
            by_rule = pricebook._with_lanes(replace(price, lanes=()), provider)
            usage = Usage(1_000_000, 100_000, 300_000)
            assert cost_usd(by_rule, usage, lane="batch") == cost_usd(price, usage, lane="batch"), model.id
            compared += 1
    assert compared > 1


# --- the package


def test_every_price_taken_from_the_package_charges_what_the_package_does():
    days = [datetime(*day, 3, 30, tzinfo=UTC) for day in ((2025, 1, 6), (2026, 10, 10), (2026, 11, 24))]
    usages = [Usage(1000, 50), Usage(300_001, 9, 1000, 10)]
    book, compared = Prices(), 0
    for provider in _genai._data():
        for model in provider.models:
            if _genai._model(provider.id, model.id) is not model:
                continue
            for at in days:
                price = book.quotes_of(provider.id, model.id, at)
                price = next((quote.price for quote in price if quote.where == _genai.source()), None)
                if price is None:
                    continue
                for usage in usages:
                    theirs = genai_prices.Usage(
                        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens,
                        cache_read_tokens=usage.cached_input_tokens, cache_write_tokens=usage.cache_write_tokens,
                    )  # fmt: skip
                    said = model.calc_price(theirs, provider, genai_request_timestamp=at).total_price
                    assert cost_usd(price, usage, at=at) == round(said, 12), (provider.id, model.id, at)
                    compared += 1
    assert compared > 10_000


def made(prices, variants=None):
    model = ModelInfo("m", ClauseEquals("m"), prices=prices, price_variants=variants)
    return SimpleNamespace(id="p", models=[model])


def rate(usd):
    return ModelPrice(input_mtok=D(usd), output_mtok=D(usd))


def converted(monkeypatch, *args):
    monkeypatch.setattr(_genai, "_data", lambda: [made(*args)])
    return _genai._history.__wrapped__("p", "m")


def test_dates_hours_tiers_and_lanes_of_the_package_are_kept(monkeypatch):
    start = StartDateConstraint(date(2026, 11, 3))
    hours = TimeOfDateConstraint(datetime(1, 1, 1, 1).time(), datetime(1, 1, 1, 4).time())  # noqa: DTZ001 -- a time
    newer, older = converted(
        monkeypatch, [ConditionalPrice(prices=rate(1)), ConditionalPrice(start, prices=rate(2)),
                      ConditionalPrice(hours, prices=rate(3))],
    )  # fmt: skip
    assert (newer.input, newer.effective_from, older.input, older.effective_from) == (2, date(2026, 11, 3), 1, None)
    assert cost_usd(newer, Usage(10**6, 0), at=datetime(2026, 11, 24, 1, tzinfo=UTC)) == 3
    assert "every day of the week" in newer.note
    tiers = TieredPrices(base=D(1), tiers=[Tier(start=100, price=D(5))])
    lane = PriceVariant({"processing": "batch"}, ModelPrice(output_mtok=D(1)), start)
    newer, older = converted(monkeypatch, ModelPrice(input_mtok=tiers, output_mtok=D(2)), [lane])
    assert cost_usd(newer, Usage(101, 10**6), lane="batch") == D("1.000505")
    assert cost_usd(newer, Usage(100, 10**6), lane="batch") == D("1.0001")
    assert not older.sells("batch")
    without_tiers = PriceVariant({"processing": "batch"}, ModelPrice(input_mtok=D(1), output_mtok=D(1)))
    (price,) = converted(monkeypatch, ModelPrice(input_mtok=tiers, output_mtok=D(2)), [without_tiers])
    assert not price.sells("batch")  # what it asks beyond 100 tokens is not known


@pytest.mark.parametrize(
    "prices",
    [
        ModelPrice(input_mtok=D(1)),
        ModelPrice(input_mtok=D(1), output_mtok=D(1), output_citation_mtok=D(1)),
        ModelPrice(input_mtok=D(1), output_mtok=D("0.0000000000001")),
        [ConditionalPrice(StartDateConstraint(date(2026, 2, 1)), prices=rate(1)),
         ConditionalPrice(StartDateConstraint(date(2026, 1, 1)), prices=rate(1))],
    ],
)  # fmt: skip
def test_what_cannot_be_said_exactly_is_unknown(monkeypatch, prices):
    assert converted(monkeypatch, prices) == ()


def test_a_model_is_not_found_at_a_provider_that_does_not_sell_it():
    assert Prices().find("openai", "gpt-oss-20b", NOW) is None
    assert Prices().find("azure", "gpt-99", NOW) is None
    assert Prices().find("groq", "gpt-oss-20b", NOW).model == "openai/gpt-oss-20b"
    sellers = Prices().sellers("gpt-oss-20b", NOW)
    assert {"modelslab", "groq"} <= set(sellers)
    assert "openai" not in sellers


@pytest.mark.parametrize("listing", load_prices().listings, ids=lambda listing: listing.price.model)
def test_our_own_prices_agree_with_the_package_in_every_lane_where_it_has_them(listing):
    price = listing.price
    theirs = next(iter(_genai.history(price.provider, price.model)), None)
    if theirs is not None:
        ours = list(map(without_weekdays, price.charges()))
        assert all(charge in ours for charge in map(without_weekdays, theirs.charges()))


def without_weekdays(charge):
    """What a charge asks at which hours; the package knows no weekdays."""
    hours = charge.window and (charge.window.utc_from, charge.window.utc_to.replace(tzinfo=None))
    return charge.lane, hours and (hours[0].replace(tzinfo=None), hours[1]), charge.input_tokens_over, charge.dollars


@pytest.mark.parametrize(
    ("at", "usd"),
    [
        ("2026-11-27T00:59:59Z", "0.15"),  # a Friday
        ("2026-11-27T01:00:00Z", "0.3"),
        ("2026-11-27T03:59:00Z", "0.3"),
        ("2026-11-27T04:00:00Z", "0.15"),
        ("2026-11-27T09:59:00Z", "0.3"),
        ("2026-11-27T10:00:00Z", "0.15"),
        ("2026-11-28T02:00:00Z", "0.15"),  # Saturday: the package alone would take the dear price
    ],
)
def test_deepseek_is_dear_in_beijings_working_hours_and_not_on_weekends(at, usd):
    moment = datetime.fromisoformat(at)
    price = Prices().find("deepseek", "deepseek-flash", moment)
    assert cost_usd(price, Usage(1_000_000, 0), at=moment) == D(usd)
