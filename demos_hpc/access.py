"""Who may do what: rules from a TOML file. Nobody may do anything that no rule allows, but the server's own user.

An example, with everything that there is::

    default = "owner"               # or "everyone", see below

    [[rule]]
    model = "neutrino"              # a model's name or UUID; left out, or "*": every model
    groups = ["t2k"]                # whoever is in one of these groups
    allow = ["read"]

    [[rule]]
    users = ["alice", "bob"]        # or one of these; "*" is everybody who is authenticated
    allow = ["log_density", "join", "statistics"]

    [limits."*"]                    # for every user; 0, or left out: no limit
    requests_per_second = 1000
    rows_per_second = 1e7
    bytes_in_flight = 1_000_000_000

    [limits.alice]                  # what differs for alice
    rows_per_second = 1e8

``allow`` has what a model can be asked for (``log_density``, ``sample``, ``set_params``, …; ``read`` is all of it but
``set_params`` and ``upload``, which are ``write``), and what a server can be: ``statistics`` (of everybody), ``drain``,
``stop``, together ``operate``; ``join`` (be a worker: see the requests and make the answers). The latter are about the
server, so not for a rule with a model. ``all`` is all that a rule can allow. Rules add up. Whoever may do anything with
a model may see its ``metadata``, without which no client can call it.

With ``default = "everyone"``, what no rule of a model mentions may be read by everybody who is authenticated; all else
still takes a rule.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .budgets import Limits
from .errors import InvalidInput
from .identity import read_file
from .messages import CONTROLS as _CONTROLS
from .messages import Operation

ANYTHING = "*"
#: What a model can be asked for.
QUESTIONS = frozenset(operation.title for operation in Operation if operation not in _CONTROLS)
WRITE = frozenset({Operation.SET_PARAMS.title, Operation.UPLOAD.title})
READ = QUESTIONS - WRITE
#: What a server can be asked for.
CONTROLS = frozenset(operation.title for operation in Operation) - QUESTIONS
#: Has its own name in it, for whoever asks about all of it.
OPERATE = CONTROLS | {"operate"}
JOIN = frozenset({"join"})
EVERYTHING = QUESTIONS | OPERATE | JOIN
SETS = {"read": READ, "write": WRITE, "operate": OPERATE, "all": EVERYTHING}
#: What a peer of each role comes for.
PURPOSES = {"client": QUESTIONS, "worker": JOIN, "operator": CONTROLS}
DEFAULTS = ("owner", "everyone")


@dataclass(frozen=True)
class Rule:
    """These users and groups may do this with this model."""

    model: str
    users: frozenset[str]
    groups: frozenset[str]
    allow: frozenset[str]

    def covers(self, model_name: str, model_uuid: str) -> bool:
        """Whether it is about this model."""
        return self.model in (ANYTHING, model_name) or (bool(model_uuid) and self.model.lower() == model_uuid.lower())

    def includes(self, user: str, groups: frozenset[str]) -> bool:
        """Whether it is about this user."""
        return ANYTHING in self.users or user in self.users or not self.groups.isdisjoint(groups)


@dataclass(frozen=True)
class Access:
    """What everybody may do at a server, and how much of it."""

    owner: str
    default: str = "owner"
    rules: tuple[Rule, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not self.owner:
            raise InvalidInput("an access list takes the name of the server's own user; it is empty")

    @classmethod
    def load(cls, path: str | Path | None, owner: str) -> Access:
        """The rules of a file; without a file, the server's own user may do everything and nobody else anything.

        Raises
        ------
        InvalidInput
            Where the file cannot be read, may be written by everybody, or says something that has no meaning.
        """
        return cls(owner) if path is None else cls.parse(_read(path), owner, f"access list {path}")

    @classmethod
    def parse(cls, text: str, owner: str, where: str = "access list") -> Access:
        """The rules of TOML text; ``where`` it is from, for errors."""
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{where} is not TOML: {error}") from None
        _check_keys(values, ("default", "rule", "limits"), where)
        default = values.get("default", DEFAULTS[0])
        if default not in DEFAULTS:
            raise InvalidInput(f"{where}: default is {default!r}; it is {' or '.join(map(repr, DEFAULTS))}")
        rules, limits = values.get("rule", []), values.get("limits", {})
        if not isinstance(rules, list):
            raise InvalidInput(f"{where}: a rule begins with [[rule]], in double brackets")
        if not isinstance(limits, dict):
            raise InvalidInput(f"{where}: limits is {limits!r}; limits begin with [limits.USER]")
        parsed = tuple(_parse_rule(rule, f"{where}, rule {n}") for n, rule in enumerate(rules, 1))
        return cls(owner, default, parsed, MappingProxyType(_parse_limits(limits, where)))

    def find_allowed(
        self, user: str, groups: frozenset[str] | set[str], model_name: str, model_uuid: str
    ) -> frozenset[str]:
        """The names of all that a user may do with a model, and at the server; worth keeping for a connection.

        Without a model, both names empty, it is about the server alone.
        """
        if user == self.owner:
            return EVERYTHING
        covering = [rule for rule in self.rules if rule.covers(model_name, model_uuid)]
        groups = frozenset(groups)
        allowed = frozenset[str]().union(*(rule.allow for rule in covering if rule.includes(user, groups)))
        if self.default == "everyone":
            allowed |= READ.difference(*(rule.allow for rule in covering))
        return allowed | {Operation.METADATA.title} if allowed & QUESTIONS else allowed

    def may(
        self,
        user: str,
        groups: frozenset[str] | set[str],
        model_name: str,
        model_uuid: str,
        operation_name: str,
    ) -> bool:
        """Whether a user may do one thing: ``log_density`` and so on, ``join``, ``drain``, or all of ``operate``."""
        return operation_name in self.find_allowed(user, groups, model_name, model_uuid)

    def may_enter(self, user: str, groups: frozenset[str] | set[str], role: str) -> bool:
        """Whether there is anything that a user could do as a client, worker or operator, with whatever model."""
        purpose, groups = PURPOSES.get(role, frozenset[str]()), frozenset(groups)
        return (
            (bool(purpose) and user == self.owner)
            or any(rule.includes(user, groups) and not rule.allow.isdisjoint(purpose) for rule in self.rules)
            or (self.default == "everyone" and not purpose.isdisjoint(READ))
        )

    def find_limits(self, user: str) -> Limits:
        """The limits of a user, the server's own among them."""
        return self.limits.get(user) or self.limits.get(ANYTHING, _NO_LIMITS)


