"""A small line chart as SVG: logarithmic axes, one line a series, labels at its end. Pure."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 620, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 110, 40, 48
# Told apart without colour as well: each has dashes of its own. (Okabe and Ito's palette.)
_COLOURS = ("#0072b2", "#009e73", "#d55e00", "#555555")
_DASHES = ("none", "6 3", "2 3", "8 3 2 3")


def log_chart(
    title: str, x_name: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Return the chart; every value is positive."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x0, x1 = log10(min(xs)), log10(max(xs))
    y0, y1 = floor(log10(min(ys))), ceil(log10(max(ys)))
    plot_w, plot_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = (log10(x) - x0) / (x1 - x0) * plot_w + _LEFT
        return across, _TOP + plot_h - (log10(y) - y0) / (y1 - y0) * plot_h

    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="sans-serif">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 10}">{escape(x_name)}</text>',
        f'<text x="{_LEFT}" y="{_TOP - 4}" fill="#666">{escape(y_name)}</text>',
    ]
    for power in range(y0, y1 + 1):
        _, down = place(min(xs), 10.0**power)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + plot_w}" y1="{down:.1f}" y2="{down:.1f}" '
            f'stroke="#ddd"/><text x="{_LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">'
            f"{10.0**power:g}</text>"
        )
    for x in sorted(set(xs)):
        across, _ = place(x, min(ys))
        parts.append(
            f'<text x="{across:.1f}" y="{_TOP + plot_h + 18}" text-anchor="middle">{_short(x)}</text>'
        )
    ends: list[float] = []
    for number, (name, points) in enumerate(series.items()):
        drawn = [place(x, y) for x, y in points]
        colour, dashes = _COLOURS[number % 4], _DASHES[number % 4]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dashes}"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in drawn]
        label = drawn[-1][1] + 4
        while any(abs(label - other) < 14 for other in ends):
            label += 2
        ends.append(label)
        parts.append(
            f'<text x="{drawn[-1][0] + 10:.1f}" y="{label:.1f}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
