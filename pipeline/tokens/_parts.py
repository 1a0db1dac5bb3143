"""Parts of a message that are not text: which are images, which are files, and what each may be billed for.

What a link leads to is not known before it is paid for, so a part that nobody knows has the largest bound.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

IMAGE_TOKENS = 1_000
"""What one is taken for, be it an image, a file or a recording: a guess."""
IMAGE_BOUND = 50_000
"""The dearest image known: 48,169 tokens (gpt-4o-mini, high detail, eight tiles)."""
FILE_BOUND = 2_000_000
"""A file or recording behind a link can be as large as a context window."""

_TEXTS = frozenset({"text", "input_text", "output_text", ""})
_WORDS = frozenset({"refusal", "thinking", "redacted_thinking", "reasoning", "reference", "tool_use"})
"""Types of parts that hold text in other places than `text`: they are billed as the JSON they are, at most."""
_ATTACHES = re.compile(r"image|audio|video|document|(?<!pro)file", re.IGNORECASE)
"""In a part's type."""
_HOLDS = re.compile(
    r"(input_|output_)?(image|audio|video|document|file)s?(_?(url|uri|data|file|bytes|base64|content))?s?",
    re.IGNORECASE,
)
"""A key that holds one; `document_id` and `filename` do not."""
_IMAGE = "image"
_FILE_MIME = re.compile(r"(application|audio|message|model|multipart|text|video)/", re.IGNORECASE)
_FILE_ENDS = (
    ".7z", ".aac", ".avi", ".csv", ".doc", ".docx", ".flac", ".htm", ".html", ".json", ".m4a", ".m4v", ".md",
    ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpg", ".odp", ".ods", ".odt", ".ogg", ".opus", ".pdf", ".ppt",
    ".pptx", ".rtf", ".tar", ".tgz", ".txt", ".wav", ".webm", ".wmv", ".xls", ".xlsx", ".xml", ".zip",
)  # fmt: skip
_LONGEST_END = max(map(len, _FILE_ENDS))
_DATA, _DATA_IMAGE = "data:", "data:image/"


class Attached(NamedTuple):
    """How many images and files (documents, recordings, whatever nobody knows) go with texts."""

    images: int = 0
    files: int = 0

    def plus(self, other: "Attached", *, times: int = 1) -> "Attached":
        """Add up; `times` -1 takes off."""
        return Attached(self.images + times * other.images, self.files + times * other.files)


NOTHING_ATTACHED = Attached()
_ONE_FILE = Attached(files=1)


def attached_to(messages: Iterable[Mapping[str, Any]]) -> Attached:
    """Count what goes with a chat beside its text."""
    total = NOTHING_ATTACHED
    for message in messages:
        content = message.get("content")
        if type(content) is str and len(message) == 2:  # noqa: PLR2004 -- role and content: nearly every message
            continue
        total = total.plus(_in_parts(content))
        total = total.plus(_in_parts([{name: message[name]} for name in attaching(message)]))
    return total


def _in_parts(content: Any) -> Attached:
    """Add up what parts are beside their text; a content that is a text has none."""
    total = NOTHING_ATTACHED
    for part in content if isinstance(content, list | tuple) else ():
        total = total.plus(attached_in(part))
    return total


def attaching(message: Mapping[str, Any]) -> list[str]:
    """Return the keys of a message or of a part that hold an image or a file (`audio`, `image_url`), not text."""
    return [name for name, value in message.items() if value and _HOLDS.fullmatch(str(name))]


def attached_in(part: Any) -> Attached:
    """Say what a part is beside its text: nothing, images, or a file.

    Its keys are looked at as well as its `type`, which servers do without (`{"image_url": ...}`).
    """
    if isinstance(part, str | int | float) or part is None:
        return NOTHING_ATTACHED
    if not isinstance(part, Mapping):
        return _ONE_FILE
    kind, names = _kind(part), attaching(part)
    if kind == "tool_result":  # Anthropic's, as gateways take it: a text, or parts
        return _in_parts(part.get("content"))
    if not names and (kind in _WORDS or is_text(part) or _is_wordy(part)):
        return NOTHING_ATTACHED
    by_key = bool(names) and not _ATTACHES.search(kind) and all(_IMAGE in name.lower() for name in names)
    if not (_IMAGE in kind or by_key) or any(map(_is_of_a_file, _texts(part))):
        return _ONE_FILE
    return Attached(images=max([1, *(len(part[name]) for name in names if isinstance(part[name], list | tuple))]))


def is_text(part: Any) -> bool:
    """Tell whether a part has its text in `text`, whatever else is in it."""
    return isinstance(part, Mapping) and _kind(part) in _TEXTS and isinstance(part.get("text"), str)


def _is_wordy(part: Mapping[str, Any]) -> bool:
    """Tell whether a part calls itself text, though its text is elsewhere: it is its JSON, at most."""
    return _kind(part) in _TEXTS - {""} and all(isinstance(value, str) for value in part.values())


def _kind(part: Mapping[str, Any]) -> str:
    return str(part.get("type") or "").lower()


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a part that may be a link or a MIME type."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            waiting += [inner for name, inner in each.items() if name not in {"type", "text"}]
        elif isinstance(each, list | tuple):
            waiting += each


def _is_of_a_file(text: str) -> bool:
    """Tell whether a link or a MIME type, which may be very long, says that it is of something else than an image."""
    if text[: len(_DATA)].lower() == _DATA:
        return text[: len(_DATA_IMAGE)].lower() != _DATA_IMAGE
    path = text.partition("?")[0].partition("#")[0]
    return bool(_FILE_MIME.match(text)) or path[-_LONGEST_END:].lower().endswith(_FILE_ENDS)
