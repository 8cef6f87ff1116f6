"""A server of its own: a dispatcher behind a door, to which workers and clients come as they like."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from . import munge
from .access import Access, find_groups
from .accounts import Accounts
from .audit import Audit
from .budgets import Budgets
from .certificates import make_certificate
from .config import Config
from .dispatcher import Dispatcher
from .door import Door, House
from .endpoint import HIGHEST_LOAD, Endpoint, find_binding, find_boot, find_end, is_loopback
from .errors import InvalidInput, LaunchError
from .exposition import SUFFIX, write_exposition
from .identity import Key, find_user, make_key_file, read_keys
from .logs import warn
from .model_paths import find_absolute
from .presence import Presence
from .reception import Reception
from .registry import Registry
from .revisions import Revisions
from .scribe import Scribe
from .transport.compression import is_available
from .transport.joined import join_memory
from .transport.tcp import StreamPort
from .usage import Book, Description
from .wire import WIRE_MAJOR

#: Seconds between two records of what was used.
RECORD_SECONDS = 300.0
#: Seconds for what is still to be sent, and for the registry, at the end.
LAST_WORDS = 5.0


class UserRights:
    """Who may do what, their groups being those of this host."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def may(self, user: str, model: str, uuid: str, operation: str) -> bool:
        return self._access.may(user, find_groups(user), model, uuid, operation)

    def may_enter(self, user: str, role: str) -> bool:
        """Whether there is anything that the user could do here in this role."""
        return self._access.may_enter(user, find_groups(user), role)


