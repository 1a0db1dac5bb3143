"""The optional tokenizer in Rust (`toktok-rs`, the extra `fast`): used only as long as it agrees with tiktoken."""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial

CountMany = Callable[[list[str]], list[int]]

MODULE, DISTRIBUTION = "toktok", "toktok-rs"

HARD_CASES = (
    "The quick brown fox jumps over the lazy dog; it's 12:30, isn't it? WE'LL see, DON'T shout.\n",
    "camelCaseWords, HTTPServer, snake_case_words, kebab-case-words, ALLCAPS, i18n, v1.2.3-rc4, 3rd, x86_64",
    "Grüße aus Köln — naïve café, Ελληνικά: Ξεσκεπάζω, Русский: съешь ещё, Türkçe: İıŞş, tiếng Việt: Chuyện dài.",
    "नमस्ते दुनिया, क्षत्रिय! தமிழ் வணக்கம். ภาษาไทยไม่มีช่องว่าง. עברית: שָׁלוֹם. العربية: مَرْحَبًا بِالعَالَم ١٢٣٤٥",
    "漢字かな交じり文、カタカナ。한국어 문장입니다. 中文没有空格,标点「引号」……1234567890",
    "🙂🙃😀 👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ☕️ e\u0301 a\u0308\u0323 \u200d\u200b\ufeff\u00a0x\u2028y\u3000z",
    "\x00\x01\x7f \ud7ff\ue000\uffff\U0010ffff \u0130\u0131\u017f\u212a ǅ ʰ ªº ①② Ⅷ ½ ٣ \U0001d7d8\U0001d49c",
    "def f(x: int) -> dict[str, Any]:\n    return {'a': [1, 2.5e-10], 'b': x**2 // 3}  # why\n\n\n",
    '\tif (a&&b) {\r\n\t\t;;;}\r\n\r\n<div class="x">&nbsp;</div> $1,234,567.89 1/2/2026 #!/bin/sh\n//\n/x',
    "https://example.com/a/b?x=1&y=%20z#frag user@host.org C:\\Users\\me ../../etc",
    "<|endoftext|> a <|im_start|>system<|im_sep|>x<|im_end|> <|endofprompt|><|fim_prefix|>",
    "<|start|>user<|message|>hi<|end|><|return|><|call|><|channel|><|constrain|><|reserved_200000|>",
    *(blank * 81 + end for blank in (" ", "\t", "\n", "\r\n", "\u00a0", " \n") for end in ("x", "")),
    *("".join(each * size for size in (1, 2, 3, 17, 64)) for each in "a=-_.*#~0!/人é"),
    "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/" * 12 + "==",
    "deadbeef00ff" * 40,
    "",
    " ",
    "\n",
)
"""Texts on which tokenizers have differed: scripts, marks, emoji, code, long runs, the text of special tokens."""


def installed() -> bool:
    """Tell whether the extra is there."""
    return importlib.util.find_spec(MODULE) is not None


def version() -> str:
    """Return the installed version, empty if nobody says."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ""


def load(encoding: str) -> CountMany:
    """Return what counts many texts at once on the calling thread, without the interpreter's lock.

    It raises whatever the library raises: a text with half a surrogate pair, for one, is a UnicodeEncodeError.
    """
    module = importlib.import_module(MODULE)
    return partial(module.batch_count, encoding=encoding, threads=1)


def difference(fast: CountMany, right: Callable[[str], int]) -> str | None:
    """Compare both on the hard cases: say how they differ, None if they don't."""
    counts: Sequence[int] = fast(list(HARD_CASES))
    wrong = [case for case, count in zip(HARD_CASES, counts, strict=True) if count != right(case)]
    return f"it counts {len(wrong)} of {len(HARD_CASES)} test texts differently" if wrong else None
