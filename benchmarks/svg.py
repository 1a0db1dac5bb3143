"""Two kinds of picture as SVG text: bars, and lines over rows. Figures stand beside the marks, so axes are bare."""

import math
from html import escape

from results import Plot

WIDTH, LEFT, RIGHT, TOP, STEP = 960, 350, 90, 44, 26
LINES_HEIGHT = 340
COLORS = ("#0b6e4f", "#c2410c", "#7c3aed", "#2563eb", "#a16207", "#be185d", "#475569")


def draw(plot: Plot) -> str:
    """Draw a plot, ours in the first colour."""
    body, height = _bars(plot) if plot.bars else _lines(plot)
    font = 'font-family="sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {font}>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join([_text(16, 24, f"{plot.title}, {plot.unit}", weight="bold"), *body])
        + "\n</svg>\n"
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", color: str = "#111827"
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{color}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(text)}</text>'


def _bars(plot: Plot) -> tuple[list[str], int]:
    scale = (WIDTH - LEFT - RIGHT) / max(plot.bars.values())
    body = []
    for number, (name, value) in enumerate(plot.bars.items()):
        y, color = TOP + number * STEP, COLORS[0] if number == 0 else COLORS[-1]
        body.append(_text(LEFT - 8, y + 15, name, anchor="end"))
        body.append(f'<rect x="{LEFT}" y="{y}" width="{max(1, value * scale):.0f}" height="20" fill="{color}"/>')
        body.append(_text(LEFT + value * scale + 6, y + 15, f"{value:.2f}"))
    return body, TOP + len(plot.bars) * STEP + 12


def _lines(plot: Plot) -> tuple[list[str], int]:
    """Draw lines over a logarithmic number of rows."""
    points = [point for line in plot.lines.values() for point in line]
    least, most = (math.log10(edge(x for x, _ in points)) for edge in (min, max))
    highest = max(y for _, y in points)
    left, right, bottom = 70, WIDTH - 390, LINES_HEIGHT - 36

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - least) / ((most - least) or 1)
        return left + across * (right - left), bottom - y / highest * (bottom - TOP)

    body = [f'<path d="M{left} {TOP}V{bottom}H{right}" fill="none" stroke="#9ca3af"/>']
    body += [_text(left - 6, TOP + 10, f"{highest:,.0f}", anchor="end"), _text(left - 6, bottom, "0", anchor="end")]
    for power in range(math.ceil(least), math.floor(most) + 1):
        body.append(_text(place(10**power, 0)[0], bottom + 18, f"{10**power:,} rows", anchor="middle"))
    names = []
    for (name, line), color in zip(plot.lines.items(), COLORS, strict=False):
        places = [place(x, y) for x, y in line]
        path = "L".join(f"{x:.0f} {y:.0f}" for x, y in places)
        body.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{color}"/>' for x, y in places]
        names.append((line[-1][1], f"{name}: {line[-1][1]:,.0f} at {line[-1][0]:,.0f}", color))
    for number, (_, text, color) in enumerate(sorted(names, reverse=True)):
        body.append(_text(right + 14, TOP + 12 + number * 20, text, color=color))
    return body, LINES_HEIGHT
