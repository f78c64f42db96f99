"""The cost of a verdict against rows and against columns, as one SVG that needs nothing to be seen."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.drift.runs import Found

WIDTH, HEIGHT, LEFT, TOP = 380, 300, 60, 40
COLOURS = {"ours": "#1b7f4d", "registered": "#3465a4", "preset": "#c0392b", "nanny": "#8e5ea2", "by_scipy": "#b8860b"}


def draw(to: Path, rows: Sequence[Found], columns: Sequence[Found], names: Mapping[str, str]) -> None:
    """Two panels, both axes logarithmic: `rows` at one number of columns, `columns` at one number of rows."""
    told = max((*rows, *columns), key=lambda f: f.cpu_s).cpu_s
    least = min((*rows, *columns), key=lambda f: f.cpu_s).cpu_s
    heights = (math.floor(math.log10(least)), math.floor(math.log10(told)) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * (WIDTH + LEFT) + 20} {HEIGHT + TOP + 90}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{2 * (WIDTH + LEFT) + 20}" height="{HEIGHT + TOP + 90}" fill="#ffffff"/>',
        *_panel(0, rows, lambda f: f.size.rows, f"rows ({rows[0].size.columns} columns)", heights),
        *_panel(WIDTH + LEFT, columns, lambda f: f.size.columns, f"columns ({columns[0].size.rows:,} rows)", heights),
        *_legend(list(dict.fromkeys(f.contender for f in (*rows, *columns))), names),
        "</svg>",
    ]
    to.write_text("\n".join(parts) + "\n")


def _panel(
    left: int, found: Sequence[Found], size: Callable[[Found], int], title: str, heights: tuple[int, int]
) -> list[str]:
    low, high = math.log10(min(map(size, found))), math.log10(max(map(size, found)))

    def x(value: float) -> float:
        return left + LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - 20)

    def y(value: float) -> float:
        return TOP + HEIGHT * (heights[1] - math.log10(value)) / (heights[1] - heights[0])

    parts = [f'<text x="{left + LEFT}" y="{TOP - 16}" font-weight="bold">CPU seconds of a verdict by {title}</text>']
    for power in range(heights[0], heights[1] + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{left + LEFT} {at:.1f}h{WIDTH - 20}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left + LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for value in sorted(set(map(size, found))):
        parts.append(f'<path d="M{x(value):.1f} {TOP}v{HEIGHT}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{_short(value)}</text>')
    for name in dict.fromkeys(f.contender for f in found):
        points = sorted((x(size(f)), y(f.cpu_s)) for f in found if f.contender == name)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{COLOURS[name]}"/>' for a, b in points]
    return parts


def _legend(contenders: Sequence[str], names: Mapping[str, str]) -> list[str]:
    parts = []
    for i, name in enumerate(contenders):
        x, y = LEFT + (i % 3) * 270, TOP + HEIGHT + 48 + (i // 3) * 20
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{COLOURS[name]}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 32}" y="{y}">{names[name]}</text>')
    return parts


def _short(value: int) -> str:
    return f"{value / 1e6:g}M" if value >= 1_000_000 else f"{value / 1e3:g}k" if value >= 10_000 else f"{value}"
