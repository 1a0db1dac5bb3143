"""Which tokenizer and chat format a model has: the alias table. What is not listed is approximated, and says so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

HARMONY_SYSTEM_BLOCK = 61
"""Tokens of the system block that gpt-oss gets with every request (50 when the server leaves out the date)."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a chat format adds to the text of the messages, in tokens."""

    per_request: int
    per_message: int
    """Markers and role of one message."""
    by_role: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Roles whose markers differ from `per_message`."""
    per_name: int = 1
    """Added to the text of a message's `name`."""
    without_system: int = 0
    """Added when the first message is not a system message: the format's own default instructions."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share a tokenizer and a chat format."""

    label: str
    encoding: str
    template: Template
    own_tokenizer: bool = False
    """The encoding is the models' own, not a stand-in."""
    percent: int = 100
    """Text tokens of the encoding are multiplied by this / 100."""


# 3 per message and its role, which is one token for every role in both encodings; 3 to prime the answer.
_OPENAI_CHAT = Template(per_request=3, per_message=4)
_HARMONY = Template(
    per_request=HARMONY_SYSTEM_BLOCK + 2,
    per_message=4,
    # An earlier answer also names its channel; the system prompt becomes "# Instructions" for the developer.
    by_role=MappingProxyType({"system": 7, "developer": 7, "assistant": 6}),
)
_LLAMA3_CHAT = Template(per_request=5, per_message=5)
_CHATML = Template(per_request=3, per_message=5)
# Measured on the bundled model: "assistant" is two tokens, the default system message 21.
_SMOLLM2_CHAT = Template(per_request=4, per_message=5, without_system=21)

CL100K = Family("OpenAI", "cl100k_base", _OPENAI_CHAT, own_tokenizer=True)
O200K = Family("OpenAI", "o200k_base", _OPENAI_CHAT, own_tokenizer=True)
GPT_OSS = Family("gpt-oss", "o200k_harmony", _HARMONY, own_tokenizer=True)
# Factors against o200k_base on English: Llama 3 0.99, Qwen 1.01-1.04, SmolLM2 1.13 (more where digits abound).
LLAMA3 = Family("Llama 3", "o200k_base", _LLAMA3_CHAT)
QWEN = Family("Qwen", "o200k_base", _CHATML, percent=104)
SMOLLM2 = Family("SmolLM2", "o200k_base", _SMOLLM2_CHAT, percent=115)
# Between the families above, rather too many than too few.
UNKNOWN = Family("an unknown model", "o200k_base", _CHATML, percent=110)

_FAMILIES = (
    (re.compile(r"gpt-oss"), GPT_OSS),
    (re.compile(r"(chat)?gpt-4o|gpt-4\.[15]|gpt-5|o[134](-|$)"), O200K),
    (re.compile(r"gpt-3\.?5|gpt-4(-|$)"), CL100K),
    (re.compile(r"llama-?v?3"), LLAMA3),
    (re.compile(r"qwen-?(2|2\.5|3)(?![.\d])"), QWEN),
    (re.compile(r"smollm2"), SMOLLM2),
)
_VENDOR = re.compile(r"(openai|meta|azure)[-.]")

# The chat overhead is published with API counts for these; -0301 counted differently, later families and
# fine-tuned or search variants were never published.
_PUBLISHED = re.compile(r"(gpt-4o|gpt-4o-mini|gpt-4|gpt-4-32k|gpt-3\.5-turbo)(-\d{4}(-\d\d-\d\d)?)?")


def bare_name(model: str) -> str:
    """`model` in lower case without vendor, folder, fine-tuning or variant: `openai/gpt-oss-20b:free` too."""
    name = model.strip().lower().removeprefix("ft:").rsplit("/", 1)[-1].split(":", 1)[0]
    return _VENDOR.sub("", name, count=1) if _VENDOR.match(name) else name


def family_of(model: str) -> Family:
    """Family of a model by its name; `UNKNOWN` when the table has no line for it."""
    name = bare_name(model)
    return next((family for pattern, family in _FAMILIES if pattern.match(name)), UNKNOWN)


def overhead_is_published(model: str) -> bool:
    """Whether OpenAI published the chat overhead of exactly this model, with its API's own counts."""
    return bool(_PUBLISHED.fullmatch(model)) and not model.endswith("-0301")
