"""How large texts are in one encoding, with the fastest library that can be trusted."""

import importlib.metadata
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

from pipeline.tokens import _fast
from pipeline.tokens._check import CountMany, difference
from pipeline.tokens._encodings import (
    ORDINARY_CHARACTERS,
    TextSize,
    count_many,
    is_panic,
    measure,
    utf8_bytes,
)

LONG_S = "\u017f"
"""A letter of old prints, which toktok 0.3 splits otherwise behind an apostrophe: tiktoken counts texts with it.

(There are others, all of scripts that Unicode has had for a few years only.)"""


class Tokenizer:
    """Measures texts. Safe to use from several threads; nothing is loaded before the first text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.library: str | None = None
        """What counts: `tiktoken` or `toktok`; None before the first text."""
        self.problem: str | None = None
        """Why the fast library is installed and not used, for people; None if all is well."""
        self._count_many: CountMany | None = None
        self._starting = threading.Lock()

    def measure_all(self, texts: Sequence[str]) -> list[TextSize]:
        """Return the texts' sizes, in order. Huge ones are left to tiktoken, which may give up and count in pieces."""
        if self.library is None:
            self._start()
        if self._count_many is None:
            return [measure(self.name, text) for text in texts]
        ordinary = [len(text) <= ORDINARY_CHARACTERS and LONG_S not in text for text in texts]
        if all(ordinary):
            with suppress(UnicodeEncodeError):  # half a surrogate pair: below it is known which text has it
                return [
                    # Encoding last costs next to nothing: the library has left the text its UTF-8.
                    TextSize(count, len(text) if text.isascii() else len(text.encode()), certain=True)
                    for text, count in zip(texts, self._counted(texts, sound=False), strict=True)
                ]
        sizes = [utf8_bytes(text) if each else None for text, each in zip(texts, ordinary, strict=True)]
        counts = iter(
            self._counted([text for text, size in zip(texts, sizes, strict=True) if size is not None], sound=True)
        )
        return [
            measure(self.name, text) if size is None else TextSize(next(counts), size, certain=True)
            for text, size in zip(texts, sizes, strict=True)
        ]

    def _counted(self, texts: Sequence[str], *, sound: bool) -> list[int]:
        """Count whole texts of a size that neither library gives up on.

        Raises UnicodeEncodeError if they are not known to be `sound`, and one has half a surrogate pair.
        """
        counting = self._count_many
        if counting is not None:
            try:
                counts = counting(list(texts))
            except BaseException as error:  # a panic of the library is not an `Exception`
                if isinstance(error, UnicodeEncodeError) and not sound:
                    raise
                self._give_up(_failure(error))
            else:
                if len(counts) == len(texts):
                    return counts
                self._give_up(f"it returned {len(counts)} counts for {len(texts)} texts")
        return [measure(self.name, text).tokens for text in texts]

    def _start(self) -> None:
        with self._starting:
            if self.library is not None:
                return
            problem = self._use(_fast.MODULE, _fast.load) if _fast.installed() else None
            if problem is not None:
                self._give_up(problem)
            if self._count_many is None:
                self._use("tiktoken", count_many)  # its inner way: what is wrong with it is not worth a word
                self.library = "tiktoken"

    def _use(self, library: str, load: Callable[[str], CountMany | None]) -> str | None:
        """Count this way if it is there and agrees with tiktoken's public one; return what is wrong with it."""
        try:
            counting = load(self.name)
            problem = None if counting is None else difference(counting, self.name)
        except BaseException as error:  # noqa: BLE001 -- a panic of the library is not an `Exception`
            return _failure(error)
        if counting is not None and problem is None:
            self._count_many, self.library = counting, library
        return problem

    def _give_up(self, why: str) -> None:
        """Let tiktoken's public way count from here on; what was counted before stays: it passed the check."""
        self._count_many = None
        if self.library == "tiktoken":
            return  # its inner way: the same counts a little slower are not worth a word
        self.library = "tiktoken"
        self.problem = self.problem or (
            f"the fast tokenizer {_fast.DISTRIBUTION} {_fast.version()} is not used for {self.name}: {why}. tiktoken"
            f" counts instead, more slowly; upgrade {_fast.DISTRIBUTION}, or uninstall it"
        )


@cache
def tokenizer(name: str) -> Tokenizer:
    """Return the process's one tokenizer for an encoding."""
    return Tokenizer(name)


def libraries() -> list[str]:
    """Name and version of everything that may count here: what a kept count depends on, without loading it."""
    fast = [f"{_fast.MODULE} {_fast.version()}"] if _fast.installed() else []
    return [f"tiktoken {importlib.metadata.version('tiktoken')}", *fast]


def _failure(error: BaseException) -> str:
    """Describe what a library did. Raises the error if it is not its own (Ctrl-C)."""
    if not isinstance(error, Exception) and not is_panic(error):
        raise error
    return f"it failed with {type(error).__name__}: {str(error)[:200]}"
