"""What a dispatcher's log tells, and that it costs nothing where nobody listens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service import Service

from demos_hpc.chronicle import Chronicle, name_operation, name_status
from demos_hpc.errors import DemosError, Status
from demos_hpc.logs import MOST_ITEMS, configure, restore
from demos_hpc.messages import Operation
from demos_hpc.testing import Failing, Gaussian

POINT = np.array([0.5, 2.0])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log"
    configure("debug", path, json=True)
    yield path
    restore()


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_who_comes_and_goes(log: Path) -> None:
    service = Service(Gaussian(), workers=1)
    model = service.connect(user="ada")
    model.close()
    service.turn()
    (link,) = service.dispatcher.peers
    service.dispatcher.lose(link)
    events = [(e["event"], e["level"]) for e in read(log) if e["part"] == "service"]
    assert events == [
        ("worker came", "info"),
        ("client came", "info"),
        ("worker serves", "info"),
        ("client left", "info"),
        ("worker lost", "warning"),
    ]
    assert [e["user"] for e in read(log) if e["event"] == "client came"] == ["ada"]


def test_the_way_of_a_request(log: Path) -> None:
    service = Service(Gaussian(), workers=2)
    model = service.connect()
    model.log_density(np.zeros((3000, 1)), POINT)
    events = read(log)
    (request,) = {e["request"] for e in events if e["event"] == "request"}
    given = [e for e in events if e["event"] == "chunk given"]
    assert sum(e["rows"] for e in given) == 3000
    assert all(e["requests"] == [request] for e in given)
    done = [e for e in events if e["event"] == "chunk done"]
    assert {(e["chunk"], e["worker"]) for e in done} == {(e["chunk"], e["worker"]) for e in given}
    assert [e["event"] for e in events if e.get("request") == request] == ["request", "request done"]


def test_every_request_of_a_merged_chunk_is_named(log: Path) -> None:
    service = Service(Gaussian(), workers=1)
    model = service.connect()
    n = 3 * MOST_ITEMS
    futures = [model.submit.log_density([[0.0]], POINT) for _ in range(n)]
    for future in futures:
        future.result()
    events = read(log)
    asked = {e["request"] for e in events if e["event"] == "request"}
    assert len(asked) == n
    given = [e for e in events if e["event"] == "chunk given"]
    assert {request for e in given for request in e["requests"]} == asked
    assert len({e["chunk"] for e in given}) < n / 2
    assert {e["request"] for e in events if e["event"] == "request done"} == asked


def test_failures_are_told_at_any_level(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure("info", path, json=True)
    try:
        service = Service(Failing(), workers=1)
        with pytest.raises(DemosError):
            service.connect(user="ada").log_density([[1.0]])
        (event,) = (e for e in read(path) if e["event"] == "request failed")
    finally:
        restore()
    assert (event["level"], event["status"], event["user"], event["operation"]) == (
        "info", "model_failed", "ada", "log_density"
    )  # fmt: skip


def test_nothing_is_made_of_requests_unless_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    restore()
    for name in ("tell_request", "tell_begun", "tell_chunk", "tell_settled"):
        monkeypatch.setattr(Chronicle, name, None)  # whoever calls it fails
    service = Service(Gaussian(), workers=1)
    assert len(service.connect().log_density(np.zeros((3000, 1)), POINT)) == 3000


def test_numbers_that_nobody_knows_have_names_as_well() -> None:
    assert name_operation(int(Operation.SAMPLE)) == "sample"
    assert name_operation(999) == "operation 999"
    assert name_status(int(Status.BUSY)) == "busy"
    assert name_status(999) == "999"
