"""The optional tokenizer in Rust (`toktok-rs`, the extra `fast`): used only as long as it agrees with tiktoken."""

import importlib.metadata
import importlib.util
from functools import partial

from pipeline.tokens._check import CountMany

MODULE, DISTRIBUTION = "toktok", "toktok-rs"


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
