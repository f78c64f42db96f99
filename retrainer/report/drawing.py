"""A column's shape as inline SVG: grey is the reference window, colour the current one."""

from collections.abc import Sequence

from retrainer.report.shapes import Density

WIDTH, HEIGHT = 320, 90
_FLOOR = HEIGHT - 1


def density(drawn: Density, label: str) -> str:
    """Both windows over the reference's central values, on one scale; `label` is escaped text."""
    top = max((*drawn["reference"], *drawn["current"]), default=0.0) or 1.0
    old, new = (_outline(drawn[side], top) for side in ("reference", "current"))
    return (
        f'<svg class="density" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><path class="old" d="{old}"/><path class="new" d="{new}"/></svg>'
    )


def bar(old: float, new: float, top: float) -> str:
    """Two bars, one above the other, of lengths as parts of `top`."""
    widths = [f"{100 * min(share / top, 1.0) if top > 0 else 0.0:.1f}" for share in (old, new)]
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="old" width="{widths[0]}" height="4.5"/>'
        f'<rect class="new" y="5.5" width="{widths[1]}" height="4.5"/></svg>'
    )


def gauge(times: float, *, drifted: bool) -> str:
    """How far a score is, in thresholds: one threshold is the middle."""
    return (
        '<svg class="gauge" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="{"far" if drifted else "near"}" width="{100 * times / (1 + times):.1f}" height="8"/>'
        '<rect class="mark" x="49.75" width=".5" height="8"/></svg>'
    )


def _outline(shares: Sequence[float], top: float) -> str:
    """A closed step line from the floor up, over each bin, and down again."""
    step = WIDTH / len(shares)
    heights = [f"{_FLOOR - (HEIGHT - 4) * share / top:.1f}" for share in shares]
    steps = "".join(f"V{height}H{step * (n + 1):.1f}" for n, height in enumerate(heights))
    return f"M0 {_FLOOR}{steps}V{_FLOOR}Z"
