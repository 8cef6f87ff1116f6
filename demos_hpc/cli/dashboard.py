"""What ``demos-hpc top`` and ``stats`` show of a server: tables that fit the terminal.

Only rendering: a description (`Metrics.describe`) goes in, something that rich can print comes out. Where the terminal
is narrow, the columns that matter least are left out; numbers are never cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .quantities import format_count, format_number_of, format_share, format_size, format_time
from .rates import Rate, Rates, compare

#: Lines of a table; the rest is counted.
MOST_LINES = 20
#: Columns of a bar, and of a name.
BAR_WIDTH = 10
NAME_WIDTH = 32
#: Columns that a table takes beside its cells: at each edge, and for each column.
_EDGE, _BETWEEN = 1, 3


class _Column(NamedTuple):
    """``rank`` 0 is always shown; the others leave in order, the highest first."""

    title: str
    rank: int = 0
    is_text: bool = False


def render_top(
    description: Mapping[str, Any],
    width: int,
    previous: Mapping[str, Any] | None = None,
    most_lines: int = MOST_LINES,
) -> RenderableType:
    """What the server does now: rates since ``previous``, an earlier description of it, or in its last seconds.

    ``width`` is in columns of text; tables have at most ``most_lines`` lines.
    """
    rates = compare(description, previous)
    total, queue = rates.total, description["queue"]
    parts: list[RenderableType] = [
        _show_head(description),
        _show_items(
            width,
            ("requests/s", format_count(total.requests)),
            ("rows/s", format_count(total.rows)),
            *_show_quantiles(total),
            ("queue", format_count(queue["length"])),
            ("oldest", format_time(queue["oldest_seconds"])),
            ("backlog", format_time(queue["backlog_seconds"])),
            *_show_cache(description),
        ),
        *_show_troubles(description, width),
        _show_operations(description, width, rates, most_lines),
        _show_workers(description, width, rates.workers, most_lines),
        _show_users(description, width, rates, most_lines),
        Text(f"rates and percentiles of the last {format_time(rates.seconds)}", style="dim"),
    ]
    return Group(*parts)


def render_stats(description: Mapping[str, Any], width: int) -> RenderableType:
    """All that the server has counted since it began, in at most ``width`` columns of text."""
    queue, latency = description["queue"], description["latency"]
    parts: list[RenderableType] = [
        _show_head(description),
        _show_items(
            width,
            ("requests", format_count(description["requests"])),
            ("rows", format_count(description["rows"])),
            *((name, format_time(latency[name])) for name in ("p50", "p90", "p99")),
            ("queue", format_count(queue["length"])),
            ("oldest", format_time(queue["oldest_seconds"])),
            ("backlog", format_time(queue["backlog_seconds"])),
            *_show_cache(description),
        ),
        *_show_troubles(description, width),
        _show_operations(description, width, None, None),
        _show_workers(description, width, {w["name"]: w["busy_share"] for w in description["workers"]}, None),
        _show_users(description, width, None, None),
        _show_links(description, width),
    ]
    return Group(*parts)


# ---- lines ---------------------------------------------------------------------------------------------------------


def _show_head(description: Mapping[str, Any]) -> Text:
    workers, users = description["workers"], description["users"]
    alive = sum(worker["is_alive"] for worker in workers)
    clients = sum(user["clients"] for user in users)
    peers = f"{format_number_of(alive, 'worker')}, {format_number_of(clients, 'client')}"
    head = Text(_clean(description["server"]), style="bold")
    head.append(f"  up {format_time(description['uptime_seconds'])}, {peers}", style="not bold")
    return head


def _show_items(width: int, *items: tuple[str, str]) -> Text:
    """Names and values, as many on a line as there is room for."""
    text = Text()
    column = 0
    for name, value in items:
        size = cell_len(name) + 1 + cell_len(value)
        if column:
            fits = column + 3 + size <= width
            text.append("   " if fits else "\n")
            column = column + 3 if fits else 0
        text.append(f"{name} ", style="dim")
        text.append(value, style="bold")
        column += size
    return text


def _show_quantiles(rate: Rate) -> list[tuple[str, str]]:
    return [(name, format_time(rate.latency.quantile(q))) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))]


def _show_cache(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    cache = description["cache"]
    if cache is None:
        return []
    asked = cache["hits"] + cache["misses"]
    hits = f"{format_share(cache['hits'] / asked if asked else None)} of {format_count(asked)}"
    return [("cache hits", hits), ("cache", format_size(cache["bytes"]))]


def _show_troubles(description: Mapping[str, Any], width: int) -> list[Text]:
    """What went wrong, if anything has."""
    troubles = [(f"failed {_name(status)}", count) for status, count in description["failures"].items()]
    troubles += [(f"refused {_name(status)}", count) for status, count in description["refused"].items()]
    troubles += [(_name(name), count) for name, count in description["events"].items() if name != "upgrades"]
    items = [(name, format_count(count)) for name, count in troubles if count]
    if not items:
        return []
    text = _show_items(width, *items)
    text.stylize("yellow")
    return [text]


# ---- tables --------------------------------------------------------------------------------------------------------


def _show_operations(description: Mapping[str, Any], width: int, rates: Rates | None, most: int | None) -> Group:
    a = "/s" if rates else ""
    columns = [
        _Column("model", 3, is_text=True), _Column("operation", is_text=True), _Column(f"requests{a}"),
        _Column(f"rows{a}", 1), _Column("p50"), _Column("p90", 2), _Column("p99"), _Column("failed", 4),
    ]  # fmt: skip
    lines = []
    for one in description["operations"]:
        if rates:
            rate = rates.operations[one["model"], one["operation"]]
            counts = [format_count(rate.requests), format_count(rate.rows)]
            times = [value for _, value in _show_quantiles(rate)]
        else:
            counts = [format_count(one["requests"]), format_count(one["rows"])]
            times = [format_time(one["latency"][name]) for name in ("p50", "p90", "p99")]
        failed = format_count(sum(one["failures"].values()))
        lines.append([_clean(one["model"]), one["operation"], *counts, *times, failed])
    return _show_table("operations", columns, lines, width, most)


def _show_workers(description: Mapping[str, Any], width: int, shares: Mapping[str, float], most: int | None) -> Group:
    has_data = any(worker["budget_bytes"] for worker in description["workers"])
    columns = [
        _Column("worker", is_text=True), _Column("host", 5, is_text=True), _Column("pid", 7), _Column("by", 9, True),
        _Column("busy"), _Column("in chunk", 4), _Column("chunks", 3), _Column("computed", 8), _Column("memory", 1),
        *([_Column("data", 5)] if has_data else []), _Column("lost", 6), _Column("restarts", 2), _Column("up", 10),
    ]  # fmt: skip
    workers = sorted(description["workers"], key=lambda worker: (not worker["is_alive"], _order(worker["name"])))
    if most is not None and len(workers) > most:  # the busiest, and last those that are gone
        workers.sort(key=lambda worker: (worker["is_alive"], shares[worker["name"]]), reverse=True)
    bar = BAR_WIDTH if width >= 60 else 0
    lines = [
        [
            _clean(worker["name"]),
            _clean(worker["host"]),
            str(worker["pid"]),
            worker["transport"],
            format_share(shares[worker["name"]], bar) if worker["is_alive"] else "gone",
            format_time(worker["running_seconds"]),
            format_count(worker["chunks"]),
            format_time(worker["busy_seconds"]),
            format_size(worker["rss_bytes"] or None),
            *([format_size(worker["held_bytes"] if worker["budget_bytes"] else None)] if has_data else []),
            format_count(worker["chunks_lost"]),
            format_count(worker["restarts"]),
            format_time(worker["up_seconds"]) if worker["is_alive"] else "-",
        ]
        for worker in workers
    ]
    alive = [worker for worker in workers if worker["is_alive"]]
    mean = sum(shares[worker["name"]] for worker in alive) / len(alive) if alive else None
    memory = sum(worker["rss_bytes"] for worker in alive)
    title = f"workers: {len(alive)} alive, {format_share(mean)} busy, {format_size(memory)}"
    return _show_table(f"{title}{_say_held(alive)}", columns, lines, width, most)


def _say_held(workers: Sequence[Mapping[str, Any]]) -> str:
    """What all of them hold of data, and may hold: those of a host share it."""
    hosts: dict[str, tuple[int, int, int]] = {}
    for worker in workers:
        told = (worker["held_bytes"], worker["budget_bytes"], worker["datasets"])
        hosts[worker["host"]] = max(hosts.get(worker["host"], told), told)
    held, budget = (sum(told[nth] for told in hosts.values()) for nth in (0, 1))
    if not budget:
        return ""
    datasets = format_number_of(max(told[2] for told in hosts.values()), "dataset")
    return f"; {format_size(held)} of {datasets} held, of at most {format_size(budget)}"


def _show_users(description: Mapping[str, Any], width: int, rates: Rates | None, most: int | None) -> Group:
    a = "/s" if rates else ""
    columns = [
        _Column("user", is_text=True), _Column("clients", 4), _Column(f"requests{a}"), _Column(f"rows{a}", 1),
        _Column("workers" if rates else "computed", 2), _Column("failed", 5), _Column("refused", 3),
        _Column("in", 7), _Column("out", 6),
    ]  # fmt: skip
    lines = []
    recent = rates.users if rates else {}
    idle = Rate()

    def find_use(user: Mapping[str, Any]) -> tuple[float, float, float]:
        rate = recent.get(user["user"], idle)
        return rate.busy, rate.requests, user["busy_seconds"]

    for user in sorted(description["users"], key=find_use, reverse=True):
        if rates:
            rate = recent[user["user"]]
            done = [format_count(rate.requests), format_count(rate.rows), f"{rate.busy:.2f}"]
        else:
            done = [format_count(user["requests"]), format_count(user["rows"]), format_time(user["busy_seconds"])]
        rest = [format_count(user["failures"]), format_count(user["refused"])]
        sizes = [format_size(user["bytes_in"]), format_size(user["bytes_out"])]
        lines.append([_clean(user["user"]), format_count(user["clients"]), *done, *rest, *sizes])
    return _show_table("users", columns, lines, width, most)


def _show_links(description: Mapping[str, Any], width: int) -> Group:
    columns = [
        _Column("transport", is_text=True), _Column("clients"), _Column("workers"), _Column("in", 1), _Column("out", 2)
    ]  # fmt: skip
    lines = [
        [
            _clean(name),
            format_count(link["clients"]),
            format_count(link["workers"]),
            format_size(link["bytes_in"]),
            format_size(link["bytes_out"]),
        ]
        for name, link in description["links"].items()
    ]
    return _show_table("links", columns, lines, width, None)


def _show_table(
    title: str, columns: Sequence[_Column], lines: Sequence[Sequence[str]], width: int, most: int | None
) -> Group:
    """A table that fits, without the columns that it has no room for."""
    widths = [max(map(cell_len, [column.title, *cells])) for column, *cells in zip(columns, *lines, strict=True)]
    shown = list(range(len(columns)))
    while sum(widths[nth] + _BETWEEN for nth in shown) + _EDGE > width:
        least = max(shown, key=lambda nth: columns[nth].rank)
        if not columns[least].rank:
            break  # names are folded, then
        shown.remove(least)
    table = Table(header_style="bold")
    for nth in shown:
        is_text = columns[nth].is_text
        table.add_column(
            columns[nth].title, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
        )
    for line in lines[:most]:
        table.add_row(*(Text(line[nth]) for nth in shown))
    # Not as the table's own title and caption, which are as wide as the table.
    parts: list[RenderableType] = [Text(title, style="bold"), table]
    if most is not None and len(lines) > most:
        parts.append(Text(f"and {len(lines) - most} more", style="dim"))
    return Group(*parts)


def _clean(text: str) -> str:
    """A name that somebody else has chosen: it shall neither steer the terminal nor fill it."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable if len(printable) <= NAME_WIDTH else f"{printable[: NAME_WIDTH - 3]}..."


def _order(name: str) -> list[tuple[int, str]]:
    """Sorts "worker 9" before "worker 10"."""
    return [(int(word) if word.isdecimal() else 0, word) for word in re.split(r"(\d+)", name)]


def _name(key: str) -> str:
    return _clean(key).lower().replace("_", " ")
