"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations

_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_SIZES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
#: Whole numbers below this are not shortened.
MOST_IN_FULL = 10_000
#: What stands where there is no number.
NOTHING = "-"


def format_time(seconds: float | None) -> str:
    """
    >>> format_time(0.00123), format_time(5400.0), format_time(0.0)
    ('1.23 ms', '1.50 h', '0 s')
    """
    return NOTHING if seconds is None else _scale(seconds, _TIMES) if seconds > 0.0 else "0 s"


def format_size(n_bytes: float | None) -> str:
    """
    >>> format_size(0), format_size(999), format_size(2.5e9)
    ('0 B', '999 B', '2.50 GB')
    """
    return NOTHING if n_bytes is None else _scale(n_bytes, _SIZES) if n_bytes > 0 else "0 B"


def format_count(value: float | None) -> str:
    """A number of things, or how many of them a second.

    >>> format_count(7), format_count(1234), format_count(0.25), format_count(1234567)
    ('7', '1234', '0.25', '1.23 M')
    """
    if value is None:
        return NOTHING
    if value == int(value) and value < MOST_IN_FULL:
        return str(int(value))
    return _scale(value, _COUNTS)


def format_number_of(number: int, noun: str) -> str:
    """
    >>> format_number_of(1, "worker"), format_number_of(3, "worker")
    ('1 worker', '3 workers')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_share(share: float | None, width: int = 0) -> str:
    """A share of 1 in percent, behind a bar of ``width`` columns.

    >>> format_share(0.5, 10)
    '|||||       50 %'
    """
    if share is None:
        return NOTHING
    text = f"{share:4.0%}".replace("%", " %")
    return f"{'|' * round(share * width):{width}} {text}" if width else text.strip()


def _scale(value: float, units: tuple[tuple[float, str], ...]) -> str:
    # What would be rounded to 1000 of one unit is 1.00 of the next.
    factor, unit = next((u for u in units if value >= 0.9995 * u[0]), units[-1])
    scaled = value / factor
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    text = f"{scaled:.{digits}f}"
    if factor == 1.0 and value == int(value):
        text = f"{int(value)}"
    return f"{text} {unit}".rstrip()
