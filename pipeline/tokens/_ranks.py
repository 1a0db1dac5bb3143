"""The rank files of OpenAI's tokenizers, shipped in a compact form that rebuilds the official files exactly.

Ranks in the official `.tiktoken` files are the numbers 0, 1, 2, ... in order, so only the tokens need storing:
a count (4 bytes), every token's length (1 byte each), then all token bytes, compressed with xz.
"""

import hashlib
import lzma
from base64 import b64decode, b64encode
from collections.abc import Sequence
from importlib import resources
from itertools import accumulate, pairwise

from pipeline.errors import PromptmillError

OFFICIAL_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
"""SHA-256 of the files that OpenAI publishes, as tiktoken itself checks them."""
PACKED_SHA256 = {
    "o200k_base": "e752ddc77bed77e0bde2523864e0f27449fb14d2fc2b552a982a3175a60a0414",
    "cl100k_base": "fd67996b716c37e4238e7729a67d42a07c46152161ae005b1ae351bde2d299a1",
}
"""Of the shipped files, which the tests unpack to the official ones: doing that at every start takes 0.07 s."""

# A literal context of four bits and a dictionary that covers the whole file gave the smallest result.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def pack(official: bytes) -> bytes:
    """Compact form of an official `.tiktoken` file. How the files in `data/` were made."""
    tokens = []
    for expected, line in enumerate(official.splitlines()):
        token, rank = line.split()
        if int(rank) != expected:
            raise ValueError(f"rank {int(rank)} stands where {expected} was expected")
        tokens.append(b64decode(token))
    payload = len(tokens).to_bytes(4, "big") + bytes(map(len, tokens)) + b"".join(tokens)
    return lzma.compress(payload, format=lzma.FORMAT_XZ, filters=_FILTERS)


def unpack(packed: bytes) -> bytes:
    """Give back the official `.tiktoken` file, byte for byte."""
    return _official(_tokens(packed))


def _tokens(packed: bytes) -> list[bytes]:
    payload = lzma.decompress(packed)
    start = 4 + int.from_bytes(payload[:4], "big")
    ends = accumulate(payload[4:start], initial=start)
    return [payload[begin:end] for begin, end in pairwise(ends)]


def _official(tokens: Sequence[bytes]) -> bytes:
    return b"".join(b"%b %d\n" % (b64encode(token), rank) for rank, token in enumerate(tokens))


def verified_ranks(name: str, packed: bytes) -> dict[bytes, int]:
    """Token bytes -> rank, after proving that `packed` is the file that was shipped as `name`."""
    if hashlib.sha256(packed).hexdigest() != PACKED_SHA256[name]:
        raise _damaged(name, "its SHA-256 is not that of the file that was shipped")
    return {token: rank for rank, token in enumerate(_tokens(packed))}


def load_ranks(name: str) -> dict[bytes, int]:
    """Ranks of `o200k_base` or `cl100k_base` from the package's own data, verified."""
    try:
        packed = resources.files("pipeline.tokens").joinpath("data", f"{name}.xz").read_bytes()
    except OSError as error:
        raise _damaged(name, f"it can't be read: {error.strerror}") from error
    return verified_ranks(name, packed)


def _damaged(name: str, why: str) -> PromptmillError:
    return PromptmillError(
        f"The tokenizer file {name}.xz inside the installed package is damaged ({why}). "
        "Install promptmill again; no token was counted."
    )
