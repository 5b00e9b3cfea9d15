"""Plots as SVG text, for a web page that needs nothing else."""

import html
import math

_WIDTH = 480  # in the units of the plot; a page scales it


def bar_plot(title, bars):
    """Upright bars.

    Args:
        title: str.
        bars: list of (label, value), a str and an int or a float from 0, one or more.

    Returns:
        A str, an HTML `<figure>`.

    Example:

    >>> bar_plot("Words", [("1", 3), ("2", 5)]).count("<rect")
    2
    """
    height, foot = 180, 18
    highest = max(value for _, value in bars) or 1
    step = _WIDTH / len(bars)
    every = -(-len(bars) // 10)  # no more labels than fit
    shapes = []
    for index, (label, value) in enumerate(bars):
        label = html.escape(label)
        center = (index + 0.5) * step
        tall = value / highest * (height - 16)
        shown = value if isinstance(value, int) else f"{value:.3f}"
        shapes.append(
            f"<rect x={index * step + 1:.1f} y={height - tall:.1f} "
            f"width={max(step - 2, 1):.1f} height={tall:.1f}>"
            f"<title>{label}: {shown}</title></rect>"
        )
        if index % every == 0:
            shapes.append(f"<text x={center:.1f} y={height + 13}>{label}</text>")
        if value == highest:
            y = height - tall - 4
            shapes.append(f"<text x={center:.1f} y={y:.1f}>{shown}</text>")
    return _figure(title, height + foot, shapes)


def interval_plot(title, rows):
    """A dot, and a line from the low end of its interval to the high one, for each row.

    Args:
        title: str.
        rows: dict of name to (value, low, high), one or more; 0 is always in sight.

    Returns:
        A str, an HTML `<figure>`.

    Example:

    >>> interval_plot("Scores", {"BLEU-1": (0.6, 0.55, 0.65)}).count("<circle")
    1
    """
    row_height, left, right = 22, 96, 470
    ends = [number for row in rows.values() for number in row]
    lowest, highest = min(0.0, *ends), max(*ends, 1e-9)
    margin = 0.03 * (highest - lowest)

    def at(value):
        share = (value - lowest + margin) / (highest - lowest + 2 * margin)
        return f"{left + share * (right - left):.1f}"

    bottom = row_height * len(rows)
    shapes = []
    for tick, label in _ticks(lowest, highest):
        kind = "grid" if tick else "zero"
        shapes.append(
            f"<line class={kind} x1={at(tick)} x2={at(tick)} y1=0 y2={bottom} />"
            f"<text x={at(tick)} y={bottom + 13}>{label}</text>"
        )
    for index, (name, (value, low, high)) in enumerate(rows.items()):
        name = html.escape(name)
        y = (index + 0.5) * row_height
        shapes.append(
            f"<text class=name x={left - 8} y={y + 4}>{name}</text>"
            f"<line x1={at(low)} x2={at(high)} y1={y} y2={y} />"
            f"<circle cx={at(value)} cy={y} r=3.5>"
            f"<title>{name}: {value:.4f}, {low:.4f} to {high:.4f}</title></circle>"
        )
    return _figure(title, bottom + 18, shapes)


def _ticks(lowest, highest):
    """Some round numbers from low to high, 0 among them, and how to write each."""
    rough = (highest - lowest) / 6
    power = math.floor(math.log10(rough))
    step = next(n for n in (1, 2, 5, 10) if n * 10**power >= rough)
    # Counted in steps, which have no rounding errors.
    first, last = (number / (step * 10**power) for number in (lowest, highest))
    digits = max(0, -power)
    return [
        (n * step * 10**power, f"{n * step * 10**power:.{digits}f}")
        for n in range(math.ceil(first), math.floor(last) + 1)
    ]


def _figure(title, height, shapes):
    title = html.escape(title)
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role=img aria-label="{title}">'
        f"{''.join(shapes)}</svg></figure>"
    )
