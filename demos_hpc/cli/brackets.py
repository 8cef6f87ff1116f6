"""What stands between the brackets of a dataset, as a word of the command line; read by hand, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import InvalidInput

_NUMBER = re.compile(r"[+-]?\d+(_\d+)*")
#: An item: a list, a name in quotes, or anything up to the next comma.
_ITEM = re.compile(r"""\s*(\[[^\[\]]*\]|"[^"]*"|'[^']*'|[^,\[\]"']*?)\s*(,|$)""")
EXAMPLES = '"10:20, ::2", "[3, 1, 2]", "energy, 0:5", "..."'


def read_key(text: str) -> Any:
    """A key for `RemoteDataset.__getitem__`: numbers, slices, lists of numbers, ``...``, names of fields.

    A name may be in quotes, and has to be where it has commas, colons or brackets, or looks like a number.

    >>> read_key("energy, 10:20, ::2")
    ('energy', slice(10, 20, None), slice(None, None, 2))
    >>> read_key("[3, 1]"), read_key("")
    ([3, 1], Ellipsis)

    Raises
    ------
    InvalidInput
        Where it is none of these.
    """
    if text.strip() == "()":
        return ()
    items = [_read_item(word, text) for word in _split(text)]
    return items[0] if len(items) == 1 else tuple(items) if items else ...


def _split(text: str) -> Iterator[str]:
    at = 0
    while text[at:].strip():
        found = _ITEM.match(text, at)
        if found is None:
            raise InvalidInput(f"selection {text!r} cannot be read from {text[at:].strip()!r} on; write {EXAMPLES}")
        at = found.end()
        yield found[1]


def _read_item(word: str, text: str) -> Any:
    if word[:1] in ("'", '"'):
        return word[1:-1]
    if word == "...":
        return ...
    if word.startswith("["):
        items = [_read_item(part, text) for part in _split(word[1:-1])]
        if any(not isinstance(item, int) for item in items) and any(not isinstance(item, str) for item in items):
            raise InvalidInput(f"selection {text!r}: {word} is a list neither of numbers nor of names")
        return items
    if ":" in word:
        parts = [part.strip() for part in word.split(":")]
        if len(parts) > 3 or any(part and not _NUMBER.fullmatch(part) for part in parts):
            raise InvalidInput(f"selection {text!r}: {word!r} is no slice start:stop:step; write {EXAMPLES}")
        key = slice(*(int(part) if part else None for part in parts))
        if key.step == 0:
            raise InvalidInput(f"selection {text!r}: the step of {word!r} is 0; it is 1 or more")
        return key
    if not word:
        raise InvalidInput(f"selection {text!r}: nothing between two commas; write {EXAMPLES}")
    return int(word) if _NUMBER.fullmatch(word) else word


class Cutting:
    """A key cut into blocks along the first axis that its answer has.

    Raises
    ------
    InvalidInput
        Where it does not fit ``shape``, that of the dataset.
    """

    def __init__(self, key: Any, shape: Sequence[int]) -> None:
        items = list(key) if isinstance(key, tuple) else [key]
        self._names = [item for item in items if _is_name(item)]
        axes = [item for item in items if not _is_name(item)]
        at = axes.index(...) if ... in axes else len(axes)
        rest = [item for item in axes if item is not ...]
        if len(rest) < len(axes) - 1:
            raise InvalidInput("'...' stands for all axes that are not given, so only once")
        if len(rest) > len(shape):
            raise InvalidInput(f"{len(rest)} indices for a dataset of shape {tuple(shape)}")
        full = [slice(None)] * (len(shape) - len(rest))
        #: An item for each axis of the dataset.
        self.axes: list[Any] = [*rest[:at], *full, *rest[at:]]
        #: The axis that is cut; None where the answer is a single element.
        self.axis = next((nth for nth, item in enumerate(self.axes) if not isinstance(item, int)), None)
        self._indices: Sequence[int] = range(1)
        if self.axis is not None:
            item = self.axes[self.axis]
            self._indices = range(*item.indices(shape[self.axis])) if isinstance(item, slice) else item

    def __len__(self) -> int:
        """Rows of the answer; a single element is one."""
        return len(self._indices)

    def label(self, first: int, count: int) -> list[int]:
        """Where in the dataset rows of the answer stand."""
        return list(self._indices[first : first + count])

    def cut(self, first: int, count: int) -> Any:
        """The key of so many rows of the answer, from ``first`` on."""
        axes = list(self.axes)
        if self.axis is not None:
            some = self._indices[first : first + count]
            axes[self.axis] = slice(some.start, max(some.stop, 0), some.step) if isinstance(some, range) else some
        return (*self._names, *axes)


def _is_name(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, list) and bool(item) and isinstance(item[0], str))
