"""What operators see: all the numbers, in tables that fit the terminal, whatever its width and whoever chose names."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from demos_hpc.cli.dashboard import NAME_WIDTH, render_stats, render_top
from demos_hpc.cli.quantities import format_count, format_share, format_size, format_time
from demos_hpc.errors import Status
from demos_hpc.messages import Operation
from demos_hpc.metrics import Metrics, Queue

WIDTHS = (40, 60, 80, 100, 120, 200)
CACHE = {"hits": 30, "misses": 10, "entries": 4, "bytes": 5_120_000, "max_bytes": 9_000_000, "evicted": 6}
QUEUE = Queue(17, 0.31, 4.25)
DENSITY, GRADIENT = int(Operation.LOG_DENSITY), int(Operation.LOG_LIKELIHOOD_GRADIENT)


def make_metrics(n_workers: int = 3, odd: str = "") -> Metrics:
    metrics = Metrics(f"neutrino-3f2a{odd}", 0.0)
    metrics.client_joined(1, f"ada{odd}", "tcp")
    metrics.client_joined(2, f"bob{odd}", "mpi")
    for nth in range(n_workers):
        worker = 100 + nth
        name, host = f"worker {nth}{odd}", f"node{nth:03d}{odd}"
        metrics.worker_joined(worker, name, host, 4000 + nth, f"neutrino{odd}", "mpi", 0.0)
        metrics.worker_told(worker, 234_000_000)
        for _ in range(1 + nth):
            metrics.chunk_begun(worker, 0.0)
        for _ in range(1 + nth):
            metrics.chunk_done(worker, 1.5, 6.0)
    metrics.worker_lost(100)
    metrics.worker_joined(99, f"worker 0{odd}", f"node000{odd}", 5000, f"neutrino{odd}", "mpi", 5.0)
    metrics.chunk_begun(101, 7.0)
    for _ in range(7700):
        metrics.request_done(f"ada{odd}", f"neutrino{odd}", DENSITY, 1000, 0.0021, Status.OK)
    for _ in range(11):
        metrics.request_done(f"bob{odd}", f"neutrino{odd}", GRADIENT, 10, 3.3, Status.DEADLINE)
    metrics.charge(f"ada{odd}", "nu", 4.4)
    metrics.request_refused(f"bob{odd}", Status.BUSY)
    metrics.add_bytes(1, 1_230_000_000, 4_560_000)
    metrics.connection_refused()
    return metrics


def show(what: RenderableType, width: int) -> str:
    """As it stands on a terminal of this width; nothing may be cut off or go beyond."""
    console = Console(width=width, record=True, file=io.StringIO(), legacy_windows=False)
    console.print(what)
    text = console.export_text()
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "…" not in text
    return text


def read(text: str) -> str:
    """Without what holds tables together: words and one space between them."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "│┃┏┓┗┛━┳┡╇┩─┼├┤└┘┴┬┌┐"), " ")).split())


# ---- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0, "0 s"), (1e-7, "0.10 us"), (1.234e-6, "1.23 us"), (999.4e-6, "999 us"),
        (999.6e-6, "1.00 ms"), (0.0123, "12.3 ms"), (1.0, "1 s"),
        (59.99, "1.00 min"), (60.0, "1.00 min"), (5400.0, "1.50 h"), (1e6, "11.6 d"),
    ],
)  # fmt: skip
def test_times(seconds: float | None, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (999_999, "1.00 MB"), (2.5e9, "2.50 GB"), (1e19, "10000 PB")],
)
def test_sizes(n_bytes: float | None, text: str) -> None:
    assert format_size(n_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (0.25, "0.25"), (12.34, "12.3"), (9999, "9999"), (10_000, "10.0 k"), (999_999, "1.00 M"),
        (1234.5, "1.23 k"), (1.5e10, "15.0 G"),
    ],
)  # fmt: skip
def test_counts(value: float | None, text: str) -> None:
    assert format_count(value) == text


@pytest.mark.parametrize(
    ("share", "width", "text"),
    [(None, 10, "-"), (0.0, 0, "0 %"), (0.734, 0, "73 %"), (0.0, 4, "       0 %"), (1.0, 4, "|||| 100 %")],
)
def test_shares(share: float | None, width: int, text: str) -> None:
    assert format_share(share, width) == text


# ---- top ---------------------------------------------------------------------------------------------------------


def top(width: int, metrics: Metrics | None = None, **more: Any) -> str:
    description = (metrics or make_metrics()).describe(10.0, QUEUE, CACHE)
    return read(show(render_top(description, width, **more), width))


@pytest.mark.parametrize("width", WIDTHS)
def test_top_shows_what_matters_most_on_any_terminal(width: int) -> None:
    text = top(width)
    for expected in (
        "neutrino-3f2a", "3 workers", "2 clients", "requests/s 771", "rows/s 770 k", "p50 2.11 ms", "p99 2.24 ms",
        "queue 17", "oldest 310 ms", "backlog 4.25 s", "cache hits 75 % of 40", "cache 5.12 MB",
        "failed deadline 11", "refused busy 1", "crashes 1", "refused connections 1",
        "workers: 3 alive", "468 MB", "worker 1", "rates and percentiles of the last 10 s",
    ):  # fmt: skip
        assert expected.replace(" ", "") in text.replace(" ", ""), expected


def test_top_fits_eighty_columns() -> None:
    text = top(80)
    assert "operation requests/s rows/s p50 p90 p99 log_density 770 770 k 2.11 ms 2.21 ms 2.24 ms" in text
    assert "log_likelihood_gradient 1.10 0 3.35 s 3.51 s 3.54 s" in text
    assert "worker busy in chunk chunks memory restarts" in text
    assert "worker 0 ||| 30 % - 1 - 1" in text
    assert "worker 2 |||| 45 % - 3 234 MB 0" in text
    assert "worker 1 |||||| 60 % 3 s 2 234 MB 0" in text
    assert "ada 1 770 770 k 0.44 0 0 4.56 MB" in text
    assert "bob 1 1.10 0 0.00 11 1" in text


