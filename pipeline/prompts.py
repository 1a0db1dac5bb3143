"""Row -> messages -> key: the prompt's template, and the hash that says which requests are the same.

A template sees a row's values as they stand in the file. Templates are Jinja in a sandbox; a name that a row does
not have is an error. Equal requests get equal keys whatever the order or the number of rows around them.
"""

import hashlib
import json
import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
import orjson
from jinja2 import meta, nodes
from jinja2.filters import do_format, make_attrgetter, sync_do_join
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import InputError, JobFileError, MissingColumn, did_you_mean
from pipeline.files import read_text
from pipeline.records import Message, ModelSpec, Row
from pipeline.text import PlainDecimal, decimal_text

_SYSTEM_LINE = "--- system ---"
_USER_LINE = "--- user ---"
_LIKE_A_MARK = re.compile(r"\s*-{2,}\s*(system|user|assistant)\s*-{2,}\s*", re.IGNORECASE)
_UNDEFINED = re.compile(r"'(\w+)' is undefined")
_SYSTEM = "system"
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio", "reasoning_content")
"""What an assistant's message may hold in place of its content."""
_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**64
_COMPLETED_WITH = "/chat/completions"
_UNSTEADY = ("lipsum", "random")  # the same row must always make the same request
_OF_TEXTS = (
    "capitalize", "center", "e", "escape", "forceescape", "indent", "lower", "replace", "safe", "string", "striptags",
    "title", "trim", "truncate", "upper", "wordcount", "wordwrap",
)  # fmt: skip
"""Filters that make text of whatever they are given: of the same text that is printed of it."""
Renderer = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """Where the messages come from: exactly one of `user`, `file` and `messages_column`."""

    system: str | None = None
    """A template, with `user` or with a `file` that has no system part of its own."""
    user: str | None = None
    """A template."""
    messages_column: str | None = None
    """A column that holds a chat: a list of `{role, content, ...}`, or such a list as JSON text."""
    file: str | None = None
    """A template in a file, relative to the current directory, perhaps with the system message's before it."""

    def problems(self) -> list[str]:
        """Say what is wrong with the combination, in sentences that start with the section."""
        given = [name for name in ("user", "file", "messages_column") if getattr(self, name) is not None]
        if not given:
            return ["[prompt] needs one of user, file and messages_column"]
        if len(given) > 1:
            return [f"[prompt] takes one of user, file and messages_column, not {' and '.join(given)}"]
        if self.messages_column is not None and self.system is not None:
            return ["[prompt] system can't go with messages_column: the column's chats bring their own"]
        return []


@dataclass(frozen=True, slots=True)
class _Part:
    """The text of one message's template, and where it stands."""

    role: str
    text: str
    place: str
    lines_before: int = 0


def _split(text: str, place: str) -> list[_Part]:
    """Split a prompt file into its parts.

    The whole file is the user message, unless a line says `--- user ---`: then what follows the first such line is
    the user message and what precedes it is the system prompt, whose first line may say `--- system ---`. The line
    break at the end of each part belongs to the file and not to the prompt. A blank system part is none. A line that
    all but says so, or says it in another place, is a mistake.
    """
    lines = text.removesuffix("\n").split("\n")
    marks = [line.rstrip() for line in lines]
    begins = next((number for number, mark in enumerate(marks) if mark), 0)
    first = begins + 1 if marks[begins] == _SYSTEM_LINE else 0
    _refuse_odd_marks(marks, first, place)
    if _USER_LINE not in marks:
        if first:
            raise JobFileError(f"{place} begins with {_SYSTEM_LINE} and has no line {_USER_LINE}")
        return [_Part("user", "\n".join(lines), place)]
    at = marks.index(_USER_LINE)
    system = _Part("system", "\n".join(lines[first:at]), place, first)
    user = _Part("user", "\n".join(lines[at + 1 :]), place, at + 1)
    return [system, user] if system.text.strip() else [user]


def _refuse_odd_marks(marks: Sequence[str], first: int, place: str) -> None:
    """Raise JobFileError for a line that is to begin a part and does not: it would be sent as text."""
    for number, mark in enumerate(marks, 1):
        if number == first or mark == _USER_LINE or not _LIKE_A_MARK.fullmatch(mark):
            continue
        raise JobFileError(
            f"{place}, line {number}: {mark.strip()!r} begins no part here and would be sent as text. A file's parts"
            f" are {_SYSTEM_LINE} in its first line and {_USER_LINE} in a later one, written so; other turns of a chat"
            " come from [prompt] messages_column. If it is text of the prompt, write "
            f'{{{{ "{mark.strip()}" }}}}'
        )