_NO_LIMITS = Limits()


def find_groups(user: str) -> frozenset[str]:
    """The names of a user's groups on this host, the first one among them; none of a user that it does not know.

    It may ask a name service over the network: once a connection, not once a request.
    """
    try:
        gids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except (KeyError, ValueError, OSError):  # unknown; a name that no system could have; a name service that is gone
        return frozenset()
    names = set()
    for gid in gids:
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:  # a number without a name, as in a container; no rule can mean it
            continue
    return frozenset(names)


def _read(path: str | Path) -> str:
    content, status = read_file(path, "access list")
    if status.st_mode & stat.S_IWOTH:
        raise InvalidInput(f"access list {path} may be written by everybody: chmod o-w {shlex.quote(str(path))}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"access list {path} is not text in UTF-8") from None


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(table.keys() - set(known)):
        raise InvalidInput(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(known)}")


def _parse_rule(table: Any, where: str) -> Rule:
    if not isinstance(table, dict):
        raise InvalidInput(f"{where} is {table!r}; a rule is a table that begins with [[rule]]")
    _check_keys(table, tuple(f.name for f in fields(Rule)), where)
    model = table.get("model", ANYTHING)
    if not isinstance(model, str) or not model:
        raise InvalidInput(f"{where}: model is {model!r}; it is one model's name or UUID, or '*'")
    users, groups, allow = (_parse_names(table, key, where) for key in ("users", "groups", "allow"))
    if not users and not groups:
        raise InvalidInput(f"{where} is about nobody: give users or groups; users = ['*'] is everybody")
    if ANYTHING in groups:
        raise InvalidInput(f"{where}: groups has '*'; everybody is users = ['*']")
    if not allow:
        raise InvalidInput(f"{where} allows nothing: give allow, for instance allow = ['read']")
    if unknown := sorted(allow - EVERYTHING - SETS.keys()):
        there_are = ", ".join([*sorted(EVERYTHING), *SETS])
        raise InvalidInput(f"{where}: allow has {unknown[0]!r}; there are {there_are}")
    allowed = frozenset[str]().union(*(SETS.get(name, {name}) for name in allow))
    if model != ANYTHING:
        if about_server := sorted(allow & (OPERATE | JOIN)):
            raise InvalidInput(
                f"{where} allows {about_server[0]!r} for model {model!r}; it is about the whole server: give it in a"
                " rule without a model"
            )
        allowed &= QUESTIONS
    return Rule(model, users, groups, allowed)


def _parse_names(table: Mapping[str, Any], key: str, where: str) -> frozenset[str]:
    names = table.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"{where}: {key} is {names!r}; it is a list of names, for instance {key} = ['name']")
    return frozenset(names)


def _parse_limits(tables: Mapping[str, Any], where: str) -> dict[str, Limits]:
    limits: dict[str, Limits] = {}
    known = tuple(f.name for f in fields(Limits))
    for user in sorted(tables, key=lambda user: user != ANYTHING):  # everybody's first: others' begin with them
        table, here = tables[user], f"{where}, limits of {user!r}"
        if not isinstance(table, dict):
            raise InvalidInput(f"{where}: limits has {user} = {table!r}; limits begin with [limits.USER]")
        _check_keys(table, known, here)
        try:
            limits[user] = replace(limits.get(ANYTHING, _NO_LIMITS), **table)
        except InvalidInput as error:
            raise InvalidInput(f"{here}: {error}") from None
    return limits
