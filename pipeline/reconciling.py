"""The ledger against a provider's own export: figure by figure, for each UTC day and model.

A figure agrees if the provider's lies between what the ledger knows and what it knows at most, give or take the
tolerance: attempts of unknown cost make the second larger than the first. So does a total; small differences that all
go one way are too much for it. Where the ledger knows nothing of a figure it says so: an unknown cost is never zero.
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
_Place = tuple[date, str | None]
"""A day and a model; None: all models."""

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
    ledger: Number | None
    """None: there are attempts, and nothing is known of this figure."""
    ledger_at_most: Number | None
    """With attempts of unknown cost at their worst; None: without a bound."""
    provider: Number
    verdict: Verdict

    @property
    def difference(self) -> Number | None:
        """What the provider says more than the ledger; None where that says nothing."""
        return None if self.ledger is None else self.provider - self.ledger


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

    Without `provider` the exports say whose they are, and attempts that went to another address than that vendor's own
    are left out; a plain CSV doesn't say, so it is compared with all attempts. Raises InputError for a file of no known
    shape, UsageError if the ledger has nothing of this provider.
    """
    exports, notes = _once([read_export(path, columns) for path in files])
    whose = provider or _provider_of(exports)
    days = [day for export in exports for day in export.days]
    first, last = min(days), max(days)
    with ledger.read() as connection:
        known = [row["provider"] for row in rows_of(connection, report.PROVIDERS)]
        booked = rows_of(connection, report.SQL, [whose, first, last])
    if whose is not None and whose not in known:
        listed = ", ".join(known) or "none"
        raise UsageError(f"the ledger {ledger.path} has no attempts at {whose!r} (providers: {listed}); see --provider")
    if whose is not None and provider is None:
        elsewhere = sum(row["attempts"] for row in booked if row["elsewhere"])
        booked = [row for row in booked if not row["elsewhere"]]
        if elsewhere:
            notes.append(
                f"attempts at {whose} that went to another address (base_url) are left out: {elsewhere:,};"
                f" --provider {whose} takes them in"
            )
    lines, totals = _compare(exports, booked, tolerance)
    return Reconciled(
        provider=whose,
        shapes=tuple(dict.fromkeys(export.shape for export in exports)),
        first_day=first,
        last_day=last,
        lines=lines,
        totals=totals,
        notes=(*notes, *(note for export in exports for note in export.notes)),
    )


def _once(exports: Iterable[Export]) -> tuple[list[Export], list[str]]:
    """Drop exports of files that hold what an earlier one does, with a note for each."""
    found: dict[str, Export] = {}
    notes = []
    for export in exports:
        same = found.setdefault(export.digest, export)
        if same is not export:
            notes.append(f"{export.path} holds what {same.path} does: it counts once")
    return list(found.values()), notes


def _provider_of(exports: Iterable[Export]) -> str | None:
    found = {export.provider for export in exports if export.provider is not None}
    if len(found) > 1:
        raise UsageError(f"the files are of {' and '.join(sorted(found))}; compare them one provider at a time")
    return next(iter(found), None)


def _compare(
    exports: Sequence[Export], booked: Sequence[Mapping[str, Any]], tolerance: Decimal
) -> tuple[list[Line], list[Line]]:
    """Return the lines, by day and model, and the totals."""
    said = _said(exports)
    listed: dict[date, set[str]] = defaultdict(set)
    for (day, model), figures in said.items():
        if model is not None and figures:
            listed[day].add(model)
    covered = _covered(exports)
    named = [(row, _names_of(row, listed)) for row in booked]
    lines: list[Line] = []
    totals: list[Line] = []
    for figure in (figure for figure in FIGURES if figure in covered):
        theirs = {key: figures[figure] for key, figures in said.items() if figure in figures}
        by_model = any(model is not None for _, model in theirs)
        rows = [(row, names if by_model else (None,)) for row, names in named if row["day"] in covered[figure]]
        found = list(_lines_of(figure, theirs, rows, tolerance))
        lines += found
        if found:
            totals.append(_total(figure, found, [row for row, _ in rows], tolerance))
    return sorted(lines, key=lambda line: (line.day, line.model or "", FIGURES.index(line.figure))), totals


