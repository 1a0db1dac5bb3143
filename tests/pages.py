"""README.md and docs/*.md as data: their fenced blocks, tables, links and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.*?)\s*$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_CELLS = re.compile(r"(?<!\\)\|")
_OPERATORS = "|><&;"


@dataclass(frozen=True)
class Block:
    """A fenced block. Its info string is a language and perhaps the path of the file that it shows."""

    page: Path
    line: int
    section: str
    language: str
    file: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass
class Command:
    """A line of a shell block: its first word, the other words, and the output that is shown."""

    block: Block
    program: str
    args: list[str]
    output: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.block}: {self.program} {' '.join(self.args)}"


def blocks(*languages: str, pages: tuple[Path, ...] = PAGES) -> list[Block]:
    """List the blocks in these languages, page by page."""
    return [block for page in pages for block in _blocks_of(page) if block.language in languages]


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        language, _, file = match[2].strip().partition(" ")
        before = text[: match.start()]
        headings = _HEADING.findall(_FENCE.sub("", before))
        section = headings[-1] if headings else ""
        yield Block(page, before.count("\n") + 1, section, language, file or None, match[3])


def commands(page: Path) -> list[Command]:
    """List the commands of a page's shell blocks. In a `console` block they follow `$ `; the rest is output."""
    return [command for block in blocks("console", "bash", "sh", pages=(page,)) for command in _commands_of(block)]


def _commands_of(block: Block) -> list[Command]:
    found: list[Command] = []
    prompted = block.language == "console"
    for line in block.text.replace("\\\n", " ").splitlines():
        if prompted and not line.startswith("$ "):
            if found:
                found[-1].output.append(line)
            continue
        words = _words(line.removeprefix("$ "))
        if words:
            found.append(Command(block, Path(words[0]).name, words[1:]))
    return found


def _words(line: str) -> list[str]:
    """Split as a shell does, without comments, up to the first pipe or redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [at for at, word in enumerate(words) if set(word) <= set(_OPERATORS)]
    return words[: ends[0]] if ends else words


def prose(page: Path) -> str:
    """Return a page's text without its fenced blocks, as one line per paragraph's words."""
    return " ".join(_FENCE.sub("", page.read_text(encoding="utf-8")).split())


def rows(page: Path, *head: str, section: str | None = None, chapter: str | None = None) -> list[list[str]]:
    """List the rows of the tables whose first columns have these names, under a heading if one is named.

    A chapter is everything under a heading of the second level.
    """
    found: list[list[str]] = []
    part, here, inside = "", "", False
    for line in _FENCE.sub("", page.read_text(encoding="utf-8")).splitlines():
        if heading := _HEADING.match(line):
            here = heading[1]
            part = here if line.startswith("## ") else part
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _CELLS.split(line)[1:-1]]
        if inside and not set(line) <= set("|- "):
            found.append(cells)
        inside = inside or (tuple(cells[: len(head)]) == head and section in {None, here} and chapter in {None, part})
    return found


def required_rows(page: Path, *head: str, section: str | None = None, chapter: str | None = None) -> list[list[str]]:
    """Do the same for a test that goes through them; that there are none is an error then: a heading has changed."""
    found = rows(page, *head, section=section, chapter=chapter)
    if not found:
        raise LookupError(f"{page.name} has no table with the columns {', '.join(head)}")
    return found


def column(page: Path, *head: str, section: str | None = None, chapter: str | None = None) -> list[str]:
    """List the first column of such tables, without backticks."""
    return [plain(cells[0]) for cells in rows(page, *head, section=section, chapter=chapter)]


def plain(cell: str) -> str:
    """Return a cell's text without the backticks around it."""
    return cell.removeprefix("`").removesuffix("`")


def quoted(cell: str) -> list[str]:
    """List what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def sections(page: Path) -> list[str]:
    """List the page's headings."""
    return _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """List the page's links that lead to another place of this repository."""
    found = _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]


def anchors(page: Path) -> set[str]:
    """Return what a link to one of the page's headings ends with, made as GitHub makes it."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in sections(page)}
