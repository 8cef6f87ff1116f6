"""HDF5 files: opened once, their links followed as far as that is allowed, their datasets found."""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Sequence
from typing import Any

from .datasets import DataSet
from .errors import DatasetError
from .hdf5_format import (
    ERRORS,
    describe_attributes,
    explain,
    find_link,
    list_datasets,
    list_some,
    name_type,
    open_dataset,
    open_group,
    open_path,
    open_source,
)
from .sources import Source, find_identity, identify

#: Links that may lead from one to the next.
MOST_LINKS = 32
#: Identities of the files that a dataset is in, by their paths.
Files = dict[str, str]


def split_path(path: str) -> tuple[str, str]:
    """``file.h5:/group/events`` as file and name within; without a name, that of the root."""
    file, colon, inside = path.rpartition(":/")
    return (file, "/" + inside) if colon else (path, "/")


class DataFile:
    """An open HDF5 file; ``allowed`` are the directories that its links may lead into, beside its own.

    Raises
    ------
    DatasetError
        Where it is missing, may not be read, or is no HDF5 file.
    """

    def __init__(self, path: str, allowed: Sequence[str] = ()) -> None:
        self.path = path
        own = [os.path.dirname(path) or ".", os.path.dirname(os.path.realpath(path))]
        #: Where the names of other files begin.
        self._beside = list(dict.fromkeys(own))
        self._allowed = list(dict.fromkeys(os.path.realpath(directory) for directory in (own[0], *allowed)))
        source = self._source = Source(path)
        #: Of the file alone; that of a dataset counts other files that it is in as well.
        self.identity = source.identity
        try:
            self._file = open_source(source)
        except ERRORS as error:
            source.close()
            raise DatasetError(
                f"{path} cannot be opened: {explain(error)}; it is no HDF5 file, or not all of one: copy or write it"
                " anew"
            ) from None
        self._others: dict[str, DataFile] = {}
        self._datasets: dict[str, DataSet] = {}
        self._linked: Files = {}
        #: The same file as HDF5 opens it itself, for virtual datasets: it looks for their sources in its own ways.
        self._reopened: Any = None
        # Also when Python ends: HDF5 would call a source that is not there any more.
        self._finalize = weakref.finalize(self, _close, self._file, source)

    def close(self) -> None:
        """Closes it; datasets of it cannot be read any more."""
        for other in self._others.values():
            other.close()
        if self._reopened is not None:
            self._reopened.close()
        self._finalize()

    def is_unchanged(self) -> bool:
        """Whether the file that was opened, wherever it is now, is as it was, and so are those that it leads to."""
        return self._finalize.alive and self._source.is_unchanged() and self._is_linked_as_before()

    def is_current(self) -> bool:
        """Whether its path still leads to the file as it was opened, and so do the paths of others."""
        return self._finalize.alive and self._source.is_current() and self._is_linked_as_before()

    def _is_linked_as_before(self) -> bool:
        with contextlib.suppress(DatasetError):
            return all(find_identity(path) == identity for path, identity in self._linked.items())
        return False

    def find(self, name: str) -> DataSet:
        """The dataset of this name; the same object each time.

        Raises
        ------
        DatasetError
            Where there is none, or it is in a file that may not be read, or of a type that cannot be.
        """
        if name not in self._datasets:
            files = {self.path: self.identity}
            self._datasets[name] = self._open(name, MOST_LINKS, files)
            self._linked |= {path: identity for path, identity in files.items() if path != self.path}
        return self._datasets[name]

    def list_names(self) -> list[str]:
        """Names of all datasets in the file itself, sorted; links are not followed."""
        try:
            return list_datasets(self._file)
        except ERRORS as error:
            raise DatasetError(f"{self.path} cannot be read: {explain(error)}") from None

    # ---- from link to link ----------------------------------------------------------------------------------

    def _open(self, name: str, n_links: int, files: Files) -> DataSet:
        """Goes from group to group. HDF5 would follow links by itself, wherever they lead."""
        place, walked, words = self._file, "", _split(name)
        while words:
            word = words.pop()
            here = f"{walked}/{word}"
            try:
                link = find_link(place, word)
                there = list_some(place) if link is None else ""
            except ERRORS as error:
                raise DatasetError(f"{self.path}: {here} cannot be looked up: {explain(error)}") from None
            if link is None:
                raise DatasetError(f"{self.path}: there is no {here}; in its place there are: {there}")
            if link.kind in ("soft", "external") and (n_links := n_links - 1) < 0:
                raise DatasetError(f"{self.path}: {name} leads over more than {MOST_LINKS} links, perhaps in a circle")
            if link.kind == "soft":
                words += _split(link.path)
                if link.path.startswith("/"):
                    place, walked = self._file, ""
            elif link.kind == "external":
                other = self._open_other(link.file, here)
                files[other.path] = other.identity
                return other._open("/".join([link.path, *reversed(words)]), n_links, files)
            elif link.kind == "dataset" and not words:
                return self._open_dataset(place, word, here, n_links, files)
            elif link.kind == "group" and words:
                try:
                    place, walked = open_group(place, word), here
                except ERRORS as error:
                    raise DatasetError(f"{self.path}: {here} cannot be opened: {explain(error)}") from None
            else:
                article = f"a {link.kind}" if link.kind != "other" else "a link of an unknown kind"
                wanted = "a group" if words else "a dataset"
                raise DatasetError(f"{self.path}: {here} is {article}, not {wanted}{self._list_inside(place, word)}")
        raise DatasetError(f"{self.path}: {name} is a group, not a dataset; in it there are: {list_some(place)}")

    def _list_inside(self, place: Any, word: str) -> str:
        with contextlib.suppress(*ERRORS):
            return f"; in it there are: {list_some(open_group(place, word))}"
        return ""

    def _open_other(self, file: str, here: str) -> DataFile:
        """The file that a link leads to."""
        path = self._find_allowed(file, here)
        if path in self._others and not self._others[path].is_current():  # nothing in it was found, else we knew
            self._others.pop(path).close()
        if path not in self._others:
            try:
                self._others[path] = DataFile(path, self._allowed)
            except DatasetError as error:
                raise DatasetError(f"{self.path}: {here} leads to a file that cannot be read: {error}") from None
        return self._others[path]

    def _find_allowed(self, file: str, here: str) -> str:
        """The path of another file, links resolved; `DatasetError` where it may not be read."""
        paths = [os.path.realpath(os.path.join(directory, file)) for directory in self._beside]
        path = next(filter(os.path.exists, paths), paths[0])
        if not any(os.path.commonpath([path, directory]) == directory for directory in self._allowed):
            raise DatasetError(
                f"{self.path}: {here} leads to {path}, which is in none of the directories that this server may read:"
                f" {', '.join(self._allowed)}; its operator may allow others (DEMOS_DATA_DIRECTORIES)"
            )
        return path

    # ---- datasets -------------------------------------------------------------------------------------------

    def _open_dataset(self, group: Any, word: str, here: str, n_links: int, files: Files) -> DataSet:
        name = f"{self.path}:{here}"
        try:
            handle = open_dataset(group, word)
            attributes, is_virtual, raw = describe_attributes(handle), handle.is_virtual, list(handle.external or ())
            if raw:
                beside = self._find_beside([str(file) for file, _, _ in raw])
                handle = None  # HDF5 opens it in another way only if it is not open
                handle = open_dataset(group, word, beside)
            for file, offset, size in raw:
                self._check_raw(str(file), offset, size, here, files)
            if is_virtual:
                handle = self._open_virtual(handle, here, n_links, files)
            source = None if raw or is_virtual else self._source
            dataset = DataSet(handle, name, self, source, _combine(files), attributes)
        except DatasetError:
            raise
        except ERRORS as error:
            raise DatasetError(f"{name} cannot be read: {explain(error)}") from None
        if dataset.kind == "other":
            raise DatasetError(
                f"{name} cannot be served: its elements are {name_type(handle)}. Numbers, strings, enumerations, lists"
                " of numbers, and compounds of what has a fixed size can be: copy it into a dataset of those"
            )
        return dataset

    def _find_beside(self, files: Sequence[str]) -> str:
        """The directory that names of other files begin at."""
        for directory in self._beside:
            if all(os.path.exists(os.path.join(directory, file)) for file in files):
                return directory
        return self._beside[0]

    def _check_raw(self, file: str, offset: int, size: int, here: str, files: Files) -> None:
        """A file of bytes alone, part of a dataset; HDF5 would take zeros for what it lacks."""
        path = self._find_allowed(file, here)
        files[path] = find_identity(path)
        if size < 2**63 and (found := os.stat(path).st_size) < offset + size:
            raise DatasetError(
                f"{self.path}: {here} has {size} bytes in {path} from byte {offset} on, but that ends at {found}: it is"
                " truncated, copy or write it anew"
            )

    def _open_virtual(self, handle: Any, here: str, n_links: int, files: Files) -> Any:
        """A virtual dataset, its sources looked at first; HDF5 would fill in for those that it does not find."""
        if n_links <= 0:
            raise DatasetError(f"{self.path}: {here} has sources that have sources …, more than {MOST_LINKS}")
        sources = sorted({(source.file_name, source.dset_name) for source in handle.virtual_sources()})
        for file, inside in sources:
            if "%b" in file or "%b" in inside:
                raise DatasetError(
                    f"{self.path}: {here} cannot be served: its sources are a pattern, {file}:{inside}; list them one"
                    " by one"
                )
            if file == ".":
                self._open(inside.replace("%%", "%"), n_links - 1, files)
                continue
            path = self._find_allowed(file.replace("%%", "%"), here)
            try:
                with contextlib.closing(DataFile(path, self._allowed)) as other:
                    files[path] = other.identity
                    other._open(inside.replace("%%", "%"), n_links - 1, files)
            except DatasetError as error:
                raise DatasetError(f"{self.path}: {here} has a source that cannot be read: {error}") from None
        if self._reopened is None:
            self._reopened = open_path(self.path)
            if identify(os.fstat(self._reopened.id.get_vfd_handle())) != self.identity:
                raise DatasetError(f"{self.path} was replaced while it was opened; open it again")
        *groups, word = filter(None, here.split("/"))
        place = self._reopened
        for group in groups:
            place = open_group(place, group)
        names = [file for file, _ in sources if file != "."]
        return open_dataset(place, word, self._find_beside(names))


def _split(name: str) -> list[str]:
    """The words of a path, the last one first."""
    return [word for word in reversed(name.split("/")) if word not in ("", ".")]


def _combine(files: Files) -> str:
    identities = list(files.values())
    if len(identities) == 1:
        return identities[0]
    return hashlib.blake2b(" ".join(sorted(identities)).encode(), digest_size=8).hexdigest()


def _close(file: Any, source: Source) -> None:
    with contextlib.suppress(*ERRORS):
        file.close()
    source.close()
