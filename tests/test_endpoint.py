"""What a server says of itself, and which one a client tries first."""

from __future__ import annotations

import json
import math
import os
import random
from collections import Counter
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.endpoint import Endpoint, describe_choice, find_boot, find_end, is_stale, rank_endpoints
from demos_hpc.errors import BadFrame, InvalidInput

CHECK = settings(derandomize=True, deadline=None)
NOW = 1.7e9
MODEL = {"name": "neutrino", "uuid": "1ecf2c40-0000-5000-8000-000000000001", "version": "1.2.3"}
ENDPOINT = Endpoint(
    id="0123456789abcdef" * 2,
    name="neutrino-2",
    models=[MODEL],
    state="ready",
    host="node17.cluster",
    port=4711,
    unix="/run/user/1000/demos.sock",
    boot="4fa1 net:[1]",
    tls="ab" * 32,
    wire=1,
    user="ada",
    pid=99,
    hostname="node17",
    job="123456_7",
    started=NOW - 1000,
    heartbeat=NOW - 1,
    interval=5.0,
    workers=4,
    clients=2,
    load=0.125,
    model_path="models/neutrino.py:Neutrino",
    family="",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def name_servers(endpoints: list[Endpoint]) -> list[str]:
    return [endpoint.name for endpoint in endpoints]


# ---- birth --------------------------------------------------------------------------------------------------


def test_an_endpoint_comes_back() -> None:
    assert Endpoint.from_dict(json.loads(json.dumps(ENDPOINT.to_dict()))) == ENDPOINT


def test_an_endpoint_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ENDPOINT.port = 1  # type: ignore[misc]


def test_members_of_newer_versions_are_left_out() -> None:
    model = MODEL | {"operations": ["sample"]}
    assert Endpoint.from_dict(ENDPOINT.to_dict() | {"models": [model], "color": {"a": [1]}}) == ENDPOINT


def test_whole_numbers_are_numbers() -> None:
    endpoint = replace(ENDPOINT, load=2, heartbeat=1_700_000_000)
    assert (endpoint.load, type(endpoint.load), type(endpoint.heartbeat)) == (2.0, float, float)


@CHECK
@given(st.sampled_from([f.name for f in fields(Endpoint)]), JSON)
def test_whatever_a_member_is_the_endpoint_is_sound_or_refused(name: str, value: Any) -> None:
    values = ENDPOINT.to_dict() | {name: value}
    try:
        endpoint = Endpoint.from_dict(values)
    except (BadFrame, InvalidInput) as error:
        assert name in str(error)  # noqa: PT017  (either way is right)
        assert len(str(error)) < 300  # noqa: PT017
        return
    again = json.loads(json.dumps(endpoint.to_dict(), allow_nan=False))
    assert Endpoint.from_dict(again) == endpoint
    assert "\n" not in describe_choice(endpoint, [endpoint], NOW)
    assert rank_endpoints([endpoint], NOW, random.Random(1)) == [endpoint]


# The plain name "mpi" would be taken for pytest-mpi's mark.
@pytest.mark.parametrize(
    "name", [f.name for f in fields(Endpoint) if f.default is MISSING], ids=lambda name: f"without {name}"
)
def test_a_missing_member_is_named(name: str) -> None:
    values = ENDPOINT.to_dict()
    del values[name]
    with pytest.raises(BadFrame, match=f"incomplete.*'{name}'"):
        Endpoint.from_dict(values)


@pytest.mark.parametrize("values", [None, [], "neutrino", 3])
def test_what_is_no_object_is_no_endpoint(values: Any) -> None:
    with pytest.raises(BadFrame, match="Endpoint is a JSON object"):
        Endpoint.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("id", "", "has 32 hexadecimal digits"),
        ("id", "../../" + "a" * 26, "has 32 hexadecimal digits"),
        ("id", "A" * 32, "has 32 hexadecimal digits"),
        ("id", "a" * 32 + "\n", "printable"),
        ("name", "", "has 1 to 64"),
        ("name", "a" * 65, "has 1 to 64"),
        ("name", "..", "neither '.' nor '-' first"),
        ("name", "../neutrino", "has 1 to 64"),
        ("name", "a/b", "has 1 to 64"),
        ("name", "a b", "has 1 to 64"),
        ("name", "-f", "neither '.' nor '-' first"),
        ("name", "ν", "has 1 to 64"),
        ("name", "neutrino\n", "printable"),
        ("name", "a\0b", "printable"),
        ("state", "Ready", "is one of ready, starting, draining"),
        ("port", -1, "whole number >= 0"),
        ("port", 65536, "at most 65535"),
        ("port", True, "whole number >= 0"),
        ("port", 1.0, "whole number >= 0"),
        ("port", "80", "whole number >= 0"),
        ("pid", -1, "whole number >= 0"),
        ("workers", 1 << 60, "whole number >= 0"),
        ("load", math.nan, "finite number"),
        ("load", math.inf, "finite number"),
        ("load", -0.1, "finite number"),
        ("load", 10**400, "finite number"),
        ("load", "0", "finite number"),
        ("heartbeat", 1e300, "finite number"),
        ("interval", 0.0, "is more than 0"),
        ("tls", "ab", "64 hexadecimal digits"),
        ("user", None, "printable text"),
        ("hostname", "\x1b[2J", "printable text"),
        ("model_path", "\ud800", "printable text"),
        ("models", {}, "list of objects"),
        ("models", ["neutrino"], "list of objects"),
        ("models", [{"name": "neutrino"}], r"models\.uuid is printable text"),
        ("models", [MODEL | {"version": 1}], r"models\.version is printable text"),
        ("models", [MODEL | {"name": "a\nb"}], r"models\.name is printable text"),
    ],
)
def test_wrong_values_are_named_with_the_rule(name: str, value: Any, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rf"endpoint with {name}.*{rule}"):
        replace(ENDPOINT, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "a"),
        ("name", "A1_b.c-d" * 8),
        ("port", 0),
        ("port", 65535),
        ("state", "starting"),
        ("state", "draining"),
        ("models", []),
        ("tls", ""),
        ("hostname", "Zürich"),
        ("load", 0.0),
    ],
)
def test_right_values_are_taken(name: str, value: Any) -> None:
    assert getattr(replace(ENDPOINT, **{name: value}), name) == value


