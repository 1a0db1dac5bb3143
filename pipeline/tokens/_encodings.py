"""OpenAI's tokenizers, built from the package's own data (never the network), and how one text is measured."""

import functools
from typing import NamedTuple

import tiktoken

from pipeline.tokens._ranks import load_ranks

# Pattern strings and special tokens as in tiktoken_ext/openai_public.py of tiktoken 0.14 (MIT licence).
_CL100K_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
_O200K_PATTERN = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_CL100K_SPECIAL = {
    "<|endoftext|>": 100257,
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}
_O200K_SPECIAL = {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
_HARMONY_NAMED = {
    199998: "startoftext",
    199999: "endoftext",
    200002: "return",
    200003: "constrain",
    200005: "channel",
    200006: "start",
    200007: "end",
    200008: "message",
    200012: "call",
}
# Number 200018 has two names: endofprompt (from o200k_base) and reserved_200018, as in tiktoken.
_HARMONY_SPECIAL = _O200K_SPECIAL | {
    f"<|{_HARMONY_NAMED.get(rank, f'reserved_{rank}')}|>": rank for rank in range(199998, 201088)
}
_SHAPES = {
    "cl100k_base": ("cl100k_base", _CL100K_PATTERN, _CL100K_SPECIAL),
    "o200k_base": ("o200k_base", _O200K_PATTERN, _O200K_SPECIAL),
    "o200k_harmony": ("o200k_base", _O200K_PATTERN, _HARMONY_SPECIAL),
}

_PIECE_CHARACTERS = 100_000
_CACHED_TEXTS = 256
_CACHED_CHARACTERS = 32_768


class TextSize(NamedTuple):
    """How large one text is."""

    tokens: int
    utf8_bytes: int
    certain: bool
    """False when the text had to be counted in pieces, or can't be sent as it is (lone surrogates)."""


@functools.cache
def encoding(name: str) -> tiktoken.Encoding:
    """One of `cl100k_base`, `o200k_base`, `o200k_harmony`. The first call takes about half a second."""
    ranks, pattern, special = _SHAPES[name]
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=load_ranks(ranks), special_tokens=dict(special))


def measure(name: str, text: str) -> TextSize:
    """Size of `text` in the encoding called `name`; every special token in it is ordinary text."""
    tokens, whole = count_tokens(encoding(name), text)
    if text.isascii():
        return TextSize(tokens, len(text), whole)
    try:
        return TextSize(tokens, len(text.encode()), whole)
    except UnicodeEncodeError:
        return TextSize(tokens, len(text.encode("utf-8", "surrogatepass")), certain=False)


def measure_repeated(name: str, text: str) -> TextSize:
    """Do the same for texts that come again and again (a system prompt): the newest few are remembered."""
    if len(text) > _CACHED_CHARACTERS:
        return measure(name, text)
    return _remembered(name, text)


_remembered = functools.lru_cache(maxsize=_CACHED_TEXTS)(measure)


def count_tokens(tokenizer: tiktoken.Encoding, text: str) -> tuple[int, bool]:
    """Tokens, and whether the text was counted whole.

    tiktoken gives up on a run of about a million blanks: `ValueError`, or in some versions a Rust panic that
    is not an `Exception`. Such a text is counted in pieces, which may be a few tokens off at the seams.
    """
    try:
        return len(tokenizer.encode(text, disallowed_special=())), True
    except BaseException as error:
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
    pieces = range(0, len(text), _PIECE_CHARACTERS)
    return sum(
        len(tokenizer.encode(text[start : start + _PIECE_CHARACTERS], disallowed_special=())) for start in pieces
    ), False
