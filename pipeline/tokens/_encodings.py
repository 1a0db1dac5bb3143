"""OpenAI's tokenizers, built from the package's own data (never the network), and how one text is measured."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tiktoken

from pipeline.tokens._ranks import load_ranks

# Special tokens as in tiktoken_ext/openai_public.py of tiktoken 0.14 (MIT licence), and patterns that match the same.
# There seven alternatives are tried one after the other, which is up to half of what counting costs; what is one group
# here goes as a whole to a finite automaton. It may hold nothing that looks around or is possessive, and cl100k's
# possessive marks change no match: what they keep an alternative from giving back would not help it.
_CL100K_PATTERN = (
    r"""(?:'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n])"""
    r"""|\s+(?!\S)|\s"""
)
_O200K_PATTERN = (
    r"""(?:[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+)|\s+(?!\S)|\s+"""
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

_NO_SPECIAL: frozenset[str] = frozenset()
_TOKEN_BYTES = 4
_PIECE_CHARACTERS = 100_000
ORDINARY_CHARACTERS = 500_000
"""Up to here `encode_ordinary` does the same for a tenth less; on far longer runs of blanks it panics, loudly."""


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


def count_many(name: str) -> Callable[[list[str]], list[int]] | None:
    """Return what counts whole texts of ordinary length without a Python list of their tokens.

    It does what `Encoding.encode_to_numpy` does, which wants numpy: a tenth less processor time on one thread, up to a
    third on two, for making the list needs the interpreter's lock. A text with half a surrogate pair is a
    UnicodeEncodeError. None where tiktoken has no such way: it is not public.
    """
    core = getattr(encoding(name), "_core_bpe", None)
    encode = getattr(core, "encode_to_tiktoken_buffer", None)
    if encode is None:
        return None
    return lambda texts: [memoryview(encode(text, _NO_SPECIAL)).nbytes // _TOKEN_BYTES for text in texts]


def measure(name: str, text: str) -> TextSize:
    """Size of `text` in the encoding called `name`; every special token in it is ordinary text."""
    tokens, whole = count_tokens(encoding(name), text)
    size = utf8_bytes(text)
    if size is None:
        return TextSize(tokens, len(text.encode("utf-8", "surrogatepass")), certain=False)
    return TextSize(tokens, size, whole)


def utf8_bytes(text: str) -> int | None:
    """Length of the text in UTF-8, None if it has lone surrogates and so can't be sent as it is."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def count_tokens(tokenizer: tiktoken.Encoding, text: str) -> tuple[int, bool]:
    """Tokens, and whether the text was counted whole.

    tiktoken gives up on a run of about a million blanks: `ValueError`, or in some versions a Rust panic that
    is not an `Exception`. Such a text is counted in pieces, which may be a few tokens off at the seams.
    """
    try:
        if len(text) <= ORDINARY_CHARACTERS:
            return len(tokenizer.encode_ordinary(text)), True
        return len(tokenizer.encode(text, disallowed_special=())), True
    except BaseException as error:
        if not isinstance(error, ValueError) and not is_panic(error):
            raise
    pieces = range(0, len(text), _PIECE_CHARACTERS)
    return sum(
        len(tokenizer.encode(text[start : start + _PIECE_CHARACTERS], disallowed_special=())) for start in pieces
    ), False


def is_panic(error: BaseException) -> bool:
    """Tell whether this is a Rust panic, which is not an `Exception`."""
    return type(error).__name__ == "PanicException"
