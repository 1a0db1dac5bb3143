"""The ledger against a provider's own export: figure by figure, for each UTC day and model.

A figure agrees if the provider's lies between what the ledger knows and what it knows at most, give or take the
tolerance: attempts of unknown cost make the second larger than the first. So does a total; small differences that all
go one way are too much for it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.ledger import Ledger, rows_of
from pipeline.reports import reconcile as report
from pipeline.usage_exports import FIGURES, Export, read_export

Verdict = Literal["agrees", "differs", "only ledger", "only provider", "unknown"]
Number = int | Decimal

DOLLAR_SLACK = Decimal("0.01")
"""Providers round each line of their bill to the cent."""
LAST_DIGIT = Decimal("5e-13")
"""Half of the last digit that the ledger has of a cost: nearer than that are only numbers that were floats."""

_DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
"""How providers name a snapshot of a model."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one day and model, in the ledger and in the export."""

    day: date | None
    """None: the whole period."""
    model: str | None
    """None: all models."""
    figure: str
    ledger: Number
    ledger_at_most: Number | None
    """With attempts of unknown cost at their worst; None: without a bound."""
    provider: Number
    verdict: Verdict

    @property
    def difference(self) -> Number:
        """What the provider says more than the ledger."""
        return self.provider - self.ledger


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The ledger and the files compared."""

    provider: str | None
    """Whose attempts were compared; None: everybody's."""
    shapes: Sequence[str]
    first_day: date
    last_day: date
    lines: Sequence[Line]
    totals: Sequence[Line]
    """The same figures over the whole period."""
    notes: Sequence[str]

    @property
    def agrees(self) -> bool:
        """Tell whether every line and every total does."""
        return all(line.verdict == "agrees" for line in (*self.lines, *self.totals))


def reconcile(
    ledger: Ledger, files: Sequence[Path], *, columns: Mapping[str, str], provider: str | None, tolerance: Decimal
) -> Reconciled:
    """Compare the ledger with exports of one provider; `tolerance` is percent of the provider's figure, 0 is exact.

    Without `provider` the exports say whose they are; a plain CSV doesn't, so it is compared with all attempts. Raises
    InputError for a file of no known shape, UsageError if the ledger has nothing of this provider.
    """
    exports = [read_export(path, columns) for path in files]
    whose = provider or _provider_of(exports)
    days = [day for export in exports for day in export.days]
    first, last = min(days), max(days)
    with ledger.read() as connection:
        known = [row["provider"] for row in rows_of(connection, report.PROVIDERS)]
        booked = rows_of(connection, report.SQL, [whose, first, last])
    if whose is not None and whose not in known:
        listed = ", ".join(known) or "none"
        raise UsageError(f"the ledger {ledger.path} has no attempts at {whose!r} (providers: {listed}); see --provider")
    lines = list(_compare(exports, booked, tolerance))
    return Reconciled(
        provider=whose,
        shapes=tuple(dict.fromkeys(export.shape for export in exports)),
        first_day=first,
        last_day=last,
        lines=lines,
        totals=_totals(lines, tolerance),
        notes=tuple(note for export in exports for note in export.notes),
    )


def _provider_of(exports: Iterable[Export]) -> str | None:
    found = {export.provider for export in exports if export.provider is not None}
    if len(found) > 1:
        raise UsageError(f"the files are of {' and '.join(sorted(found))}; compare them one provider at a time")
    return next(iter(found), None)


def _compare(exports: Sequence[Export], booked: Sequence[Mapping[str, Any]], tolerance: Decimal) -> Iterable[Line]:
    said = _said(exports)
    names = {model for (_, model), figures in said.items() if model is not None and figures}
    covered = _covered(exports)
    found: list[Line] = []
    for figure in covered:
        theirs = {key: figures[figure] for key, figures in said.items() if figure in figures}
        by_model = any(model is not None for _, model in theirs)
        ours: dict[tuple[date, str | None], list[Mapping[str, Any]]] = defaultdict(list)
        for row in booked:
            if row["day"] in covered[figure]:
                ours[row["day"], _name_among(names, row) if by_model else None].append(row)
        for key in theirs.keys() | ours.keys():
            low, high = _bounds(figure, ours.get(key, []))
            if key not in theirs and not low and high == low:
                continue  # attempts that used nothing
            stated = theirs.get(key, _nothing(figure))
            verdict = _verdict(figure, low, high, stated, tolerance)
            if verdict == "differs" and not (key in theirs and key in ours):
                verdict = "only provider" if key in theirs else "only ledger"
            found.append(Line(*key, figure, low, high, stated, verdict))
    return sorted(found, key=lambda line: (line.day, line.model or "", FIGURES.index(line.figure)))


