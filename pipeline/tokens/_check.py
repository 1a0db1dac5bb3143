"""The check that a way of counting must pass before it is used: hard texts, and what tiktoken makes of them."""

from collections.abc import Callable

CountMany = Callable[[list[str]], list[int]]
"""Tokens of many texts of ordinary length, in order."""

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

_O200K = (
        27, 43, 43, 51, 35, 43, 45, 42, 43, 28, 40, 41, 3, 2, 6, 5, 7, 6, 21, 20, 12, 11, 42, 41, 12, 2, 2, 3,
        3, 2, 3, 5, 29, 7, 3, 44, 87, 229, 200, 0, 1, 1,
)  # fmt: skip
_CL100K = (
        30, 43, 70, 117, 40, 62, 50, 42, 42, 28, 39, 41, 2, 1, 6, 5, 5, 4, 22, 21, 12, 11, 42, 41, 12, 2, 2, 4,
        3, 2, 2, 6, 29, 12, 3, 87, 87, 313, 200, 0, 1, 1,
)  # fmt: skip
TIKTOKEN_COUNTS = {"o200k_base": _O200K, "o200k_harmony": _O200K, "cl100k_base": _CL100K}
"""What tiktoken 0.14 counts for each of them, as the tests count again: so the check need not build tiktoken's own
encoding, which takes a third of a second and a hundred megabytes."""


def difference(counting: CountMany, encoding: str) -> str | None:
    """Compare with tiktoken's counts of the hard cases: say how it differs, None if it doesn't."""
    counts = counting(list(HARD_CASES))
    wrong = sum(count != right for count, right in zip(counts, TIKTOKEN_COUNTS[encoding], strict=True))
    return f"it counts {wrong} of {len(HARD_CASES)} test texts differently" if wrong else None