class Template:
    """A compiled prompt.

    Values print as they stand in the file: `1.0` as `1.0`, null as `null` (write `{{ x or "" }}` for nothing), true
    and false so, lists and objects as JSON. `x.key` reads an object's key; `row["any name"]` reads a column whose
    name is not a word. Text from the data is never rendered again. A system prompt that renders blank is left out.
    """

    def __init__(self, spec: PromptSpec) -> None:
        """Compile the templates, reading the prompt file if there is one. Raises JobFileError."""
        for problem in spec.problems():
            raise JobFileError(problem)
        self._column = spec.messages_column
        environment = _environment()
        parts = _parts(spec)
        trees = [_parse(environment, part) for part in parts]
        self._fixed: list[Message] = []
        self._varying: list[tuple[int, str, Renderer, bool]] = []
        """Place, role, what renders it, and whether that makes nothing but text that can be sent."""
        for part, tree in zip(parts, trees, strict=True):
            self._add(part, tree, environment)
        names = {name for tree in trees for name in meta.find_undeclared_variables(tree)}
        outputs = [output for tree in trees for output in tree.body if isinstance(output, nodes.Output)]
        printed = {path for output in outputs for each in output.nodes for path in _paths(each)}
        self.printed: frozenset[tuple[str, ...]] = frozenset(path for path in printed if path and path[0] in names)
        """What it prints as it is, null as `null`: columns, or fields of objects in them (`order.id`), as paths."""
        self._passes_row = "row" in names
        own = {self._column} if self._column is not None else set()
        self.columns: frozenset[str] = frozenset(names - {"row"} | own)
        """The columns that the template names."""
        self._through_row = _through_row(trees)

    def _add(self, part: _Part, tree: nodes.Template, environment: jinja2.Environment) -> None:
        text = _plain_text(tree)
        if text is None:
            render = _renderer(environment, tree)
            self._varying.append((len(self._fixed), part.role, render, _only_names(tree) and _is_text(part.text)))
        elif not _is_text(text):
            raise JobFileError(f"{part.place} holds half of a surrogate pair, which can't be sent")
        elif part.role == _SYSTEM and not text.strip():
            return
        self._fixed.append({"role": part.role, "content": text or ""})

    def reads(self, column: str) -> bool:
        """Tell whether the template may read this column."""
        through_row = self._passes_row and (self._through_row is None or column in self._through_row)
        return column in self.columns or through_row

    def render(self, row: Row) -> tuple[Message, ...]:
        """Return the messages for a row. Raises InputError that names the row."""
        if self._column is not None:
            return _chat(row, self._column)
        values = row.values
        if self._passes_row and "row" not in values:
            values = {**values, "row": values}
        messages = self._fixed.copy()
        blank = False
        for place, role, render, sound in self._varying:
            try:
                text = render(values)
            except Exception as error:  # a template is its author's program and may raise anything
                raise self._explained(row, error) from error
            if not sound and not _is_text(text):
                raise InputError(f"{row.origin}: the prompt holds half of a surrogate pair, which can't be sent")
            messages[place] = {"role": role, "content": text}
            blank = blank or (role == _SYSTEM and not text.strip())
        return tuple(messages[1:] if blank else messages)

    def _explained(self, row: Row, error: Exception) -> InputError:
        name = _UNDEFINED.fullmatch(str(error)) if isinstance(error, jinja2.UndefinedError) else None
        if name is not None and name[1] in self.columns:
            near = did_you_mean(name[1], row.values) or f"; its columns: {', '.join(list(row.values)[:20])}"
            said = f"{row.origin}: the prompt uses column {name[1]!r}, which this row does not have"
            return MissingColumn(
                said, near, f', write {{{{ {name[1]} | default("") }}}} in the prompt to do without it'
            )
        lines = str(error).splitlines() or [""]
        return InputError(f"{row.origin}: the prompt can't be rendered: {type(error).__name__}: {lines[0][:200]}")


def _parts(spec: PromptSpec) -> list[_Part]:
    if spec.messages_column is not None:
        return []
    if spec.file is None:
        parts = [_Part("user", spec.user or "", "[prompt] user")]
    else:
        parts = _split(_read(spec.file), spec.file)
    if spec.system is None:
        return parts
    if len(parts) > 1:
        raise JobFileError(f"[prompt] system is set, and {spec.file} has a system part too; keep one of them")
    return [_Part("system", spec.system, "[prompt] system"), *parts]


