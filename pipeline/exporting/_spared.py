"""Files that an export must not replace or join: what the job is made of, and where its answers are booked."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.reports import results as results_report
from pipeline.reports import run_report
from pipeline.sources import is_readable


def require_spare(output: Path, ledger: Ledger, job: str, file: str, config: Mapping[str, Any]) -> None:
    """Raise UserError if writing `output` would change the job or its ledger.

    `file` is the job as it was named; `config` what its file says now, empty if nobody knows. What earlier runs read
    counts too: their paths are looked for from here, and from the ledger's folder.
    """
    if _real(output.parent) == _real(ledger.folder):
        raise UserError(f"-o {output}: that folder holds the ledger's journals; name a file elsewhere")
    for what, name in _kept(ledger, job, file, config):
        if "\0" in name:  # no file is called that
            continue
        for path in dict.fromkeys((name, os.path.join(ledger.path.parent, name))):  # noqa: PTH118 -- may be a glob
            if what == "input":
                _require_no_input(output, path, name)
            elif _same(output, path):
                raise UserError(f"-o {output} is the {what} {name}, which would be replaced; name another file")


def _kept(ledger: Ledger, job: str, file: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for ending in ("", ".gate", ".wal"):
        yield "ledger", f"{ledger.path.absolute()}{ending}"
    if file.endswith(".toml"):
        yield "job file", file
    for what, section, key in results_report.READS:
        path = config.get(section, {}).get(key)
        if path is not None:
            yield what, path
    for row in run_report(ledger, results_report.READ_BEFORE, [job]).rows:
        yield row["what"], row["path"]


def _require_no_input(output: Path, path: str, name: str) -> None:
    """Raise UserError if the output is a file that this input (a file, a folder, a glob) names, or would be one."""
    named = [path, *chain.from_iterable(_files_in(path))]
    if any(_same(output, file) for file in named):
        raise UserError(f"-o {output} is an input file of the job ({name}), which would be lost; name another file")
    if Path(path).is_dir():
        joins = _real(output.parent) == _real(path) and is_readable(output)
    else:
        joins = glob.has_magic(path) and _matches(output, path)
    if joins:
        raise UserError(f"-o {output} would become an input file of the job ({name}); name a file elsewhere")


def _files_in(path: str) -> Iterator[Sequence[str | Path]]:
    if Path(path).is_dir():
        with suppress(OSError):  # a folder of an earlier run that may not be listed now
            yield [file for file in Path(path).iterdir() if is_readable(file)]
    elif glob.has_magic(path):
        yield glob.glob(path, recursive=True)  # noqa: PTH207 -- as the input is read


def _matches(output: Path, pattern: str) -> bool:
    """Tell whether a glob would find a file that isn't there yet."""
    both = ((os.path.abspath(output), os.path.abspath(pattern)), (_real(output), _real(pattern)))  # noqa: PTH100
    return any(_fits(Path(path).parts, Path(wanted).parts) for path, wanted in both)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _same(output: Path, path: str | Path) -> bool:
    """Tell whether two names are one file, also through links, or would be."""
    try:
        return os.path.samefile(output, path)  # noqa: PTH121 -- both may be missing
    except OSError:
        return _real(output) == _real(path)


def _real(path: str | Path) -> str:
    return os.path.realpath(path)
