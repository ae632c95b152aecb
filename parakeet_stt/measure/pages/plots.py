"""Lines as SVG that lies in an HTML page: axes, ticks, one line and one class for each series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 44  # margins, in the same units
TICKS = 5
FEW = 8  # so many different values of x have a tick each
STEPS = (1, 2, 5, 10)  # within a decade


@dataclass(frozen=True)
class Series:
    """A line. points: (x, y)."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Axis:
    """label: with its unit. is_log: for positive values only."""

    label: str
    is_log: bool = False

    def scale(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def ticks(self, low: float, high: float) -> list[float]:
        """Round values from `low` to `high`."""
        if self.is_log:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            steps = STEPS[:3] if len(decades) < 4 else STEPS[:1]
            return [tick for power in decades for step in steps if low <= (tick := step * 10.0**power) <= high]
        rough = (high - low) / TICKS or 1.0
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in STEPS if factor * power >= rough)
        return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def draw(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """An SVG element, or a sentence if there is nothing to draw. Values that an axis can't show are left out."""
    shown = [Series(one.name, tuple(point for point in one.points if _is_shown(point, x, y))) for one in series]
    xs, ys = ([point[side] for one in shown for point in one.points] for side in (0, 1))
    if not xs:
        return Markup('<p class="none">{}: not measured.</p>').format(title)
    x_range, y_range = _range(xs, x), _range(ys, y)

    def place(value: float, axis: Axis, ends: tuple[float, float], start: int, length: int) -> float:
        low, high = axis.scale(ends[0]), axis.scale(ends[1])
        return round(start + length * (axis.scale(value) - low) / ((high - low) or 1.0), 1)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return (
            place(point[0], x, x_range, LEFT, WIDTH - LEFT - RIGHT),
            place(point[1], y, y_range, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in sorted(set(xs)) if len(set(xs)) <= FEW else x.ticks(*x_range):
        here = at((tick, y_range[0]))[0]
        parts.append(f'<path class="grid" d="M{here} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{here}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks(*y_range):
        here = at((x_range[0], tick))[1]
        parts.append(f'<path class="grid" d="M{LEFT} {here}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{here + 4}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y.label)}</text>'
    )
    for number, one in enumerate(shown):
        places = [at(point) for point in one.points]
        path = " ".join(f"{left},{top}" for left, top in places)
        parts.append(
            f'<polyline class="line s{number % 6}" points="{path}"><title>{escape(one.name)}</title></polyline>'
        )
        if len(places) <= 12:
            parts += [f'<circle class="dot s{number % 6}" cx="{left}" cy="{top}" r="3"/>' for left, top in places]
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  (names and labels are escaped above)


def _is_shown(point: tuple[float, float], x: Axis, y: Axis) -> bool:
    return all(
        math.isfinite(value) and (value > 0 or not axis.is_log) for value, axis in zip(point, (x, y), strict=True)
    )


def _range(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """What an axis shows: from zero, unless it is logarithmic."""
    if not axis.is_log:
        low, high = min(0.0, *values), max(values)
        return low, high + (0.05 * (high - low) or 1.0)
    below, above = 10 ** math.floor(math.log10(min(values))), 10 ** math.floor(math.log10(max(values)))
    low = max(step * below for step in STEPS if step * below <= min(values))
    high = min(step * above for step in STEPS if step * above >= max(values))
    return (low, high) if low < high else (low / 2, high * 2)
