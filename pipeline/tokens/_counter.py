"""Counter: messages in, tokens out, with an honest word on how sure the number is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING, Any

from pipeline.records import CountMethod, Message, TokenCount
from pipeline.tokens._attachments import (
    APPROXIMATE,
    EXACT,
    FORMULA,
    NOTHING,
    Size,
    attachments_size,
    json_size,
    part_size,
)
from pipeline.tokens._families import Family
from pipeline.tokens._parts import attaching

if TYPE_CHECKING:
    from pipeline.tokens._tokenizer import Tokenizer

FORMULA_VERSION = 2
"""Goes up when a count or bound changes here, in `_attachments` or in `_parts`: then kept counts are worth nothing."""

_METHODS: tuple[CountMethod, CountMethod, CountMethod] = ("exact", "formula", "approximate")
_PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant"})
_PLAIN_KEYS = frozenset({"role", "content", "name"})

# Where the count is not exact, the bound takes one token per byte (no tokenizer that leaves the text as it is
# makes more) and allows for what chat templates add around a message and in front of a conversation.
MESSAGE_ALLOWANCE = 16
REQUEST_ALLOWANCE = 512


@dataclass(slots=True)
class _Remembered:
    """The schema and extra last seen and their size: they are the same objects for every row of a job."""

    schema: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None
    size: Size = NOTHING


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts the input tokens of requests to one model. Safe to use from several threads."""

    family: Family
    method: CountMethod
    """The best it can give; a single count may be less sure (tools, images, odd texts), never more."""
    note: str
    """One sentence for people: which tokenizer, and why this method."""
    counts_schema: bool = True
    """False where the server enforces a schema by grammar and doesn't show it to the model."""
    _cache: list[_Remembered] = field(default_factory=lambda: [_Remembered()], repr=False, compare=False)

    @property
    def encoding(self) -> str:
        """Name of the encoding that texts are counted with."""
        return self.family.encoding

    def identity(self, schema: Mapping[str, Any] | None, extra: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return everything that a count depends on beside the messages, without loading a tokenizer."""
        from pipeline.tokens._tokenizer import libraries  # noqa: PLC0415 - tiktoken takes long to import

        return {
            "formula": FORMULA_VERSION,
            "family": repr(self.family),
            "method": self.method,
            "counts_schema": self.counts_schema,
            "libraries": libraries(),
            "schema": schema,
            "extra": extra,
        }

    @property
    def library(self) -> str | None:
        """What counts: `tiktoken`, or `toktok` if it is installed and agrees; None before the first count."""
        return self._tokenizer.library

    @property
    def problem(self) -> str | None:
        """Why an installed `toktok` does not count, in a sentence for people; None if all is well."""
        return self._tokenizer.problem

    @property
    def _tokenizer(self) -> "Tokenizer":
        from pipeline.tokens._tokenizer import tokenizer  # noqa: PLC0415 - tiktoken takes long to import

        return tokenizer(self.encoding)

    def count(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> TokenCount:
        """Tokens of one request's input. `schema` and `extra` must not be changed between calls."""
        return self.count_all([messages], schema=schema, extra=extra)[0]

    def count_all(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        schema: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[TokenCount]:
        """Count many requests' input, in order; what they have in common (a system prompt) is measured once."""
        tokens, bound, grade = self._attachments(schema, extra)
        start = Size(tokens, bound, max(grade, _METHODS.index(self.method)))
        if _differ_in_their_last_text(conversations):
            return self._count_last(conversations, start)
        different = {id(message): message for messages in conversations for message in messages}
        sizes = dict(zip(different, self._measure(list(different.values())), strict=True))
        return [
            self._total(messages, [sizes[id(message)] for message in messages], start) for messages in conversations
        ]

    def _count_last(self, conversations: Sequence[Sequence[Message]], start: Size) -> list[TokenCount]:
        """Count requests that begin with the same messages, which are measured once, and end with a text."""
        first = conversations[0]
        sizes = [*self._measure(list(first[:-1])), NOTHING]
        tokens, bound, grade, overhead = self._sum(first, sizes, start)
        formula = max(grade, FORMULA)
        texts = [messages[-1]["content"] for messages in conversations]
        return [
            self._count_of(tokens + its_tokens, bound + utf8_bytes, grade if certain else formula, overhead)
            for its_tokens, utf8_bytes, certain in self._tokenizer.measure_all(texts)
        ]

    def _measure(self, messages: Sequence[Message]) -> list[Size]:
        plain = [_is_plain(message) for message in messages]
        texts = dict.fromkeys(message["content"] for message, is_plain in zip(messages, plain, strict=True) if is_plain)
        measured = self._tokenizer.measure_all(list(texts))
        sizes = {
            text: Size(tokens, utf8_bytes, EXACT if certain else FORMULA)
            for text, (tokens, utf8_bytes, certain) in zip(texts, measured, strict=True)
        }
        return [
            sizes[message["content"]] if is_plain else self._odd_message(message)
            for message, is_plain in zip(messages, plain, strict=True)
        ]

    def _total(self, messages: Sequence[Message], sizes: Sequence[Size], start: Size) -> TokenCount:
        """Add up one request; `start` is what it has beside its messages, no surer than the counter's method."""
        return self._count_of(*self._sum(messages, sizes, start))

    def _count_of(self, tokens: int, bound: int, grade: int, overhead: int) -> TokenCount:
        total = overhead + (tokens * self.family.percent + 50) // 100
        return TokenCount(total, _METHODS[grade], total if grade == EXACT else max(total, bound))

    def _sum(self, messages: Sequence[Message], sizes: Sequence[Size], start: Size) -> tuple[int, int, int, int]:
        """Return tokens, bound and grade of everything that is counted, and what the chat format adds."""
        template = self.family.template
        tokens, bound, grade = start
        overhead = template.per_request
        if template.without_system and not _starts_with_system(messages):
            overhead += template.without_system
        by_role, per_message = template.by_role, template.per_message
        for message, (its_tokens, its_bound, its_grade) in zip(messages, sizes, strict=True):
            overhead += by_role.get(message.get("role", ""), per_message) if by_role else per_message
            tokens += its_tokens
            bound += its_bound
            grade = max(grade, its_grade)
        return tokens, bound + REQUEST_ALLOWANCE + MESSAGE_ALLOWANCE * len(messages), grade, overhead

    def _odd_message(self, message: Message) -> Size:
        """Size of a message that is more than a known role and a text."""
        content = message.get("content")
        if isinstance(content, str):
            size = self._text(content)
        elif isinstance(content, Sequence):
            size = self._parts(content)
        else:
            size = NOTHING if content is None else json_size(content, self._count)
        return _sum([size, *self._unusual(message)])

    def _parts(self, parts: Sequence[Any]) -> Size:
        # How parts are joined is not published, so even text parts only give a formula.
        return _sum([Size(0, 0, FORMULA), *(part_size(part, self._text, self._count) for part in parts)])

    def _unusual(self, message: Message) -> list[Size]:
        """Sizes of everything in a message that is not a known role with content."""
        sizes = [] if message.get("role") in _PLAIN_ROLES else [Size(0, 0, FORMULA)]
        name = message.get("name")
        if isinstance(name, str):
            size = self._text(name)
            sizes.append(size._replace(tokens=size.tokens + self.family.template.per_name))
        rest = {key: value for key, value in message.items() if key not in _PLAIN_KEYS and value is not None}
        # An earlier answer's `audio`, or `images` beside the content: their JSON is no bound of them.
        sizes += [part_size({name: rest.pop(name)}, self._text, self._count) for name in attaching(rest)]
        if rest:
            sizes.append(json_size(rest, self._count))
        return sizes

    def _attachments(self, schema: Mapping[str, Any] | None, extra: Mapping[str, Any] | None) -> Size:
        if schema is None and not extra:
            return NOTHING
        seen = self._cache[0]
        if seen.schema is schema and seen.extra is extra:
            return seen.size
        calls = 10 if self.encoding == "cl100k_base" else 7
        size = attachments_size(schema, extra, self._count, function_tokens=calls)
        if schema is not None and not self.counts_schema:
            shown = attachments_size(None, extra, self._count, function_tokens=calls)
            size = Size(shown.tokens, size.bound, APPROXIMATE)
        self._cache[0] = _Remembered(schema, extra, size)
        return size

    def _text(self, text: str) -> Size:
        (size,) = self._tokenizer.measure_all([text])
        return Size(size.tokens, size.utf8_bytes, EXACT if size.certain else FORMULA)

    def _count(self, text: str) -> int:
        return self._text(text).tokens


def _is_plain(message: Message) -> bool:
    """Tell whether a message is a known role with a text, and nothing else."""
    return len(message) == 2 and type(message.get("content")) is str and message.get("role") in _PLAIN_ROLES  # noqa: PLR2004 - role and content


def _differ_in_their_last_text(conversations: Sequence[Sequence[Message]]) -> bool:
    """Tell whether all begin with the very same messages (a fixed system prompt, say) and end with one role's text."""
    if not conversations or not conversations[0]:
        return False
    first = conversations[0]
    before, size, role = first[:-1], len(first), first[-1].get("role")
    for messages in conversations:
        if len(messages) != size or messages[-1].get("role") != role or not _is_plain(messages[-1]):
            return False
        if before and not all(map(is_, before, messages)):
            return False
    return True


def _starts_with_system(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0].get("role") in {"system", "developer"}


def _sum(sizes: Sequence[Size]) -> Size:
    return Size(
        sum(size.tokens for size in sizes),
        sum(size.bound for size in sizes),
        max(size.grade for size in sizes),
    )