def _read(file: str) -> str:
    try:
        return read_text(Path(file))
    except FileNotFoundError:
        raise JobFileError(f"[prompt] file: there is no file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError(f"[prompt] file: {file} can't be read: {error}") from error


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """`order.items` is the key `items` of an object from the data, and not Python's method."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _environment() -> jinja2.Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # a prompt is text, not HTML
        keep_trailing_newline=True,
        finalize=_printed,
    )
    environment.filters |= {name: _of_text(environment.filters[name]) for name in _OF_TEXTS}
    environment.filters |= {"tojson": _to_json, "join": _joined, "format": _formatted}
    for name in _UNSTEADY:
        environment.globals.pop(name, None)
        environment.filters.pop(name, None)
    return environment


def _parse(environment: jinja2.Environment, part: _Part) -> nodes.Template:
    try:
        environment.from_string(part.text)  # finds unknown filters too, which parsing alone does not
        tree = environment.parse(part.text)
    except jinja2.TemplateSyntaxError as error:
        line = error.lineno + part.lines_before
        raise JobFileError(f"{part.place}, line {line}: {error.message}") from error
    for concat in tree.find_all(nodes.Concat):  # `~` makes Python's text of its parts
        concat.nodes = [nodes.Filter(each, "string", [], [], None, None) for each in concat.nodes]
    return tree


def _paths(node: nodes.Node) -> Iterator[tuple[str, ...]]:
    """Yield what is printed as it is, or through a filter that prints null as null."""
    if isinstance(node, nodes.Concat):
        for each in node.nodes:
            yield from _paths(each)
    elif isinstance(node, nodes.Filter) and node.name in _OF_TEXTS and node.node is not None:
        yield from _paths(node.node)
    else:
        yield _path(node)


def _path(node: nodes.Node) -> tuple[str, ...]:
    """Return the names of `order.id`, `order["id"]` or `order`; nothing of any other expression."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        name: Any = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        name = node.arg.value
    else:
        return ()
    base = _path(node.node)
    return (*base, name) if base and isinstance(name, str) else ()


def _through_row(trees: Sequence[nodes.Template]) -> frozenset[str] | None:
    """Return which columns are read as `row.NAME` or `row["NAME"]`; None if it can be any."""
    names: set[str] = set()
    mentions = 0
    for tree in trees:
        mentions += sum(each.name == "row" for each in tree.find_all(nodes.Name))
        # `row.items` may be the column or, where there is none, the method.
        found = [(each.node, each.attr) for each in tree.find_all(nodes.Getattr) if not hasattr(dict, each.attr)]
        found += [
            (each.node, each.arg.value) for each in tree.find_all(nodes.Getitem) if isinstance(each.arg, nodes.Const)
        ]
        read = [name for base, name in found if isinstance(base, nodes.Name) and base.name == "row"]
        names.update(read)
        mentions -= len(read)
    return None if mentions else frozenset(names)


def _pieces(tree: nodes.Template) -> list[nodes.Node]:
    return [each for output in tree.body for each in output.iter_child_nodes()]


def _plain_text(tree: nodes.Template) -> str | None:
    """Return the text of a template that is nothing else, as a system prompt mostly is."""
    parts = _pieces(tree)
    texts = [each.data for each in parts if isinstance(each, nodes.TemplateData)]
    return "".join(texts) if len(texts) == len(parts) else None


def _only_names(tree: nodes.Template) -> bool:
    """Tell whether a template is made of text and the row's values, which hold no half surrogate pairs."""
    return all(isinstance(each, nodes.TemplateData | nodes.Name) for each in _pieces(tree))


def _renderer(environment: jinja2.Environment, tree: nodes.Template) -> Renderer:
    parts = _pieces(tree)
    render = environment.from_string(tree).render
    if not _only_names(tree):
        return render
    if any(isinstance(each, nodes.Name) and each.name == "self" for each in parts):  # Jinja's own, whatever a row has
        return render
    return _joiner([each for each in parts if isinstance(each, nodes.TemplateData | nodes.Name)], render)


def _joiner(parts: Sequence[nodes.TemplateData | nodes.Name], render: Renderer) -> Renderer:
    """Join text and columns that are text, as Jinja would, at a tenth of its cost; it renders all other rows."""
    pieces = ["" if isinstance(each, nodes.Name) else each.data for each in parts]
    named = [(place, each.name) for place, each in enumerate(parts) if isinstance(each, nodes.Name)]

    def join(values: Mapping[str, Any]) -> str:
        texts = pieces.copy()
        for place, name in named:
            value = values.get(name)
            if type(value) is not str:
                return render(values)
            texts[place] = value
        return "".join(texts)

    return join


_PLAIN = (str, int, float, jinja2.Undefined)
"""What prints as Python makes text of it; an undefined name raises when it becomes text."""
_LISTED = (Iterator, KeysView, ValuesView, ItemsView, range)
_AS_JSON = (bool, dict, list, tuple, *_LISTED)


def _printed(value: Any) -> Any:
    if isinstance(value, _PLAIN) and not isinstance(value, bool):
        return value
    if isinstance(value, Decimal):
        return decimal_text(value)
    if callable(value):
        raise jinja2.TemplateRuntimeError("a function stands where a value should; add () or use another name")
    if value is None or isinstance(value, _AS_JSON):
        return _to_json(value)
    # Python's text of it may hold its place in memory: then each row would make another request each time.
    raise jinja2.TemplateRuntimeError(f"a {type(value).__name__} stands where a value should")


def _of_text(make: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter that makes text of a value begin with the text that is printed of it."""
    place = 1 if hasattr(make, "jinja_pass_arg") else 0

    @wraps(make)
    def of_text(*arguments: Any, **more: Any) -> Any:
        return make(*arguments[:place], _printed(arguments[place]), *arguments[place + 1 :], **more)

    return of_text


@jinja2.pass_eval_context
def _joined(context: nodes.EvalContext, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
    """Do what Jinja's `join` does, with the texts that are printed of the values."""
    values = value if attribute is None else map(make_attrgetter(context.environment, attribute), value)
    return sync_do_join(context, [_printed(each) for each in values], _printed(d))


class _Flag(int):
    """True or false that is a number where a format wants one, and JSON's word as text."""

    def __str__(self) -> str:
        return "true" if self else "false"


def _formatted(value: Any, *arguments: Any, **named: Any) -> str:
    """Do what Jinja's `format` does, with the texts that are printed of the values; numbers stay numbers."""
    return do_format(_printed(value), *map(_to_format, arguments), **{k: _to_format(v) for k, v in named.items()})


def _to_format(value: Any) -> Any:
    if isinstance(value, bool):
        return _Flag(value)
    return PlainDecimal(value) if isinstance(value, Decimal) else _printed(value)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Plain JSON: Jinja's own filter writes `<` as an escape, which is for HTML."""
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_text)


def _text(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, _LISTED) and not callable(value):
        return list(value)
    raise jinja2.TemplateRuntimeError(f"a {type(value).__name__} has no JSON")


def _chat(row: Row, column: str) -> tuple[Message, ...]:
    if column not in row.values:
        near = did_you_mean(column, row.values)
        raise MissingColumn(f"{row.origin}: this row has no column {column!r} ([prompt] messages_column)", near)
    value = row.values[column]
    if isinstance(value, str):
        try:
            value = _from_json(value)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{row.origin}: column {column!r} is not JSON: {error.msg}") from error
    if not isinstance(value, list) or not value:
        raise InputError(f"{row.origin}: column {column!r} must hold a list of messages, at least one")
    try:
        orjson.dumps(value)  # first of all: what is nested too deeply for it, is so for us
    except TypeError as error:
        raise InputError(f"{row.origin}: column {column!r} holds a chat that can't be sent: {error}") from error
    return tuple(_message(each, f"{row.origin}: column {column!r}, message {n}") for n, each in enumerate(value, 1))


def _from_json(text: str) -> Any:
    """Read JSON; whole numbers beyond 64 bits, of which orjson makes floats that would be sent, stay as they are."""
    value = orjson.loads(text)
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) is dict:
            waiting += [inner for inner in each.values() if type(inner) is not str]  # of most messages nothing
        elif type(each) is list:
            waiting += each
        elif type(each) is float and not _LEAST_WHOLE < each < _MOST_WHOLE:
            with suppress(RecursionError):  # nested so deeply it can't be sent in any case
                return json.loads(text)
            return value
    return value


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise InputError(f"{place} must be an object with role and content")
    # Parquet gives every object every field, null where there is none; the same chat must make the same key.
    message: Message = {
        name: content if type(content) is str else _without_nulls(content)
        for name, content in value.items()
        if content is not None or name == "content"
    }
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise InputError(f"{place} has no role")
    if not isinstance(content, str | list) and not (content is None and _has_instead(role, message)):
        raise InputError(
            f"{place} has no content: it must be text or a list of parts; only an assistant's may be null, beside"
            f" {', '.join(_INSTEAD_OF_CONTENT[:-1])} or {_INSTEAD_OF_CONTENT[-1]}"
        )
    return message


