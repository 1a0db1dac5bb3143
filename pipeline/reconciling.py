"""The ledger against a provider's own export: figure by figure, for each UTC day and model.

A figure agrees if the provider's lies between what the ledger knows and what it knows at most, give or take the
tolerance: attempts of unknown cost make the second larger than the first. So does a total; small differences that all
go one way are too much for it. Where the ledger knows nothing of a figure it says so: an unknown cost is never zero.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pipeline.budget import dollars
from pipeline.errors import InputError, UsageError
from pipeline.ledger import Ledger, rows_of
from pipeline.providers import may_be_billed
from pipeline.reports import reconcile as report
from pipeline.usage_exports import FIGURES, Export, by_days, covered, cut_off, notes_of, read_export

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
    not_told: Sequence[str]
    """Figures that no file tells: they were not compared."""
    is_cut_off: bool
    """A page says that another follows, which no file holds."""

    @property
    def agrees(self) -> bool:
        """Tell whether every line and every total does, and no page is missing."""
        return not self.is_cut_off and all(line.verdict == "agrees" for line in (*self.lines, *self.totals))


def reconcile(
    ledger: Ledger, files: Sequence[Path], *, columns: Mapping[str, str], provider: str | None, tolerance: Decimal
) -> Reconciled:
    """Compare the ledger with exports of one provider; `tolerance` is percent of the provider's figure, 0 is exact.

    Without `provider` the exports say whose they are, and attempts that went to another address than that vendor's own
    are left out; a plain CSV doesn't say, so it is compared with all attempts. Raises InputError for a file of no known
    shape, UsageError if the ledger has nothing of this provider or no file has the columns.
    """
    exports, notes = _once([read_export(path, columns) for path in files])
    _require_figures(exports, columns)
    theirs = _provider_of(exports)
    whose = provider or theirs
    if provider is not None and theirs not in {None, provider}:
        notes.append(f"the files are {theirs}'s by their shape, and compared with what went to {provider}")
    days = [day for export in exports for day in export.days]
    first, last = min(days), max(days)
    with ledger.read() as connection:
        known = [row["provider"] for row in rows_of(connection, report.PROVIDERS)]
        booked = [_certain(row) for row in rows_of(connection, report.SQL, [whose, first, last])]
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
    told = covered(exports)
    lines, totals = _compare(exports, booked, told, tolerance)
    return Reconciled(
        provider=whose,
        shapes=tuple(dict.fromkeys(export.shape for export in exports)),
        first_day=first,
        last_day=last,
        lines=lines,
        totals=totals,
        notes=(*notes, *notes_of(exports), *_beyond(told, booked)),
        not_told=tuple(figure for figure in FIGURES if figure not in told),
        is_cut_off=bool(cut_off(exports)),
    )


def _require_figures(exports: Sequence[Export], columns: Mapping[str, str]) -> None:
    """Refuse columns that no file has, and files with nothing to compare. Raises UsageError, InputError."""
    if columns and all(export.provider is not None for export in exports):
        named, shapes = ", ".join(columns.values()), " and ".join(dict.fromkeys(export.shape for export in exports))
        raise UsageError(f"--columns: no file has all of {named}; without it this is {shapes}")
    if not any(export.figures for export in exports):
        first = exports[0]
        raise InputError(f"{first.path}: {first.shape}, but no usage in it; export a period that has some")


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


def _certain(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the ledger says without what attempts may add that can't have been billed.

    A free model's attempts cost nothing, whether they were answered or not; how they ended tells.
    """
    if not row["unbilled"] or may_be_billed(row["http_status"], row["error_type"]):
        return row
    return row | {name: 0 for name in row if name.startswith(("more_", "endless_"))}


