"""Who may do what: nobody anything, unless a rule says so."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest

from demos_hpc import access as access_module
from demos_hpc.access import CONTROLS, EVERYTHING, QUESTIONS, READ, Access, find_groups
from demos_hpc.budgets import Limits
from demos_hpc.errors import InvalidInput
from demos_hpc.messages import Operation

UUID = "0b8f6a1e-4f63-4a0e-9c39-0d6f5a3c2b10"
NOBODY: frozenset[str] = frozenset()
T2K = frozenset({"users", "t2k"})


def may(access: Access, user: str, operation: str, model: str = "neutrino", groups: frozenset[str] = NOBODY) -> bool:
    return access.may(user, groups, model, UUID if model else "", operation)


def parse(text: str) -> Access:
    return Access.parse(text, "owner", "access list rules.toml")


def test_every_operation_is_of_one_kind() -> None:
    assert {operation.title for operation in Operation} == QUESTIONS | CONTROLS
    assert not QUESTIONS & CONTROLS
    assert {"statistics", "drain", "stop"} == CONTROLS
    assert {"set_params", "upload"} == QUESTIONS - READ


def test_without_a_file_only_the_owner_may_do_anything() -> None:
    access = Access.load(None, "owner")
    for operation in EVERYTHING:
        assert may(access, "owner", operation)
        assert not may(access, "alice", operation)
        assert not may(access, "alice", operation, groups=T2K)
        assert not may(access, "*", operation)
        assert not may(access, "", operation)


@pytest.mark.parametrize("text", ["", "default = 'owner'", "rule = []", "[limits]"])
def test_a_file_that_allows_nothing_is_no_different(text: str) -> None:
    access = parse(text)
    assert access.rules == ()
    assert not any(may(access, "alice", operation) for operation in EVERYTHING)
    assert may(access, "owner", "stop")


def test_nobody_may_do_what_does_not_exist() -> None:
    access = parse("[[rule]]\nusers = ['*']\nallow = ['all']")
    assert not may(access, "alice", "read")
    assert not may(access, "owner", "read")
    assert not may(access, "owner", "operation 99")
    assert not may(access, "owner", "")


def test_users_and_groups() -> None:
    access = parse("[[rule]]\nusers = ['alice']\ngroups = ['t2k']\nallow = ['sample']")
    assert may(access, "alice", "sample")
    assert may(access, "bob", "sample", groups=T2K)
    assert not may(access, "bob", "sample", groups=frozenset({"t2", "alice"}))
    assert not may(access, "t2k", "sample")
    assert not may(access, "Alice", "sample")


@pytest.mark.parametrize("model", ["neutrino", UUID, UUID.upper(), "*"])
def test_a_model_by_name_or_uuid(model: str) -> None:
    access = parse(f"[[rule]]\nmodel = '{model}'\nusers = ['alice']\nallow = ['read']")
    assert may(access, "alice", "sample")
    assert access.may("alice", NOBODY, "earth", "other", "sample") is (model == "*")


def test_a_model_without_uuid_matches_by_name_only() -> None:
    access = parse("[[rule]]\nmodel = 'neutrino'\nusers = ['alice']\nallow = ['read']")
    assert access.may("alice", NOBODY, "neutrino", "", "sample")
    assert not access.may("alice", NOBODY, "", "", "sample")


@pytest.mark.parametrize(
    ("allow", "allowed"),
    [
        ("read", READ),
        ("write", {"set_params", "upload", "metadata"}),
        ("log_density", {"log_density", "metadata"}),
        ("metadata", {"metadata"}),
        ("operate", {"operate", "statistics", "drain", "stop"}),
        ("statistics", {"statistics"}),
        ("join", {"join"}),
        ("all", EVERYTHING),
    ],
)
def test_what_is_allowed(allow: str, allowed: set[str]) -> None:
    access = parse(f"[[rule]]\nusers = ['alice']\nallow = ['{allow}']")
    assert access.find_allowed("alice", NOBODY, "neutrino", UUID) == allowed
    assert {operation for operation in EVERYTHING if may(access, "alice", operation)} == allowed
    assert access.find_allowed("bob", NOBODY, "neutrino", UUID) == set()


def test_all_of_a_model_is_nothing_of_the_server() -> None:
    access = parse("[[rule]]\nmodel = 'neutrino'\nusers = ['alice']\nallow = ['all']")
    assert access.find_allowed("alice", NOBODY, "neutrino", UUID) == QUESTIONS
    assert access.find_allowed("alice", NOBODY, "", "") == set()


def test_the_server_is_asked_about_without_a_model() -> None:
    access = parse("[[rule]]\nusers = ['alice']\nallow = ['operate']")
    assert may(access, "alice", "operate", model="")
    assert may(access, "alice", "drain", model="")
    assert not may(access, "alice", "join", model="")


def test_rules_add_up() -> None:
    access = parse(
        """
        [[rule]]
        model = "neutrino"
        groups = ["t2k"]
        allow = ["sample"]
        [[rule]]
        users = ["alice"]
        allow = ["set_params", "join"]
        """
    )
    both = access.find_allowed("alice", T2K, "neutrino", UUID)
    assert both == {"sample", "set_params", "join", "metadata"}
    assert access.find_allowed("alice", T2K, "earth", "") == {"set_params", "join", "metadata"}


def test_by_default_everyone_may_read_what_no_rule_mentions() -> None:
    access = parse(
        """
        default = "everyone"
        [[rule]]
        model = "secret"
        users = ["alice"]
        allow = ["read"]
        [[rule]]
        model = "neutrino"
        users = ["alice"]
        allow = ["set_params", "sample"]
        [[rule]]
        users = ["carol"]
        allow = ["operate"]
        """
    )
    assert access.find_allowed("bob", NOBODY, "earth", "") == READ
    assert access.find_allowed("bob", NOBODY, "secret", "") == set()
    assert access.find_allowed("alice", NOBODY, "secret", "") == READ
    assert access.find_allowed("bob", NOBODY, "neutrino", "") == READ - {"sample"}
    assert access.find_allowed("alice", NOBODY, "neutrino", "") == QUESTIONS - {"upload"}
    assert access.find_allowed("carol", NOBODY, "earth", "") == READ | CONTROLS | {"operate"}


@pytest.mark.parametrize(
    ("text", "user", "roles"),
    [
        ("", "owner", {"client", "worker", "operator"}),
        ("", "alice", set()),
        ("default = 'everyone'", "alice", {"client"}),
        ("[[rule]]\nusers = ['alice']\nallow = ['join']", "alice", {"worker"}),
        ("[[rule]]\nusers = ['alice']\nallow = ['statistics']", "alice", {"operator"}),
        ("[[rule]]\nmodel = 'a'\nusers = ['alice']\nallow = ['set_params']", "alice", {"client"}),
        ("[[rule]]\nmodel = 'a'\nusers = ['alice']\nallow = ['set_params']", "bob", set()),
        ("[[rule]]\ngroups = ['t2k']\nallow = ['all']", "alice", {"client", "worker", "operator"}),
    ],
)
def test_who_may_come_in_as_what(text: str, user: str, roles: set[str]) -> None:
    access = parse(text)
    assert {role for role in ("client", "worker", "operator", "king") if access.may_enter(user, T2K, role)} == roles


def test_the_example_of_the_documentation_works() -> None:
    assert access_module.__doc__
    indented = access_module.__doc__.partition("::\n")[2].partition("\n``allow``")[0]
    access = parse(re.sub("^    ", "", indented, flags=re.MULTILINE))
    assert may(access, "carol", "log_likelihood", groups=T2K)
    assert not may(access, "carol", "set_params", groups=T2K)
    assert may(access, "bob", "statistics", model="")
    assert access.find_limits("bob") == Limits(1000, 1e7, 10**9)
    assert access.find_limits("alice") == Limits(1000, 1e8, 10**9)


def test_limits() -> None:
    access = parse("[limits.alice]\nrows_per_second = 5\n")
    assert access.find_limits("alice") == Limits(rows_per_second=5)
    assert access.find_limits("bob") == Limits()
    access = parse("[limits.alice]\nbytes_in_flight = 0\n[limits.'*']\nbytes_in_flight = 7\nrequests_per_second = 0.5")
    assert access.find_limits("alice") == Limits(requests_per_second=0.5)
    assert access.find_limits("owner") == Limits(requests_per_second=0.5, bytes_in_flight=7)


RULE = "[[rule]]\nusers = ['a']\nallow = ['read']\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule =", "rules.toml is not TOML"),
        ("[" * 5000, "rules.toml is not TOML"),
        ("rules = []", "unknown key 'rules'; there are default, rule, limits"),
        ("default = 'all'", "default is 'all'; it is 'owner' or 'everyone'"),
        ("default = ['owner']", r"default is \['owner'\]"),
        ("[rule]\nallow = ['read']", r"begins with \[\[rule\]\], in double brackets"),
        ("rule = [1]", r"rule 1 is 1; a rule is a table that begins with \[\[rule\]\]"),
        (RULE + "[[rule]]\nuser = ['a']", "rule 2: unknown key 'user'; there are model, users, groups, allow"),
        (RULE + "modell = 'a'", "rule 1: unknown key 'modell'; there are model"),
        (RULE + "model = ['a']", r"rule 1: model is \['a'\]; it is one model's name or UUID, or '\*'"),
        (RULE + "model = ''", "rule 1: model is ''"),
        (
            "[[rule]]\nusers = 'alice'",
            r"rule 1: users is 'alice'; it is a list of names, for instance users = \['name'\]",
        ),
        ("[[rule]]\ngroups = [1]", r"rule 1: groups is \[1\]; it is a list of names"),
        ("[[rule]]\nusers = ['']", r"rule 1: users is \[''\]"),
        ("[[rule]]\nallow = ['read']", "rule 1 is about nobody"),
        ("[[rule]]\ngroups = ['*']\nallow = ['read']", r"rule 1: groups has '\*'; everybody is users = \['\*'\]"),
        ("[[rule]]\nusers = ['a']", "rule 1 allows nothing"),
        (
            RULE + "[[rule]]\nusers = ['a']\nallow = ['log_densty']",
            "rule 2: allow has 'log_densty'; there are .*log_density, .*, read, write, operate, all",
        ),
        (
            "[[rule]]\nmodel = 'm'\nusers = ['a']\nallow = ['stop']",
            "rule 1 allows 'stop' for model 'm'; it is about the whole server: give it in a rule without a model",
        ),
        ("[[rule]]\nmodel = 'm'\nusers = ['a']\nallow = ['operate']", "rule 1 allows 'operate' for model 'm'"),
        ("limits = 3", r"limits is 3; limits begin with \[limits.USER\]"),
        ("[limits]\nrows_per_second = 3", "limits has rows_per_second = 3"),
        ("[limits.alice]\nrows = 3", "limits of 'alice': unknown key 'rows'; there are requests_per_second, rows_per"),
        ("[limits.alice]\nrows_per_second = -1", "limits of 'alice': limit rows_per_second is -1; it is a number >= 0"),
        ("[limits.alice]\nrows_per_second = nan", "limit rows_per_second is nan"),
        ("[limits.alice]\nrows_per_second = inf", "limit rows_per_second is inf"),
        ("[limits.alice]\nbytes_in_flight = true", "limit bytes_in_flight is True"),
        ("[limits.alice]\nrequests_per_second = '9'", "limit requests_per_second is '9'"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse(text)
    assert str(caught.value).startswith("access list rules.toml")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULE, encoding="utf-8")
    path.chmod(0o644)
    assert may(Access.load(path, "owner"), "a", "sample")
    path.chmod(0o646)
    with pytest.raises(InvalidInput, match=f"may be written by everybody: chmod o-w {path}"):
        Access.load(path, "owner")
    path.chmod(0o600)
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match=f"access list {path} is not text in UTF-8"):
        Access.load(path, "owner")
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidInput, match="larger than"):
        Access.load(path, "owner")
    with pytest.raises(InvalidInput, match=r"nowhere\.toml cannot be read"):
        Access.load(tmp_path / "nowhere.toml", "owner")
    with pytest.raises(InvalidInput, match="is not a file"):
        Access.load(tmp_path, "owner")


def test_a_server_has_an_owner() -> None:
    with pytest.raises(InvalidInput, match="the server's own user"):
        Access.load(None, "")


def test_groups_are_those_of_the_host() -> None:
    me = pwd.getpwuid(os.geteuid())
    groups = find_groups(me.pw_name)
    assert groups
    assert all(isinstance(group, str) for group in groups)


@pytest.mark.parametrize("user", ["", "no-such-user-here", "a\0b", "\ud800", "x" * 10_000])
def test_a_user_that_the_host_does_not_know_has_no_groups(user: str) -> None:
    assert find_groups(user) == frozenset()
