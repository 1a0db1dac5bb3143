"""Vendors as pure translators: a request to bytes, bytes to a reply. No I/O, no clock.

A provider is one file here with a `PROVIDER`; the folder is the registry. Any other server that speaks a known
dialect needs no file, only a `base_url`.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pipeline.errors import JobFileError, WireError, did_you_mean
from pipeline.records import Failure, HttpRequest, ModelSpec, Reply, Request, WireReply

if TYPE_CHECKING:
    from pipeline.providers.openai import OpenAI

DIALECTS = ("openai",)


class Provider(Protocol):
    """A vendor, as far as the rest of the program knows it."""

    @property
    def name(self) -> str:
        """What jobs, prices and the ledger call it."""
        ...

    @property
    def base_url(self) -> str | None:
        """Where requests go; None: known when the local model runs."""
        ...

    @property
    def key_env(self) -> str | None:
        """The environment variable that usually holds its key."""
        ...

    @property
    def needs_key(self) -> bool:
        """Without a key nothing will be answered, so a run need not start."""
        ...

    @property
    def key_in_body(self) -> bool:
        """The key goes into the body, where it may hold any letter; a header takes ASCII only."""
        ...

    @property
    def concurrency(self) -> int:
        """Requests at a time unless the job says otherwise."""
        ...

    @property
    def dialect(self) -> str:
        """The wire format."""
        ...

    @property
    def tells_costs(self) -> bool:
        """Tell whether its answers are looked through for what was charged."""
        ...

    @property
    def options(self) -> frozenset[str]:
        """Names of the further `[model]` keys it understands."""
        ...

    def encode(self, spec: ModelSpec, request: Request, *, base_url: str, api_key: str | None) -> HttpRequest:
        """Make the bytes of a request."""
        ...

    def decode(
        self, reply: WireReply, *, now: float, secrets: Sequence[str] = (), spec: ModelSpec | None = None
    ) -> Reply | Failure:
        """Translate an answer; never raises. `now` is epoch seconds; `secrets` are hidden in all that comes back.

        `spec` is what `encode` was given, where what was asked shapes what is read.
        """
        ...


def names() -> tuple[str, ...]:
    """List the presets, in alphabetical order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def find(name: str, *, base_url: str | None, dialect: str | None, options: Mapping[str, object]) -> Provider:
    """Return a preset by its name, or any other name with a `base_url`. Raises `JobFileError`.

    On another server than the preset's no key is required (nor the preset's key sent), and the limit is called
    `max_tokens`; `options` have the last word.
    """
    _check_dialect(dialect)
    if base_url is not None:
        _check_base_url(base_url)
    provider = _preset(name, base_url)
    unknown = sorted(set(options) - provider.options)
    if unknown:
        near = did_you_mean(unknown[0], sorted(provider.options))
        raise JobFileError(
            f"[model] {unknown[0]}: provider {name!r} has no such option{near}; "
            f"it has {', '.join(sorted(provider.options))}"
        )
    return provider.configured(base_url, options)


def own_address(name: str) -> str | None:
    """Return where the preset of this name sends to; None if there is none, or it is known when it runs."""
    return _preset(name, None).base_url if name in names() else None


def usual_key_env(name: str) -> str | None:
    """Return the variable whose key goes to a preset's own address; None for other names."""
    return _preset(name, base_url="elsewhere").key_env


def check_extra(extra: Mapping[str, object]) -> None:
    """Refuse an `[model] extra` that would replace what the budget, the costs, the key or the answer rest on."""
    from pipeline.providers import openai  # noqa: PLC0415 (members load lazily)

    openai.check_extra(extra)


def failure_from_wire(error: WireError, *, secrets: Sequence[str] = ()) -> Failure:
    """Classify an exchange that brought no HTTP answer. The message never holds one of `secrets`."""
    from pipeline.providers import _errors  # noqa: PLC0415 (members load lazily)

    return _errors.failure_from_wire(error, secrets)


def may_be_billed(http_status: int | None, error_type: str | None) -> bool:
    """Tell whether a failed exchange without usage may have been generated, by what is booked of it."""
    from pipeline.providers import _errors  # noqa: PLC0415 (members load lazily)

    return _errors.may_be_billed(http_status, error_type)


def redact(text: str, secrets: Sequence[str]) -> str:
    """Hide the given secrets, and whatever looks like a key."""
    from pipeline.providers import _redact  # noqa: PLC0415 (members load lazily)

    return _redact.redact(text, secrets)


def hide(text: str, secrets: Sequence[str]) -> str:
    """Hide the given secrets only, also where they stand escaped."""
    from pipeline.providers import _redact  # noqa: PLC0415 (members load lazily)

    return _redact.hide(text, secrets)


def _preset(name: str, base_url: str | None) -> "OpenAI":
    known = names()
    if name in known:
        preset: OpenAI = importlib.import_module(f"{__name__}.{name}").PROVIDER
        return preset
    if base_url is None:
        raise JobFileError(
            f"[model] provider: unknown name {name!r}{did_you_mean(name, known)} (known: {', '.join(known)}). "
            "Any other server that speaks OpenAI's dialect works under any name with base_url"
        )
    from pipeline.providers.openai import PROVIDER  # noqa: PLC0415 (members load lazily)

    return replace(PROVIDER, name=name, key_env=None)


def _check_dialect(dialect: str | None) -> None:
    if dialect is None or dialect in DIALECTS:
        return
    if dialect == "anthropic":
        raise JobFileError('[model] dialect: "anthropic" is not in this version; only "openai" is')
    near = did_you_mean(dialect, DIALECTS)
    raise JobFileError(f"[model] dialect: unknown {dialect!r}{near}; known: {', '.join(DIALECTS)}")


def _check_base_url(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise JobFileError("[model] base_url must look like https://host/v1")
    if parts.username is not None or parts.password is not None:
        raise JobFileError("[model] base_url carries a password; name a variable in api_key_env instead")
    if parts.query or parts.fragment:
        raise JobFileError("[model] base_url may not hold `?` or `#`; it is completed with /chat/completions")
