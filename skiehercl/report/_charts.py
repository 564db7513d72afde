"""Line charts as SVG, for a page without a library."""

from html import escape

import numpy as np

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 52, 14, 40


def draw_lines(lines, *, x_label, log=False, mark=None, right=None):
    """Return an SVG chart.

    Parameters
    ----------
    lines : list of (name, x, y, colour, dash)
    x_label : str
    log : bool
        Whether the left axis is logarithmic; values of 1e-4 of the largest or less are left out.
    mark : float, default=None
        Where a vertical line stands.
    right : str, default=None
        Name of the line that has an axis of its own, from 0 to 1, on the right.
    """
    every = np.concatenate([np.asarray(x, float) for _, x, _, _, _ in lines])
    own = np.concatenate([np.asarray(y, float) for name, _, y, _, _ in lines if name != right])
    own = own[np.isfinite(own)]
    if log:
        own = own[own > max(own.max(), 1e-300) * 1e-4]
    low, high = float(own.min()), float(own.max())
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = (low / 1.2, high * 1.2) if log else (low - pad, high + pad)
    x0, x1 = float(every.min()), float(every.max())
    x1 = x1 if x1 > x0 else x0 + 1

    def place_x(x):
        return _LEFT + (np.asarray(x, float) - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)

    def place_y(y, ends):
        scale = np.log if log and ends is not unit else np.asarray
        with np.errstate(divide="ignore", invalid="ignore"):
            bottom, top, y = (scale(np.asarray(v, float)) for v in (*ends, y))
            return _HEIGHT - _BOTTOM - (y - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    unit = (0.0, 1.0)
    parts = [_draw_axes(low, high, x0, x1, place_x, place_y, log, x_label, right is not None, unit)]
    if mark is not None:
        x = float(place_x(mark))
        parts.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM, "#999", "4 3"))
    widths = np.linspace(3.4, 1.5, len(lines)) if len(lines) > 2 else [2.0] * len(lines)
    for width, (name, x, y, colour, dash) in zip(widths, lines, strict=True):
        spots = zip(place_x(x), place_y(y, unit if name == right else (low, high)), strict=True)
        spots = [(px, py) for px, py in spots if np.isfinite(py) and py <= _HEIGHT - _BOTTOM + 1]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in spots)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" '
            f'stroke-dasharray="{dash}" stroke-linejoin="round"/>'
        )
        if len(spots) <= 25:
            parts += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in spots
            ]
    key = "".join(
        f'<span><svg viewBox="0 0 26 10"><line x1="0" y1="5" x2="26" y2="5" stroke="{colour}" '
        f'stroke-width="2.5" stroke-dasharray="{dash}"/></svg>{escape(name)}</span>'
        for name, _, _, colour, dash in lines
    )
    svg = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f'{svg}<div class="key">{key}</div>'


def _draw_axes(low, high, x0, x1, place_x, place_y, log, x_label, with_right, unit):
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for value in _list_ticks(low, high, log):
        y = float(place_y(value, (low, high)))
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#e6e9ed"))
        parts.append(_text(_LEFT - 7, y + 4, f"{value:.4g}", "end"))
    for value in _list_ticks(x0, x1, False):
        if value == round(value):
            parts.append(_text(float(place_x(value)), bottom + 17, f"{value:g}", "middle"))
    for value in (0, 0.2, 0.4, 0.6, 0.8, 1) if with_right else ():
        y = float(place_y(value, unit))
        parts.append(_text(_WIDTH - _RIGHT + 7, y + 4, f"{value:g}", "start"))
    parts.append(_line(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "#9aa4b0"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, escape(x_label), "middle"))
    return "".join(parts)


def _list_ticks(low, high, log):
    if log:
        powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        steps = (1,) if len(powers) > 4 else (1, 2, 5)
        ticks = [step * 10.0**power for power in powers for step in steps]
    else:
        raw = (high - low) / 5
        power = 10.0 ** np.floor(np.log10(raw))
        step = power * next(k for k in (1, 2, 5, 10) if k * power >= raw)
        ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return [float(tick) for tick in ticks if low <= tick <= high]


def _line(x1, y1, x2, y2, colour, dash="none"):
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-dasharray="{dash}"/>'
    )


def _text(x, y, text, anchor):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
