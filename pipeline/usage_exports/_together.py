"""What several exports say together: which days they tell, what they tell twice, and which pages are missing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from pipeline.usage_exports._shape import FIGURES, Export, Page
from pipeline.usage_exports._values import A_DAY, Span, day_of, midnight_before

_DAYS_TOLD = 3


def covered(exports: Iterable[Export]) -> dict[str, set[date]]:
    """Return the days for which exports tell each figure: from a file's first day to its last.

    Pages on which nothing was used tell that of whatever the others do.
    """
    exports = list(exports)
    days: dict[str, set[date]] = defaultdict(set)
    every_figure = {figure for export in exports if export.pages for figure in export.figures}
    for export in exports:
        first, count = min(export.days), (max(export.days) - min(export.days)).days + 1
        for figure in export.figures or every_figure:
            days[figure].update(first + timedelta(days=n) for n in range(count))
    return days


def notes_of(exports: Sequence[Export]) -> list[str]:
    """Say what is known to be missing from exports, and what is in them twice."""
    return [
        *(note for export in exports for note in export.notes),
        *(
            f"{path}: its last page says has_more: days are missing; fetch the next pages too"
            for path in cut_off(exports)
        ),
        *_told_twice(exports),
        *_told_in_part(exports),
    ]


def cut_off(exports: Iterable[Export]) -> list[str]:
    """Return the paths of exports with a page that another should follow, which none of the files holds."""
    pages = [(str(export.path), page) for export in exports for page in export.pages]
    all_pages = [page for _, page in pages]
    return list(dict.fromkeys(path for path, page in pages if page.has_more and not _goes_on(page, all_pages)))


def _goes_on(page: Page, pages: Iterable[Page]) -> bool:
    """Tell whether there is the next page of its kind: vendors list days without usage, too.

    A page without results may be of any kind.
    """
    return any(
        other.first <= page.end < other.end
        and (not (other.kinds and page.kinds) or not other.kinds.isdisjoint(page.kinds))
        for other in pages
    )


def _told_twice(exports: Sequence[Export]) -> list[str]:
    """Return notes on figures of one day and model in two files: of two projects, or exported twice."""
    by_first: dict[tuple[date, str | None, str], int] = {}
    twice: dict[tuple[int, int], dict[date, set[str]]] = defaultdict(lambda: defaultdict(set))
    for number, export in enumerate(exports):
        for place in dict.fromkeys((line.day, line.model, figure) for line in export.lines for figure in line.told):
            first = by_first.setdefault(place, number)
            if first != number:
                twice[first, number][place[0]].add(place[2])
    notes = []
    for (one, other), figures in twice.items():
        first_file, second_file = exports[one], exports[other]
        if days := [day for day in figures if _overlap(first_file, second_file, day)]:
            notes.append(
                f"{first_file.path} and {second_file.path} both tell"
                f" {_figures_text(figure for day in days for figure in figures[day])} of {days_text(days)}: added up;"
                " leave one out if it is the same usage"
            )
    return notes


def _overlap(first: Export, second: Export, day: date) -> bool:
    """Tell whether two exports speak about the same hours of a day."""
    reached = dict.fromkeys((False, True), datetime.min.replace(tzinfo=UTC))
    parts = [(span, export is second) for export in (first, second) for span in export.spans if day_of(span) == day]
    for (begins, ends), is_second in sorted(parts):
        if begins < reached[not is_second]:
            return True
        reached[is_second] = max(reached[is_second], ends)
    return False


def _told_in_part(exports: Iterable[Export]) -> list[str]:
    """Return notes on days whose buckets don't make a whole day."""
    spans: dict[tuple[str, date], set[Span]] = defaultdict(set)
    for export in exports:
        for figure in export.figures:
            for span in export.spans:
                spans[figure, day_of(span)].add(span)
    days: dict[str, list[date]] = defaultdict(list)
    for (figure, day), parts in spans.items():
        if not _is_whole(parts):
            days[figure].append(day)
    return [f"{figures}: only a part of {told} is in the files" for figures, told, _ in by_days(days)]


def _is_whole(parts: Iterable[Span]) -> bool:
    """Tell whether spans of one day make all of it."""
    ordered = sorted(parts)
    reached = midnight = midnight_before(ordered[0][0])
    for first, last in ordered:
        if first > reached:
            return False
        reached = max(reached, last)
    return reached == midnight + A_DAY


def by_days(days: Mapping[str, Iterable[date]]) -> list[tuple[str, str, tuple[date, ...]]]:
    """Return for figures that share their days: the figures and the days as text, and the days."""
    figures: dict[tuple[date, ...], list[str]] = defaultdict(list)
    for figure, its_days in days.items():
        figures[tuple(sorted(its_days))].append(figure)
    return [(_figures_text(names), days_text(shared), shared) for shared, names in figures.items() if shared]


def _figures_text(figures: Iterable[str]) -> str:
    found = set(figures)
    return ", ".join(figure for figure in FIGURES if figure in found)


def days_text(days: Iterable[date]) -> str:
    """List days for a message: a few of them, and how many there are."""
    ordered = sorted(set(days))
    told = ", ".join(map(str, ordered[:_DAYS_TOLD]))
    return told if len(ordered) <= _DAYS_TOLD else f"{told} and {len(ordered) - _DAYS_TOLD:,} more days"
