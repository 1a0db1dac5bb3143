"""One line on stderr about work that goes on: rewritten in a terminal, a new line each time elsewhere."""

import shutil
import sys

import click

from pipeline.cli._show import rewrites, takes_text

GAP = "  "
"""Stands between the facts of a line."""


class StatusLine:
    """Shows a text instead of the one before. The work goes on all the same when nobody reads stderr any more."""

    def __init__(self) -> None:
        self.terminal = rewrites(sys.stderr)
        self._shown = 0

    @property
    def shown(self) -> bool:
        """Tell whether the cursor stands behind a text."""
        return self._shown > 0

    def show(self, text: str) -> None:
        """Show it; in a terminal as many of its facts, from the first on, as the width has room for."""
        if not self.terminal:
            self._write(f"{text}\n")
            return
        cut = _cut(text, shutil.get_terminal_size().columns - 1)
        if self._write("\r" + cut.ljust(self._shown)):
            self._shown = len(cut)

    def clear(self) -> None:
        """Make room for something else in the line."""
        if self._shown:
            self.show("")
            self._write("\r")

    def end(self) -> None:
        """Leave the cursor on a fresh line, if it is not on one."""
        if self._shown:
            self._write("\n")
            self._shown = 0

    @staticmethod
    def _write(text: str) -> bool:
        """Write it if that can be done, and tell."""
        if not takes_text(sys.stderr):
            return False
        try:
            click.echo(text, err=True, nl=False)
        except OSError:
            return False
        return True


def _cut(text: str, width: int) -> str:
    """Leave out what doesn't fit, and no part of a fact: half an amount of money would be another amount."""
    if len(text) <= width:
        return text
    end = text.rfind(GAP, 0, width + len(GAP))
    return text[: end if end > 0 else width]
