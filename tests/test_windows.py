"""Context windows: what is known, who says so, and nothing made up."""

import tomllib
from datetime import date
from importlib import resources

import pytest

from pipeline import _genai
from pipeline.pricing import load_prices
from pipeline.runners._local_model import CONTEXT_TOKENS
from pipeline.windows import ContextWindow, context_window

ENTRIES = tomllib.loads(resources.files("pipeline").joinpath("windows.toml").read_text())["window"]


def test_the_package_tells_the_window_of_a_model_at_a_provider():
    assert context_window("openai", "gpt-4o-mini") == ContextWindow(128_000, _genai.source())
    assert context_window("openai", "gpt-4o-mini-2024-07-18") == ContextWindow(128_000, _genai.source())
    assert context_window("groq", "gpt-oss-20b") == ContextWindow(131_072, _genai.source())


def test_a_window_is_known_even_where_the_price_cannot_be_said_in_our_terms(monkeypatch):
    monkeypatch.setattr(_genai, "_periods", lambda *_: pytest.fail("a price was asked for"))
    assert context_window("anthropic", "claude-haiku-4-5").tokens == 200_000


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-99"),
        ("nobody", "gpt-4o-mini"),
        ("openai", "gpt-oss-20b"),  # not sold there, whatever the package lists
        ("modelslab", "gpt-4o-mini"),
        ("openrouter", "openai/gpt-oss-20b:free"),  # listed without a window
    ],
)
def test_what_nobody_knows_is_none(provider, model):
    assert context_window(provider, model) is None


def test_the_bundled_models_window_is_the_one_that_it_is_started_with():
    assert context_window("local", "smollm2-135m-instruct").tokens == CONTEXT_TOKENS


def test_our_own_entry_needs_no_package_and_names_its_source_and_day(monkeypatch):
    monkeypatch.setattr(_genai, "_data", lambda: pytest.fail("the package was loaded"))
    found = context_window("modelslab", "openai-gpt-oss-20b")
    assert found == context_window("modelslab", "gpt-oss-20b")
    assert found.tokens == 131_072
    assert "ModelsLab itself states none" in found.source
    assert found.source.endswith("(checked 2026-11-24)")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['provider']}-{entry['model']}")
def test_an_entry_of_ours_is_whole_and_says_what_the_package_does_not(entry):
    assert set(entry) - {"aliases"} == {"provider", "model", "tokens", "source", "checked"}
    assert (type(entry["tokens"]), type(entry["checked"])) == (int, date)
    assert entry["source"]
    assert _genai.context_tokens(entry["provider"], entry["model"]) is None


@pytest.mark.parametrize("listing", load_prices().listings, ids=lambda listing: listing.price.model)
def test_the_window_of_every_model_in_our_price_files_is_known(listing):
    for name in (listing.price.model, *listing.aliases):
        assert context_window(listing.price.provider, name).tokens >= 2048