def _beyond(told: Mapping[str, set[date]], booked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return notes on the ledger's days between the first and the last of the files that no file tells."""
    used = {row["day"] for row in booked}
    missing = {figure: used - told[figure] for figure in FIGURES if figure in told}
    notes = []
    for figures, days, on_them in by_days(missing):
        rows = [row for row in booked if row["day"] in on_them]
        attempts = sum(row["attempts"] for row in rows)
        usd = sum((row["usd"] for row in rows if row["usd"]), Decimal(0))
        notes.append(
            f"{figures}: no file tells {days}; what the ledger has there is not compared:"
            f" attempts {attempts:,}, known cost {dollars(usd)}"
        )
    return notes


def _compare(
    exports: Sequence[Export], booked: Sequence[Mapping[str, Any]], told: Mapping[str, set[date]], tolerance: Decimal
) -> tuple[list[Line], list[Line]]:
    """Return the lines, by day and model, and the totals."""
    said = _said(exports)
    every_name = {model for _, model in said if model is not None}
    lines: list[Line] = []
    totals: list[Line] = []
    for figure in (figure for figure in FIGURES if figure in told):
        theirs = {key: figures[figure] for key, figures in said.items() if figure in figures}
        listed: dict[date, set[str]] = defaultdict(set)
        for day, model in theirs:
            if model is not None:
                listed[day].add(model)
        within = [row for row in booked if row["day"] in told[figure]]
        rows = [(row, _names_of(row, listed) if listed else (None,)) for row in within]
        found = list(_lines_of(figure, theirs, rows, tolerance))
        names = set().union(*listed.values())
        lines += (replace(line, model=_shown(line.model, names, every_name)) for line in found)
        if found:
            totals.append(_total(figure, found, within, tolerance))
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
        is_on_both = place in theirs and place in ours
        verdict = _verdict(figure, low, high, stated, tolerance, roundings=int(is_on_both))
        if verdict == "differs" and not (place in theirs and place in only):
            verdict = "only provider" if place in theirs else "only ledger"
        yield Line(*place, figure, low, high, stated, verdict)


def _total(figure: str, lines: Sequence[Line], rows: Iterable[Mapping[str, Any]], tolerance: Decimal) -> Line:
    """Add up a figure. Of the attempts, not of the lines: a lost one may be of several lines, and counts once."""
    low, high = _bounds(figure, rows)
    stated = _nothing(figure)
    for line in lines:
        stated += line.provider
    verdict = _verdict(figure, low, high, stated, tolerance, roundings=len(lines))
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


def _names_of(row: Mapping[str, Any], listed: Mapping[date, set[str]]) -> Sequence[str]:
    """Return the name under which an export lists a model; several for attempts that were lost and may be of any.

    An attempt without an answer was of a snapshot that nobody told, most likely one that is listed on its day.
    """
    today = listed.get(row["day"], set())
    snapshots = _snapshots(row["model"], today)
    if len(snapshots) > 1 and not (row["model_returned"] or row["requests"] or row["usd"]):
        return snapshots
    return [_name_among(today, row) or _name_among(set().union(*listed.values()), row) or _own_name(row)]


def _own_name(row: Mapping[str, Any]) -> str:
    return str(row["model_returned"] or row["model"])


def _name_among(names: set[str], row: Mapping[str, Any]) -> str | None:
    """Return how an export calls a model: as it answered, as it was asked for, dated or undated."""
    asked, returned = row["model"], row["model_returned"]
    candidates = [name for name in (returned, asked) if name]
    undated = [_DATED.sub("", name) for name in candidates]
    dated = _snapshots(asked, names)
    if len(dated) > 1 or _DATED.search(returned or ""):  # a snapshot that answered is no other one
        dated = []
    return next((str(name) for name in (*candidates, *undated, *dated) if name in names), None)


def _shown(name: str | None, names: set[str], every_name: set[str]) -> str | None:
    """Return one name of a model for all figures: its snapshot's, where other figures list only that one."""
    snapshots = _snapshots(name, every_name - {name}) if name is not None else []
    return snapshots[0] if len(snapshots) == 1 and snapshots[0] not in names else name


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
    figure: str, low: Number | None, high: Number | None, stated: Number, tolerance: Decimal, *, roundings: int
) -> Verdict:
    """Judge a figure, or a total, in which the provider rounded so often. What only one side has is no rounding."""
    slack = abs(Decimal(stated)) * tolerance / 100
    if figure == "usd":
        # Roundings go up and down, so those of many lines add up to a cent times the square root of their number.
        slack = max(slack, DOLLAR_SLACK * Decimal(roundings).sqrt()) if tolerance else LAST_DIGIT * roundings
    if stated < (low or 0) - slack:
        return "differs"
    if high is None:
        return "agrees" if low is not None and stated <= low + slack else "unknown"
    return "agrees" if stated <= high + slack else "differs"