class Server:
    """One server, from the opening of its door to its end."""

    def __init__(self, name: str, model_path: str, config: Config, id_: str = "", family: str = "") -> None:
        self._config = config
        model_path = find_absolute(model_path)
        self._registry = Registry(config.registry_directory)
        self.id = id_ or uuid.uuid4().hex
        user = find_user()
        access = Access.load(config.access_file or None, user)
        rights = UserRights(access)
        audit = Audit(config.audit_file, warn, image=config.image_digest) if config.audit_file else None
        keys, by_munge = self._find_ways_in(user)
        self._certificate = self._find_certificate()
        stream = StreamPort(config.yield_seconds)
        self._port, shared = join_memory(stream, config)
        budgets = Budgets(access.find_limits)
        accounts = Accounts(name=name, rights=rights, budgets=budgets if access.limits else None, audit=audit)
        self._dispatcher = Dispatcher(self._port, config, 1, accounts=accounts)
        self._dispatcher.catalog.store = lambda model: Revisions(config.registry_directory, model)
        self._audit = audit
        self._exposition = self._find_exposition(name)
        self._scribe: Scribe[dict[str, Any]] | None = None
        self._book: Scribe[tuple[float, Description]] | None = None
        self._next_record = time.monotonic() + RECORD_SECONDS
        self._reception = Reception(
            self._dispatcher,
            stream,
            config,
            shared=shared,
            owner=user,
            certificate=self._certificate[0],
            audit=audit,
            publish=self._publish,
            expose=self._expose if self._exposition or config.usage_directory else None,
        )
        house = House(
            self.id,
            name,
            config.heartbeat,
            model_path,
            zstd=config.compression == "auto" and is_available(),
        )
        self._reception.door = Door(
            house,
            keys,
            by_munge=by_munge,
            may_enter=rights.may_enter,
            find_binding=lambda link: find_binding(self._endpoint, is_unix=link.transport == "unix"),
            refused=self._reception.note_refused,
            most_visits=config.max_connections,
            numbers=self._dispatcher.numbers,
        )
        addresses = self._reception.listen(f"demos-{self.id}")
        is_wildcard = addresses.host in ("", "0.0.0.0", "::")
        now = time.time()
        self._endpoint = Endpoint(
            id=self.id,
            name=name,
            models=[],
            state="starting",
            host=socket.gethostname() if is_wildcard else addresses.host,
            port=addresses.port,
            unix=addresses.unix,
            boot=find_boot(),
            tls=self._certificate[1],
            wire=WIRE_MAJOR,
            user=user,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            job=os.environ.get("SLURM_JOB_ID", ""),
            started=now,
            heartbeat=now,
            interval=config.heartbeat,
            workers=0,
            clients=0,
            load=0.0,
            model_path=model_path,
            family=family,
            ends=find_end(),
            image=config.image_digest,
        )
        if config.usage_directory:
            facts = {"server": name, "id": self.id, "owner": user, "host": self._endpoint.hostname}
            book = Book(config.usage_directory, {**facts, "job": self._endpoint.job}, now)
            self._book = Scribe("usage", book.write, "accounting has a gap until it can be")
        self._registry.publish(self._endpoint)  # whoever cannot be found had better not start
        self._presence = Presence(self._registry)
        if self._exposition:
            path = self._exposition
            self._scribe = Scribe("prometheus", lambda told: write_exposition(path, told), "Prometheus learns nothing")

    def serve(self) -> None:
        """Serves until it is told to stop."""
        before = {number: signal.signal(number, self._take_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._dispatcher.serve(self._reception.is_over)
            self._port.flush(LAST_WORDS)
        finally:
            self._presence.close(self.id, LAST_WORDS)
            self._reception.close(LAST_WORDS)
            self._withdraw_exposition()
            self._record_usage()
            if self._book is not None:
                self._book.close(LAST_WORDS)
            self._port.close()
            if self._audit is not None:
                self._audit.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        self._reception.stop()

    def _publish(self, state: str) -> None:
        dispatcher = self._dispatcher
        models = [
            {"name": s.spec.name, "uuid": s.spec.uuid, "version": s.spec.version}
            for s in dispatcher.catalog.models.values()
        ]
        n_workers = sum(served.workers for served in dispatcher.catalog.models.values())
        self._endpoint = replace(
            self._endpoint,
            models=models,
            state=state,
            heartbeat=time.time(),
            workers=n_workers,
            clients=dispatcher.n_clients,
            load=min(dispatcher.scheduler.backlog_seconds / max(1, n_workers), HIGHEST_LOAD),
        )
        self._presence.show(self._endpoint)

    def _find_exposition(self, name: str) -> Path | None:
        """The file for Prometheus, if there is to be one."""
        if not self._config.prometheus_file:
            return None
        path = Path(self._config.prometheus_file)
        return path / f"demos-hpc-{name}{SUFFIX}" if path.is_dir() else path

    def _expose(self, description: dict[str, Any]) -> None:
        if self._scribe is not None:
            self._scribe.show(description)
        if time.monotonic() >= self._next_record:
            self._next_record += RECORD_SECONDS
            self._record_usage()

    def _record_usage(self) -> None:
        if self._book is not None:
            self._book.show((time.time(), self._dispatcher.accounts.metrics.usage.describe(time.monotonic())))

    def _withdraw_exposition(self) -> None:
        """What is left behind would be read for ever; of a server that crashed, the file's age tells."""
        if self._scribe is not None and self._scribe.close(LAST_WORDS) and self._exposition:
            with contextlib.suppress(OSError):
                self._exposition.unlink(missing_ok=True)

    def _find_ways_in(self, user: str) -> tuple[dict[str, Key], bool]:
        """The keys that open the door, and whether MUNGE does."""
        config = self._config
        has_munge = config.authentication != "key" and munge.is_available()
        if config.authentication == "munge":
            if not has_munge:
                raise LaunchError("DEMOS_AUTHENTICATION is munge, and no munged answers here")
            return {}, True
        if config.key_path.exists():
            return read_keys(config.key_path), has_munge
        if config.key_file:
            raise InvalidInput(
                f"there is no key file {config.key_file} (DEMOS_KEY_FILE); without that setting one is made below the"
                " home, or make it: a line of a user's name and 64 hexadecimal digits, mode 0600 (docs/servers.md)"
            )
        return make_key_file(config.key_path, user), has_munge

    def _find_certificate(self) -> tuple[str, str]:
        """Path and fingerprint; empty where the door has no TLS."""
        config = self._config
        if config.tls == "off" or (config.tls == "auto" and is_loopback(config.host)):
            return "", ""
        certificate = make_certificate(config.certificate_directory)
        return str(certificate.path), certificate.fingerprint