def _lines_of(
    figure: str,
    theirs: Mapping[_Place, Number],
    rows: Iterable[tuple[Mapping[str, Any], Sequence[str | None]]],
    tolerance: Decimal,
) -> Iterable[Line]:
    ours: dict[_Place, list[Mapping[str, Any]]] = defaultdict(list)
    only: set[_Place] = set()  # places that have attempts which can be of no other
    for row, names in rows:
        places = [(row["day"], name) for name in names]
        for place in places:
            ours[place].append(row)
        only.update(places if len(places) == 1 else ())
    for place in theirs.keys() | ours.keys():
        low, high = _bounds(figure, ours.get(place, ()))
        if place not in theirs and (low, high) == (0, 0):
            continue  # attempts that used nothing
        stated = theirs.get(place, _nothing(figure))
        verdict = _verdict(figure, low, high, stated, tolerance)
        if verdict == "differs" and not (place in theirs and place in only):
            verdict = "only provider" if place in theirs else "only ledger"
        yield Line(*place, figure, low, high, stated, verdict)


def _total(figure: str, lines: Sequence[Line], rows: Iterable[Mapping[str, Any]], tolerance: Decimal) -> Line:
    """Add up a figure. Of the attempts, not of the lines: a lost one may be of several lines, and counts once."""
    low, high = _bounds(figure, rows)
    stated = _nothing(figure)
    for line in lines:
        stated += line.provider
    verdict = _verdict(figure, low, high, stated, tolerance, lines=len(lines))
    if verdict == "agrees" and any(line.verdict == "unknown" for line in lines):
        verdict = "unknown"
    return Line(None, None, figure, low, high, stated, verdict)


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


def _names_of(row: Mapping[str, Any], listed: Mapping[date, set[str]]) -> Sequence[str]:
    """Return the name under which an export lists a model; several for attempts that were lost and may be of any.

    An attempt without an answer was of a snapshot that nobody told, most likely one that is listed on its day.
    """
    today = listed.get(row["day"], set())
    snapshots = _snapshots(row["model"], today)
    if len(snapshots) > 1 and not (row["model_returned"] or row["requests"] or row["usd"]):
        return snapshots
    return [_name_among(set().union(*listed.values()), today, row)]


def _name_among(names: set[str], today: set[str], row: Mapping[str, Any]) -> str:
    """Return how an export calls a model: as it answered, as it was asked for, dated or undated."""
    asked, returned = row["model"], row["model_returned"]
    candidates = [name for name in (returned, asked) if name]
    undated = [_DATED.sub("", name) for name in candidates]
    dated = _snapshots(asked, today) or _snapshots(asked, names)
    if len(dated) > 1 or _DATED.search(returned or ""):  # a snapshot that answered is no other one
        dated = []
    for name in (*candidates, *undated, *dated):
        if name in names:
            return str(name)
    return str(returned or asked)


def _snapshots(model: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _DATED.sub("", name) == model)


def _bounds(figure: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Number | None, Number | None]:
    """Return what the ledger knows of a figure, and what it may be at most; None: nothing, and without a bound.

    As in `spend`: beside attempts of unknown cost, failures that cost nothing say nothing.
    """
    is_cached = figure == "cached_input_tokens"  # none of them is no sign that nothing is known
    more = "input_tokens" if is_cached else figure
    low = high = _nothing(figure)
    endless = is_known = False
    for row in rows:
        low += row[figure] or 0
        high += row[f"more_{more}"] or 0
        endless = endless or bool(row.get(f"endless_{more}"))
        is_known = is_known or bool(row["requests"] if is_cached else row[figure])
    known = low if is_known or not (high or endless) else None
    return known, None if endless else low + high


def _nothing(figure: str) -> Number:
    return Decimal(0) if figure == "usd" else 0


def _verdict(
    figure: str, low: Number | None, high: Number | None, stated: Number, tolerance: Decimal, *, lines: int = 1
) -> Verdict:
    """Judge a figure, or the total of so many lines."""
    slack = abs(Decimal(stated)) * tolerance / 100
    if figure == "usd":
        # Roundings go up and down, so those of many lines add up to a cent times the square root of their number.
        slack = max(slack, DOLLAR_SLACK * Decimal(lines).sqrt()) if tolerance else LAST_DIGIT * lines
    if stated < (low or 0) - slack:
        return "differs"
    if high is None:
        return "agrees" if low is not None and stated <= low + slack else "unknown"
    return "agrees" if stated <= high + slack else "differs"