def test_top_shows_everything_where_there_is_room() -> None:
    text = top(200)
    assert "model operation requests/s rows/s p50 p90 p99 failed" in text
    assert "neutrino log_likelihood_gradient 1.10 0 3.35 s 3.51 s 3.54 s 11" in text
    assert "worker host pid by busy in chunk chunks computed memory lost restarts up" in text
    assert "worker 1 node001 4001 mpi |||||| 60 % 3 s 2 3 s 234 MB 0 0 10 s" in text
    assert "worker 0 node000 5000 mpi ||| 30 % - 1 1.50 s - 0 1 5 s" in text
    assert "user clients requests/s rows/s workers failed refused in out" in text
    assert "ada 1 770 770 k 0.44 0 0 1.23 GB 4.56 MB" in text


def test_top_compares_with_what_was_before() -> None:
    metrics = make_metrics()
    before = metrics.describe(10.0)
    for _ in range(90):
        metrics.request_done("ada", "neutrino", DENSITY, 10, 0.5, Status.OK)
    text = read(show(render_top(metrics.describe(12.0), 80, before), 80))
    assert "requests/s 45 rows/s 450" in text
    assert "log_density 45 450 473 ms 495 ms 501 ms" in text
    assert "rates and percentiles of the last 2 s" in text


def test_of_many_workers_the_busiest_are_shown_and_the_others_counted() -> None:
    text = top(120, make_metrics(200), most_lines=5)
    assert "workers: 200 alive" in text
    assert "and 195 more" in text
    assert text.count(" mpi ") == 5
    assert text.count("|||||| 60 %") == 5
    assert "worker 0" not in text


def test_workers_that_are_gone_are_shown_last_and_as_gone() -> None:
    metrics = make_metrics()
    metrics.worker_lost(102)
    text = top(120, metrics)
    assert "worker 2 node002 4002 mpi gone - 3" in text
    assert "workers: 2 alive" in text
    assert "gone" not in top(120, metrics, most_lines=2)


def test_data_that_workers_hold_is_counted_once_for_each_host() -> None:
    metrics = make_metrics()
    assert "data" not in top(200, metrics)
    for worker, host in ((201, "a"), (202, "a"), (203, "b"), (204, "c")):
        metrics.worker_joined(worker, f"w{worker}", host, 1, "neutrino", "mpi", 0.0)
    metrics.worker_told(201, 10_000_000, 1, 300_000_000, 4_000_000_000)
    metrics.worker_told(202, 10_000_000, 2, 640_000_000, 4_000_000_000)
    metrics.worker_told(203, 10_000_000, 1, 100_000_000, 2_000_000_000)
    metrics.worker_told(204, 10_000_000)
    for text in (top(200, metrics), read(show(render_stats(metrics.describe(10.0), 200), 200))):
        assert "; 740 MB of 2 datasets held, of at most 6.00 GB" in text
        assert "computed memory data lost" in text
        assert "0 s 10.0 MB 300 MB 0" in text
        assert "0 s 10.0 MB - 0" in text
    metrics.worker_left(202)
    assert "; 400 MB of 1 dataset held, of at most 6.00 GB" in top(200, metrics)
    for width in WIDTHS:
        assert "held" in top(width, metrics)


def test_a_server_with_nothing_to_tell_is_shown_all_the_same() -> None:
    description = Metrics("nu-1", 0.0).describe(0.0)
    for width in WIDTHS:
        text = read(show(render_top(description, width), width))
        assert "requests/s 0 rows/s 0 p50 - p90 -" in text
        assert "crashes" not in text
        assert "cache" not in text
        assert "requests 0" in read(show(render_stats(description, width), width))


# ---- stats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_stats_tell_what_was_done_since_the_beginning(width: int) -> None:
    text = read(show(render_stats(make_metrics().describe(10.0, QUEUE, CACHE), width), width))
    for expected in (
        "neutrino-3f2a up 10 s, 3 workers, 2 clients", "requests 7711", "rows 7.70 M", "p99 2.24 ms", "queue 17",
        "log_density 7700 7.70 M 2.11 ms", "log_likelihood_gradient 11 0 3.35 s", "failed deadline 11",
        "ada 1 7700 7.70 M 4.40 s 0 0", "bob 1 11 0 0 s 11 1", "tcp 1 0 1.23 GB 4.56 MB", "mpi 1 3 0 B 0 B",
        "|||| 45 % - 3",
    ):  # fmt: skip
        assert expected in text, expected


def test_stats_leave_nobody_out() -> None:
    description = make_metrics(60).describe(10.0)
    text = read(show(render_stats(description, 120), 120))
    assert all(f"worker {nth} " in text for nth in range(60))
    assert "more" not in text


# ---- names that others have chosen -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", ["[bold red]", "[/]", "\x1b[2J", "\n\n\n", "\u202e", "漢字" * 20, "x" * 500, "a b " * 50]
)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_name_steers_the_terminal_or_breaks_the_tables(odd: str, width: int) -> None:
    description = make_metrics(odd=odd).describe(10.0)
    for text in (
        show(render_top(description, width), width),
        show(render_stats(description, width), width),
    ):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert max(len(line) for line in text.split("\n")) <= width
        if odd.isprintable() and len(f"ada{odd}") <= NAME_WIDTH and width > 80:
            assert f"ada{odd}" in text
        assert "468 MB" in text
        assert "1.10" in text or "7711" in text