def _has_instead(role: str, message: Message) -> bool:
    names = _INSTEAD_OF_CONTENT if role == "assistant" else _INSTEAD_OF_CONTENT[:1]
    return any(message.get(name) for name in names)


def _without_nulls(value: Any) -> Any:
    """Leave out what is null in an object, however deep; what a list holds has its place and stays."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


class KeyMaker:
    """Makes the keys of one model's requests; what all of them share is hashed once.

    A key is `v1` + BLAKE2b-128 of the request's canonical JSON: sorted keys, no spaces, whole numbers as integers,
    unset parameters absent. Its members: base_url (if overridden), extra, messages, model, occurrence (if not 0),
    params, provider, schema, structured_output (if chosen). `max_tokens` is not one of them.
    """

    def __init__(self, model: ModelSpec) -> None:
        """Prepare for this model. Raises JobFileError if its base_url is no address."""
        shared = _canonical(_shared(model))
        before = _members({name: shared[name] for name in shared if name < "messages"})
        self._start = hashlib.blake2b(b"{" + before + (b"," if before else b"") + b'"messages":[', digest_size=16)
        self._lead: Sequence[Message] | None = None
        self._after_lead = self._start.copy()
        self._model = b"]," + _members({"model": shared["model"]})
        self._end = b"," + _members({name: shared[name] for name in shared if name > "occurrence"}) + b"}"
        self._model_end = self._model + self._end

    def key(self, messages: Sequence[Message], occurrence: int = 0) -> str:
        """Return the key of a request; `occurrence` numbers equal requests that must stay apart.

        Messages must not be changed between calls: those before the last are hashed once as long as they stay equal.
        """
        lead = messages[:-1]
        if lead != self._lead:
            self._follow(lead)
        digest = self._after_lead.copy()
        end = b'%b,"occurrence":%d%b' % (self._model, occurrence, self._end) if occurrence else self._model_end
        if messages:
            last = messages[-1]
            end = _dumps(last if _is_plain(last) else _canonical(last)) + end
        digest.update(end)
        return "v1" + digest.hexdigest()

    def _follow(self, lead: Sequence[Message]) -> None:
        """Hash what stands before the last message: most often a system prompt that is the same row after row."""
        self._after_lead = self._start.copy()
        for message in lead:
            self._after_lead.update(_dumps(_canonical(message)) + b",")
        # Messages that hold more than texts may be equal and have different keys: 1 is True.
        self._lead = lead if all(_is_plain(message) for message in lead) else None


def broken_key(digest: str) -> str:
    """Return the key of a line that never became a request, from the digest of its bytes."""
    return "v1" + hashlib.blake2b(_dumps({"broken": digest}), digest_size=16).hexdigest()


def _shared(model: ModelSpec) -> dict[str, Any]:
    params = {name: value for name, value in model.params.items() if value is not None}
    members = {
        "base_url": None if model.base_url is None else address(model.base_url),
        "extra": model.extra or None,
        "model": model.name,
        "params": params or None,
        "provider": model.provider,
        "schema": model.schema,
        "structured_output": model.structured_output,
    }
    return {name: value for name, value in members.items() if value is not None}


def address(url: str) -> str:
    """Return scheme, host, port and path of a base_url: never a password, and the same for the same place.

    Whoever writes the whole address of chat completions means the one that is completed with that. Raises JobFileError
    if it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise JobFileError(f"[model] base_url is not an address: {error}") from error
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    path = parts.path.rstrip("/").removesuffix(_COMPLETED_WITH).rstrip("/")
    return f"{parts.scheme}://{host}{'' if port in (None, usual) else f':{port}'}{path}"


def _is_plain(message: Message) -> bool:
    if type(message) is not dict:
        return False
    for value in message.values():  # noqa: SIM110 -- for every row; a generator takes three times as long
        if type(value) is not str:
            return False
    return True


def _members(content: Mapping[str, Any]) -> bytes:
    return _dumps(content)[1:-1]


def _canonical(value: Any) -> Any:
    """Return the value as the key sees it: 1.0 is 1, and integers of any size are written out."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else orjson.Fragment(str(value))
    if isinstance(value, Mapping):
        return {str(name): _canonical(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(content) for content in value]
    return value if isinstance(value, float) else str(value)


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return orjson.dumps(_escaped(value), option=orjson.OPT_SORT_KEYS)


def _escaped(value: Any) -> Any:
    """Write half surrogate pairs, which orjson refuses, as escapes."""
    if isinstance(value, str):
        return value if _is_text(value) else orjson.Fragment(json.dumps(value))
    if isinstance(value, Mapping):
        return {name.encode(errors="backslashreplace").decode(): _escaped(each) for name, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list | tuple) else value


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
