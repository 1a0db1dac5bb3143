"""Messages -> a token count, per model family, without the network.

`exact`: OpenAI's published formula for that very model, asked at OpenAI, text only. `formula`: the model's own
tokenizer, but an overhead nobody published as exact. `approximate`: a stand-in tokenizer times a stated factor.
Importing this package is cheap; the tokenizer is loaded with the first count.
"""

from pipeline.records import CountMethod
from pipeline.tokens._counter import Counter
from pipeline.tokens._families import Family, family_of, overhead_is_published
from pipeline.tokens._parts import FILE_BOUND, IMAGE_BOUND, IMAGE_TOKENS, NOTHING_ATTACHED, Attached, attached_to

__all__ = [
    "FILE_BOUND", "IMAGE_BOUND", "IMAGE_TOKENS", "NOTHING_ATTACHED", "Attached", "Counter", "attached_to",
    "counter_for",
]  # fmt: skip


def counter_for(provider: str, model: str, *, overridden: bool = False) -> Counter:
    """Counter for a provider's model; `overridden` says that the job set its own `base_url`."""
    family = family_of(model)
    at_openai = provider == "openai" and not overridden
    method = _method(family, exact=at_openai and overhead_is_published(model))
    # llama.cpp turns a schema into a grammar; the model never reads it.
    return Counter(family, method, _note(family, model, method, at_openai=at_openai), counts_schema=provider != "local")


def _method(family: Family, *, exact: bool) -> CountMethod:
    if exact:
        return "exact"
    return "formula" if family.own_tokenizer else "approximate"


def _note(family: Family, model: str, method: CountMethod, *, at_openai: bool) -> str:
    if method == "approximate":
        return (
            f"{family.encoding} x {family.percent / 100:.2f} stands in for the tokenizer of {family.label}"
            f" ({model}): fair for English, far off for some other languages."
        )
    own = f"{family.encoding} is the tokenizer of {model}"
    if method == "exact":
        return f"{own} and its chat overhead is published: exact for text."
    if at_openai:
        return f"{own}, but its chat overhead is not published: each message may be off by a few tokens."
    return f"{own}, but this server's chat template is not known: each message may be off by a few tokens."