def _said(exports: Iterable[Export]) -> dict[tuple[date, str | None], dict[str, Number]]:
    """Add up what the files say, by day and model."""
    sums: dict[tuple[date, str | None], dict[str, Number]] = defaultdict(dict)
    for line in (line for export in exports for line in export.lines):
        figures = sums[line.day, line.model]
        for figure in FIGURES:
            value = getattr(line, figure)
            if value is not None:
                figures[figure] = figures.get(figure, 0) + value
    return sums


def _covered(exports: Iterable[Export]) -> dict[str, set[date]]:
    """Return the days for which the files tell each figure: from a file's first day to its last."""
    days: dict[str, set[date]] = defaultdict(set)
    for export in exports:
        first, count = min(export.days), (max(export.days) - min(export.days)).days + 1
        for figure in FIGURES:
            if any(getattr(line, figure) is not None for line in export.lines):
                days[figure].update(first + timedelta(days=n) for n in range(count))
    return days


def _name_among(names: set[str], row: Mapping[str, Any]) -> str:
    """Return the name under which an export lists a model: as it answered, as it was asked for, dated or undated."""
    asked, returned = row["model"], row["model_returned"]
    candidates = [name for name in (returned, asked) if name]
    undated = [_DATED.sub("", name) for name in candidates]
    dated = [name for name in names if _DATED.sub("", name) == asked]
    for name in (*candidates, *undated, *(dated if len(dated) == 1 else ())):
        if name in names:
            return str(name)
    return str(returned or asked)


def _bounds(figure: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Number, Number | None]:
    """Return what the ledger knows of a figure, and what it may be at most."""
    more = "input_tokens" if figure == "cached_input_tokens" else figure
    low = high = _nothing(figure)
    endless = False
    for row in rows:
        low += row[figure] or 0
        high += row[f"more_{more}"] or 0
        endless = endless or bool(row.get(f"endless_{more}"))
    return low, None if endless else low + high


def _nothing(figure: str) -> Number:
    return Decimal(0) if figure == "usd" else 0


def _verdict(
    figure: str, low: Number, high: Number | None, stated: Number, tolerance: Decimal, *, lines: int = 1
) -> Verdict:
    """Judge a figure, or the total of so many lines."""
    slack = abs(Decimal(stated)) * tolerance / 100
    if figure == "usd":
        # Roundings go up and down, so those of many lines add up to a cent times the square root of their number.
        slack = max(slack, DOLLAR_SLACK * Decimal(lines).sqrt()) if tolerance else LAST_DIGIT * lines
    if stated < low - slack:
        return "differs"
    if stated <= (low if high is None else high) + slack:
        return "agrees"
    return "unknown" if high is None else "differs"


def _totals(lines: Sequence[Line], tolerance: Decimal) -> list[Line]:
    totals = []
    for figure in FIGURES:
        of_figure = [line for line in lines if line.figure == figure]
        if of_figure:
            bounds = [line.ledger_at_most for line in of_figure if line.ledger_at_most is not None]
            low, high = (
                _sum(figure, (line.ledger for line in of_figure)),
                _sum(figure, bounds) if len(bounds) == len(of_figure) else None,
            )
            stated = _sum(figure, (line.provider for line in of_figure))
            verdict = _verdict(figure, low, high, stated, tolerance, lines=len(of_figure))
            totals.append(Line(None, None, figure, low, high, stated, verdict))
    return totals


def _sum(figure: str, numbers: Iterable[Number]) -> Number:
    total = _nothing(figure)
    for number in numbers:
        total += number
    return total
