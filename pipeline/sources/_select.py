"""From the path a job names to the files it stands for, in a fixed order, all of one format."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError, did_you_mean
from pipeline.files import OF_THE_SYSTEM, is_of_the_system
from pipeline.sources._formats import find_format, format_of, known_endings

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ADVICE = "Convert the data to JSON Lines or Parquet, or name its true format with [input] format"


def select_files(path: str, format_name: str | None) -> tuple[tuple[Path, ...], str]:
    """Return the files, sorted by name, and their format's name. Raises InputError."""
    if _URL.match(path):
        raise InputError(
            f"[input] path: {path} is an address; this version reads local files only. Copy the data here first"
        )
    if not path.strip():
        raise InputError("[input] path is empty; write . for the folder where the command runs")
    if format_name is not None:
        find_format(format_name)  # an unknown name is said before anything about the files
    place = Path(path)
    if place.is_dir():
        files = _in_folder(place, format_name)
    elif place.exists():
        files = [place]
    elif glob.has_magic(path):
        files = [Path(name) for name in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207 - absolute patterns too
        _refuse_lost_links(files)
        files = _each_once([file for file in files if file.is_file()])
        if not files:
            raise InputError(f"[input] path: no file matches {path}")
    else:
        _refuse_lost_links([place])
        raise InputError(_missing(place))
    _refuse_no_files(path, files)
    return tuple(files), format_name or _common_format(path, files)


def _refuse_lost_links(paths: Sequence[Path]) -> None:
    """Raise InputError for a link that leads nowhere: a part of the data is missing."""
    for path in paths:
        try:
            path.stat()
        except FileNotFoundError:
            if path.is_symlink():
                where = path.readlink()
                raise InputError(f"[input] path: {path} is a link to {where}, which is not there") from None
        except (OSError, ValueError):  # a loop of links leads to no file that others don't show; a NUL is in no name
            continue


def _refuse_no_files(path: str, files: Sequence[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise InputError(f"[input] path: {path} is not a regular file, so it can't be read twice")
        if is_of_the_system(file.stat()):
            raise InputError(f"[input] path: {file} can't be read: {OF_THE_SYSTEM}")


def _each_once(files: Sequence[Path]) -> list[Path]:
    """Leave out what links to folders show a second time: `**` follows a loop of them some forty times."""
    found: dict[Path, Path] = {}
    for file in sorted(files, key=lambda file: len(file.parts)):
        found.setdefault(file.parent.resolve() / file.name, file)
    kept = set(found.values())
    return [file for file in files if file in kept]


def _in_folder(folder: Path, format_name: str | None) -> list[Path]:
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    readable = [p for p in entries if (format_of(p) if format_name is None else _reads(format_name, p))]
    _refuse_lost_links(readable)
    files = [p for p in readable if p.is_file()]
    if not files:
        wanted = known_endings(None if format_name is None else [format_name])
        raise InputError(
            f"[input] path: the folder {folder} itself holds no file with a known ending ({wanted}). "
            f"For files in its subfolders write a glob such as {folder}/**/*.jsonl"
        )
    return files


_LIKE_DATA = re.compile(
    r".*\.(csv|tsv|json|txt|xlsx?|arrow|feather|avro|orc|jsonl|ndjson|parquet)(\.(gz|zst|bz2|xz|zip|lz4|snappy))?",
    re.IGNORECASE,
)
_NAMED = 5


def left_out(path: str, files: Sequence[Path]) -> str | None:
    """Say which files of a folder look like data and are not read; None if there are none."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    read = set(files)
    others = sorted(
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry not in read and _LIKE_DATA.fullmatch(entry.name) and entry.is_file()
    )
    if not others:
        return None
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    return f"[input] path: of the folder {path} these are not read: {', '.join(others[:_NAMED])}{more}"


def _reads(format_name: str, file: Path) -> bool:
    return file.name.lower().endswith(find_format(format_name).ENDINGS)


def _common_format(path: str, files: Sequence[Path]) -> str:
    formats: dict[str, Path] = {}
    for file in files:
        name = format_of(file)
        if name is None:
            raise InputError(
                f"[input] path: {file} has an ending this version does not read; "
                f"it reads {known_endings()} (not csv). {_ADVICE}"
            )
        formats.setdefault(name, file)
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({file.name})" for name, file in sorted(formats.items()))
        raise InputError(
            f"[input] path: {path} mixes formats: {examples}. An input has one format; choose it with "
            "[input] format or a glob"
        )
    return next(iter(formats))


def _missing(place: Path) -> str:
    folder = place.parent
    start = "" if place.is_absolute() else f" (seen from {Path.cwd()}, where the command runs)"
    if not folder.is_dir():
        return f"[input] path: there is no file {place}{start}; the folder {folder} does not exist either"
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    near = did_you_mean(place.name, names) or ("" if names else f"; the folder {folder} is empty")
    return f"[input] path: there is no file {place}{start}{near}"
