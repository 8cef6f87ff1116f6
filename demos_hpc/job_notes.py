"""What a server's job keeps in its comment, for those who add workers like the first ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from urllib.parse import parse_qsl, quote, urlencode


@dataclass(frozen=True)
class Notes:
    """``workers`` are all of the job's own; the rest is of each of the first model's."""

    workers: int = 0
    memory_mb: int = 0
    threads: int = 1
    gpus: int = 0
    licenses: str = ""
    image: str = ""


def format_notes(notes: Notes) -> str:
    """In one word, whatever is in them."""
    return urlencode({name: value for name, value in asdict(notes).items() if value}, quote_via=quote)


def read_notes(comment: str) -> Notes:
    """The same, read again; those of nobody where the comment is another's."""
    said = dict(parse_qsl(comment))
    try:
        return Notes(**{name: type(default)(said.get(name, default)) for name, default in asdict(Notes()).items()})
    except ValueError:
        return Notes()
