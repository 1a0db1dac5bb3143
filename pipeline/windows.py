"""How many tokens a prompt and its answer may have together: from our own small file, else from `genai-prices`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pipeline import _genai


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """The context window of one model at one provider."""

    tokens: int
    """Input and output together."""
    source: str


def context_window(provider: str, model: str) -> ContextWindow | None:
    """Return a model's context window at the provider's own address; None if nobody knows it."""
    own = _own().get((provider, model))
    if own is not None:
        return own
    tokens = _genai.context_tokens(provider, model)
    return None if tokens is None else ContextWindow(tokens, _genai.source())


@cache
def _own() -> Mapping[tuple[str, str], ContextWindow]:
    import tomllib  # noqa: PLC0415 -- only where somebody asks

    text = resources.files("pipeline").joinpath("windows.toml").read_text(encoding="utf-8")
    return {
        (entry["provider"], name): ContextWindow(entry["tokens"], f"{entry['source']} (checked {entry['checked']})")
        for entry in tomllib.loads(text)["window"]
        for name in (entry["model"], *entry.get("aliases", ()))
    }