# ---- choice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("neutrino-2", True),
        ("neutrino", True),
        (MODEL["uuid"], True),
        ("gallium", True),
        ("1.2.3", False),
        ("neutrin", False),
        ("", False),
    ],
)
def test_a_server_answers_to_its_name_and_its_models(name: str, answers: bool) -> None:
    second = {"name": "gallium", "uuid": "1ecf2c40-0000-5000-8000-000000000002", "version": "0.1.0"}
    assert replace(ENDPOINT, models=[MODEL, second]).answers_to(name) is answers


def test_silence_of_three_intervals_is_too_much() -> None:
    endpoint = replace(ENDPOINT, heartbeat=NOW, interval=5.0)
    assert not is_stale(endpoint, NOW + 15)
    assert is_stale(endpoint, NOW + 15.001)


@pytest.mark.parametrize("skew", [0.0, 1.0, 3600.0, 1e8])
def test_a_heartbeat_from_the_future_is_alive(skew: float) -> None:
    assert not is_stale(replace(ENDPOINT, heartbeat=NOW + skew), NOW)


def test_the_best_comes_first_however_they_are_shuffled() -> None:
    best_first = [
        replace(ENDPOINT, name="idle", load=0.0),
        replace(ENDPOINT, name="busy", load=1.0),
        replace(ENDPOINT, name="busier", load=10.0),
        replace(ENDPOINT, name="starting", state="starting", load=0.0),
        replace(ENDPOINT, name="draining", state="draining", load=0.0),
        replace(ENDPOINT, name="silent", load=0.0, heartbeat=NOW - 100),
        replace(ENDPOINT, name="silent-starting", state="starting", load=0.0, heartbeat=NOW - 100),
    ]
    rng = random.Random(1)
    for _ in range(50):
        shuffled = rng.sample(best_first, len(best_first))
        assert name_servers(rank_endpoints(shuffled, NOW, rng)) == name_servers(best_first)
    assert rank_endpoints([], NOW, rng) == []


@pytest.mark.parametrize("loads", [(0.0, 0.0, 0.0), (0.0, 0.02, 0.04), (1.0, 1.1, 1.2)])
def test_clients_spread_over_servers_of_equal_load(loads: tuple[float, ...]) -> None:
    """Loads are as old as a heartbeat: if small differences counted, all would go to one server until the next."""
    servers = [replace(ENDPOINT, name=f"server-{i}", load=load) for i, load in enumerate(loads)]
    rng = random.Random(7)
    n_clients = 3000
    chosen = Counter(rank_endpoints(servers, NOW, rng)[0].name for _ in range(n_clients))
    expected = n_clients / len(servers)
    assert len(chosen) == len(servers)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in chosen.values())


def test_the_choice_is_random_only_by_the_generator_given() -> None:
    servers = [replace(ENDPOINT, name=f"server-{i}") for i in range(10)]
    orders = [name_servers(rank_endpoints(servers, NOW, random.Random(seed))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("changes", "n_servers", "words"),
    [
        ({}, 3, "neutrino-2 (ready, 4 workers, load 0.1 s) of 3 servers"),
        ({"workers": 1, "state": "starting"}, 1, "neutrino-2 (starting, 1 worker, load 0.1 s) of 1 server"),
        ({"heartbeat": NOW - 42}, 2, "neutrino-2 (ready, 4 workers, load 0.1 s, silent for 42 s) of 2 servers"),
    ],
)
def test_the_choice_is_told_in_words(changes: dict[str, Any], n_servers: int, words: str) -> None:
    chosen = replace(ENDPOINT, **changes)
    assert describe_choice(chosen, [chosen] * n_servers, NOW) == words


# ---- one host -----------------------------------------------------------------------------------------------


def test_a_host_knows_itself() -> None:
    assert find_boot() == find_boot() != ""
    endpoint = replace(ENDPOINT, boot=find_boot())
    assert endpoint.shares_host(find_boot())
    assert not replace(endpoint, unix="").shares_host(find_boot())
    assert not replace(endpoint, boot=find_boot() + "1").shares_host(find_boot())


def test_hosts_that_do_not_know_themselves_are_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    assert find_boot() == ""
    assert not replace(ENDPOINT, boot=find_boot()).shares_host(find_boot())


def test_the_end_of_a_job_is_known_by_its_environment() -> None:
    assert find_end({"SLURM_JOB_END_TIME": "1795197641"}) == 1795197641.0
    assert find_end({"SLURM_JOB_END_TIME": "Unknown"}) == find_end({}) == 0.0
    assert not ENDPOINT.is_ending(NOW)
    assert replace(ENDPOINT, ends=NOW + 59).is_ending(NOW)
    assert not replace(ENDPOINT, ends=NOW + 61).is_ending(NOW)
