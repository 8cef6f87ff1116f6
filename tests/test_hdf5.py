"""HDF5 files among other files: links that lead somewhere or nowhere, files that change or are none at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from demos_hpc.chunk_cache import ChunkCache
from demos_hpc.errors import DatasetError
from demos_hpc.hdf5 import MOST_LINKS, DataFile, split_path
from demos_hpc.runs import Run
from demos_hpc.selection import Span

X = np.arange(20.0).reshape(10, 2)


def read(file: DataFile, name: str) -> Any:
    dataset = file.find(name)
    assert dataset.shape is not None
    axes = tuple(Span(0, 1, n) for n in dataset.shape)
    return dataset.read(Run(axes, 0, None, False), ChunkCache())


def write(path: Path, offset: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["x"] = X + offset
        file["group/packed"] = X + offset
        file.create_dataset("group/gzip", data=X + offset, chunks=(3, 1), compression="gzip")
    return path


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A directory that may be read, with a file in it."""
    write(tmp_path / "inside" / "other.h5", 100)
    return tmp_path / "inside"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that may not."""
    write(tmp_path / "outside" / "secret.h5", 666)
    np.arange(1000.0).tofile(tmp_path / "outside" / "secret.raw")
    return tmp_path / "outside"


@pytest.fixture
def opened() -> Iterator[Callable[..., DataFile]]:
    """Opens files, ``opened(path, *allowed)``, and closes them in the end."""
    files: list[DataFile] = []

    def open_file(path: Path, *allowed: Path) -> DataFile:
        files.append(DataFile(str(path), [str(directory) for directory in allowed]))
        return files[-1]

    before = set(os.listdir("/proc/self/fd"))
    yield open_file
    for file in files:
        file.close()
    assert set(os.listdir("/proc/self/fd")) <= before


# ---- paths and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "file", "name"),
    [
        ("a.h5:/x", "a.h5", "/x"),
        ("/d/a.h5:/g/x", "/d/a.h5", "/g/x"),
        ("/d:/a.h5:/g/x", "/d:/a.h5", "/g/x"),
        ("a.h5", "a.h5", "/"),
    ],
)
def test_a_path_has_a_file_and_a_name(path: str, file: str, name: str) -> None:
    assert split_path(path) == (file, name)


@pytest.mark.parametrize("name", ["/x", "x", "//x/", "./x", "/group/packed", "group//./packed"])
def test_a_dataset_has_several_names(inside: Path, opened: Any, name: str) -> None:
    file = opened(inside / "other.h5")
    np.testing.assert_array_equal(read(file, name), X + 100)
    assert file.find(name) is file.find(name)
    assert file.find(name).identity == file.identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/y", "other.h5: there is no /y; in its place there are: group, x"),
        ("/group/y", "there is no /group/y; in its place there are: gzip, packed"),
        ("/group", "/group is a group, not a dataset; in it there are: gzip, packed"),
        ("/", "/ is a group, not a dataset; in it there are: group, x"),
        ("/x/y", "/x is a dataset, not a group"),
        ("/..", r"there is no /\.\."),
        ("/group/../x", r"there is no /group/\.\."),
        ("/kind", "/kind is a type, not a dataset"),
        ("/ünïcode", "there is no /ünïcode"),
    ],
)
def test_what_is_no_dataset_is_said_with_what_there_is(inside: Path, opened: Any, name: str, message: str) -> None:
    with h5py.File(inside / "other.h5", "a") as file:
        if name == "/kind":
            file["kind"] = np.dtype("f8")
    with pytest.raises(DatasetError, match=message):
        opened(inside / "other.h5").find(name)


def test_groups_of_thousands_are_not_listed_as_a_whole(tmp_path: Path, opened: Any) -> None:
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for nth in range(1000):
            file.create_group(f"g{nth:04}")
    with pytest.raises(DatasetError, match=r"in its place there are: g0000, .*, g0019, …$"):
        opened(tmp_path / "many.h5").find("/x")


def test_datasets_of_a_file_are_listed_without_links(inside: Path, opened: Any) -> None:
    with h5py.File(inside / "other.h5", "a") as file:
        file["soft"] = h5py.SoftLink("/x")
        file["away"] = h5py.ExternalLink("nowhere.h5", "/x")
    assert opened(inside / "other.h5").list_names() == ["/group/gzip", "/group/packed", "/x"]


# ---- files that are none ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 100_000, b"\x89HDF\r\n\x1a\n" + bytes(10_000)])
def test_what_is_no_hdf5_file(tmp_path: Path, opened: Any, content: bytes) -> None:
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"cannot be opened: .*; it is no HDF5 file, or not all of one: copy or write"
    ):
        opened(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_truncated_file_is_refused_or_its_datasets_are(
    tmp_path: Path, opened: Any, share: float, libver: str
) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["x"] = np.zeros((1000, 4))
        file.create_dataset("z", data=np.arange(4000.0), chunks=(100,), compression="gzip")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(DatasetError, match=r"file\.h5.* cannot be "):
        assert [read(opened(path), name) for name in ("/x", "/z")]


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"fletcher32": True}, {"compression": "lzf"}])
def test_chunks_that_are_damaged_say_so(tmp_path: Path, opened: Any, options: dict[str, Any]) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=np.arange(400.0), chunks=(50,), **options)
        chunk = dataset.id.get_chunk_info(3)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes([255] * 20))
    file = opened(path)
    with pytest.raises(DatasetError, match=r"file\.h5:/x cannot be read: its filter \w+ fails, so the file is damaged"):
        read(file, "/x")
    first = file.find("/x").read(Run((Span(0, 1, 50),), 0, None, False), ChunkCache())
    np.testing.assert_array_equal(first, np.arange(50.0))


# ---- files that change --------------------------------------------------------------------------------------


def test_two_of_one_process_do_not_share_what_one_of_them_knew(inside: Path, opened: Any) -> None:
    """HDF5 would, where it opens a file by itself, and take the chunks of the old file for those of the new one."""
    path = inside / "other.h5"
    old = opened(path)
    np.testing.assert_array_equal(read(old, "/group/gzip"), X + 100)
    data = write(inside / "new.h5", 200).read_bytes()
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
    assert not old.is_unchanged()
    new = opened(path)
    np.testing.assert_array_equal(read(new, "/group/gzip"), X + 200)
    np.testing.assert_array_equal(read(new, "/x"), X + 200)
    assert new.is_unchanged()


def test_a_file_that_was_replaced_or_removed_stays_what_it_was(inside: Path, opened: Any) -> None:
    path = inside / "other.h5"
    file = opened(path)
    os.replace(write(inside / "new.h5", 200), path)
    np.testing.assert_array_equal(read(file, "/x"), X + 100)
    assert file.is_unchanged()
    assert not file.is_current()
    path.unlink()
    np.testing.assert_array_equal(read(file, "/group/gzip"), X + 100)
    assert not file.is_current()


def test_closed_files_say_so(inside: Path, opened: Any) -> None:
    file = opened(inside / "other.h5")
    dataset = file.find("/x")
    file.close()
    file.close()
    assert not file.is_unchanged()
    assert not file.is_current()
    with pytest.raises(DatasetError, match="cannot be read"):
        dataset.read(Run((Span(0, 1, 10), Span(0, 1, 2)), 0, None, False), ChunkCache())


def test_files_that_somebody_writes_can_be_read(inside: Path, opened: Any) -> None:
    """Nobody is locked out, and no lock is waited for."""
    with h5py.File(inside / "other.h5", "r+") as writer:
        np.testing.assert_array_equal(read(opened(inside / "other.h5"), "/x"), X + 100)
        writer["more"] = 5


def test_python_ends_with_files_open(inside: Path) -> None:
    """HDF5 closes them after Python's end, when there is nobody any more whom it could ask to."""
    code = """
import sys
from demos_hpc.hdf5 import DataFile
file = DataFile(sys.argv[1])
dataset = file.find("/group/gzip")
print(dataset.shape)
"""
    path = str(inside / "other.h5")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "(10, 2)\n"), done.stderr


# ---- links --------------------------------------------------------------------------------------------------


def link(path: Path, links: dict[str, Any]) -> Path:
    with h5py.File(path, "a") as file:
        for name, target in links.items():
            file[name] = target
    return path


@pytest.mark.parametrize(
    ("links", "name"),
    [
        ({"soft": h5py.SoftLink("/x")}, "/soft"),
        ({"soft": h5py.SoftLink("x")}, "/soft"),
        ({"group/soft": h5py.SoftLink("packed")}, "/group/soft"),
        ({"group/soft": h5py.SoftLink("/x")}, "/group/soft"),
        ({"soft": h5py.SoftLink("group")}, "/soft/packed"),
        ({"a": h5py.SoftLink("/b"), "b": h5py.SoftLink("c"), "c": h5py.SoftLink("/x")}, "/a"),
        ({"deep/soft": h5py.SoftLink("./here"), "deep/here": h5py.SoftLink("/group")}, "/deep/soft/gzip"),
    ],
)
def test_soft_links_are_followed(inside: Path, opened: Any, links: dict[str, Any], name: str) -> None:
    path = link(inside / "other.h5", links)
    np.testing.assert_array_equal(read(opened(path), name), X + 100)


@pytest.mark.parametrize(
    ("links", "name", "message"),
    [
        ({"soft": h5py.SoftLink("/nowhere")}, "/soft", "there is no /nowhere"),
        ({"soft": h5py.SoftLink("/soft")}, "/soft", f"over more than {MOST_LINKS} links, perhaps in a circle"),
        ({"a": h5py.SoftLink("/b"), "b": h5py.SoftLink("/a")}, "/a/x", "links, perhaps in a circle"),
        ({"a": h5py.SoftLink("/a/a")}, "/a", "links, perhaps in a circle"),
    ],
)
def test_soft_links_that_lead_nowhere(
    inside: Path, opened: Any, links: dict[str, Any], name: str, message: str
) -> None:
    path = link(inside / "other.h5", links)
    with pytest.raises(DatasetError, match=message):
        opened(path).find(name)


def make_main(directory: Path, target: str, name: str = "/x") -> Path:
    """A file with a link to another one."""
    return link(directory / "main.h5", {"away": h5py.ExternalLink(target, name), "x": X})


@pytest.mark.parametrize("target", ["other.h5", "./other.h5", "{inside}/other.h5", "../inside/other.h5", "sub/deep.h5"])
def test_links_lead_into_the_files_own_directory(inside: Path, opened: Any, target: str) -> None:
    write(inside / "sub" / "deep.h5", 100)
    file = opened(make_main(inside, target.format(inside=inside)))
    np.testing.assert_array_equal(read(file, "/away"), X + 100)
    np.testing.assert_array_equal(read(file, "/x"), X)
    assert file.find("/x").identity == file.identity
    assert file.find("/away").identity != file.identity


def test_links_lead_on_through_groups_and_links_of_other_files(inside: Path, opened: Any) -> None:
    link(inside / "other.h5", {"on": h5py.SoftLink("/group"), "third": h5py.ExternalLink("third.h5", "/group")})
    write(inside / "third.h5", 300)
    file = opened(make_main(inside, "other.h5", "/"))
    np.testing.assert_array_equal(read(file, "/away/on/gzip"), X + 100)
    np.testing.assert_array_equal(read(file, "/away/third/gzip"), X + 300)


@pytest.mark.parametrize("target", ["{outside}/secret.h5", "../outside/secret.h5", "symlink.h5", "sub/secret.h5"])
def test_links_lead_nowhere_else(inside: Path, outside: Path, opened: Any, target: str) -> None:
    (inside / "symlink.h5").symlink_to(outside / "secret.h5")
    (inside / "sub").symlink_to(outside)
    path = make_main(inside, target.format(outside=outside))
    with pytest.raises(DatasetError, match=r"/away leads to .*/outside/secret.h5, which is in none of the directories"):
        opened(path).find("/away")
    np.testing.assert_array_equal(read(opened(path, outside), "/away"), X + 666)
    np.testing.assert_array_equal(read(opened(path, outside.parent), "/away"), X + 666)
    with pytest.raises(DatasetError, match="DEMOS_DATA_DIRECTORIES"):
        opened(path, outside / "deeper", outside.parent / "out").find("/away")


def test_links_of_linked_files_lead_nowhere_else(inside: Path, outside: Path, opened: Any) -> None:
    link(inside / "other.h5", {"on": h5py.ExternalLink(str(outside / "secret.h5"), "/x")})
    file = opened(make_main(inside, "other.h5", "/on"))
    with pytest.raises(DatasetError, match="which is in none of the directories"):
        file.find("/away")


def test_a_file_that_is_a_symbolic_link_has_two_directories_to_look_in(
    inside: Path, outside: Path, opened: Any
) -> None:
    """Beside the link, as in a farm of links, and beside the file, which only the operator may allow."""
    main = make_main(outside, "secret.h5")
    (inside / "main.h5").symlink_to(main)
    with pytest.raises(DatasetError, match="which is in none of the directories"):
        opened(inside / "main.h5").find("/away")
    np.testing.assert_array_equal(read(opened(inside / "main.h5", outside), "/away"), X + 666)
    write(inside / "secret.h5", 100)
    np.testing.assert_array_equal(read(opened(inside / "main.h5"), "/away"), X + 100)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (Path.mkdir, "is a directory"),
        (lambda path: os.mkfifo(path), "is no regular file"),
        (lambda path: path.write_bytes(b"hello"), "it is no HDF5 file"),
    ],
)
def test_links_to_what_is_no_file(inside: Path, opened: Any, make: Any, message: str) -> None:
    """A pipe would be waited for for ever."""
    make(inside / "thing")
    with pytest.raises(DatasetError, match=f"/away leads to a file that cannot be read: .*thing.*{message}"):
        opened(make_main(inside, "thing")).find("/away")


def test_links_in_a_circle_of_files(inside: Path, opened: Any) -> None:
    path = make_main(inside, "second.h5", "/away")
    link(inside / "second.h5", {"away": h5py.ExternalLink("main.h5", "/away")})
    with pytest.raises(DatasetError, match="links, perhaps in a circle"):
        opened(path).find("/away")


def test_linked_files_count_for_what_a_dataset_is(inside: Path, opened: Any) -> None:
    path = make_main(inside, "other.h5")
    file = opened(path)
    before = file.find("/away").identity
    assert file.is_unchanged()
    assert file.is_current()
    os.utime(inside / "other.h5", ns=(1, 1))
    assert not file.is_unchanged()
    assert not file.is_current()
    assert opened(path).find("/away").identity != before
    (inside / "other.h5").unlink()
    assert not file.is_unchanged()


def test_a_linked_file_that_was_put_right_is_looked_into_again(inside: Path, opened: Any) -> None:
    path = make_main(inside, "other.h5", "/later")
    file = opened(path)
    with pytest.raises(DatasetError, match="there is no /later"):
        file.find("/away")
    with h5py.File(inside / "new.h5", "w") as new:
        new["later"] = 5
    (inside / "new.h5").replace(inside / "other.h5")
    assert file.is_current(), "of the linked file nothing is known yet"
    assert file.find("/away").shape == ()


def test_links_of_an_unknown_kind(inside: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = link(inside / "other.h5", {"soft": h5py.SoftLink("/x")})
    monkeypatch.setattr("demos_hpc.hdf5_format.h5py.h5l.TYPE_SOFT", 99)
    with pytest.raises(DatasetError, match="/soft is a link of an unknown kind, not a dataset"):
        opened(path).find("/soft")


# ---- bytes in other files -----------------------------------------------------------------------------------


def make_raw(directory: Path, target: str, n_bytes: int = 160) -> Path:
    """A dataset whose bytes are in a file of their own."""
    with h5py.File(directory / "main.h5", "w") as file:
        file.create_dataset("raw", (10, 2), "f8", external=[(target, 0, n_bytes)])
        file["raw"].attrs["unit"] = "cm"
    return directory / "main.h5"


@pytest.mark.parametrize("target", ["data.raw", "{inside}/data.raw", "./data.raw"])
def test_bytes_in_other_files_are_those_beside(
    inside: Path, opened: Any, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HDF5 would look in the directory that the process happens to be in."""
    path = make_raw(inside, target.format(inside=inside))
    X.tofile(inside / "data.raw")
    (X + 5).tofile(tmp_path / "data.raw")
    monkeypatch.chdir(tmp_path)
    file = opened(path)
    np.testing.assert_array_equal(read(file, "/raw"), X)
    assert file.find("/raw").describe()["attrs"] == {"unit": "cm"}
    rows = file.find("/raw").read(Run((np.array([1, 7]), Span(0, 1, 2)), 0, None, False), ChunkCache())
    np.testing.assert_array_equal(rows, X[[1, 7]])
    assert file.is_unchanged()
    os.utime(inside / "data.raw", ns=(1, 1))
    assert not file.is_unchanged()


@pytest.mark.parametrize("target", ["{outside}/secret.raw", "../outside/secret.raw", "symlink", "/etc/passwd"])
def test_bytes_of_others_are_not_read(inside: Path, outside: Path, opened: Any, target: str) -> None:
    (inside / "symlink").symlink_to(outside / "secret.raw")
    path = make_raw(inside, target.format(outside=outside))
    with pytest.raises(DatasetError, match=r"/raw leads to .*, which is in none of the directories"):
        opened(path).find("/raw")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: os.mkfifo(path), "is no regular file"),
        (lambda path: path.write_bytes(bytes(159)), "has 160 bytes in .* from byte 0 on, but that ends at 159"),
    ],
)
def test_bytes_that_are_not_there(inside: Path, opened: Any, make: Any, message: str) -> None:
    """HDF5 would take zeros for them."""
    make(inside / "data.raw")
    with pytest.raises(DatasetError, match=message):
        opened(make_raw(inside, "data.raw")).find("/raw")


# ---- virtual datasets ---------------------------------------------------------------------------------------


def make_virtual(directory: Path, sources: list[tuple[str, str]], name: str = "main.h5") -> Path:
    """A dataset of the rows of others, one behind the other."""
    layout = h5py.VirtualLayout((10 * len(sources), 2), "f8")
    for nth, (file, inside) in enumerate(sources):
        layout[10 * nth : 10 * nth + 10] = h5py.VirtualSource(file, inside, (10, 2))
    with h5py.File(directory / name, "a") as file:
        file.create_virtual_dataset("all", layout, fillvalue=-1.0)
        file["all"].attrs["unit"] = "cm"
    return directory / name


def test_virtual_datasets_are_those_of_their_sources(
    inside: Path, opened: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(inside / "sub" / "third.h5", 300)
    path = make_virtual(inside, [("other.h5", "/x"), (str(inside / "sub" / "third.h5"), "/group/gzip")])
    write(tmp_path / "other.h5", 5)
    monkeypatch.chdir(tmp_path)
    file = opened(path)
    np.testing.assert_array_equal(read(file, "/all"), np.concatenate([X + 100, X + 300]))
    assert file.find("/all").describe()["attrs"] == {"unit": "cm"}
    rows = file.find("/all").read(Run((np.array([1, 7, 15]), Span(1, 1, 1)), 0, None, False), ChunkCache())
    assert rows.reshape(-1).tolist() == [103.0, 115.0, 311.0]
    assert file.find("/all").identity != file.identity
    assert file.is_unchanged()
    os.utime(inside / "sub" / "third.h5", ns=(1, 1))
    assert not file.is_unchanged()


def test_a_virtual_dataset_of_its_own_file(inside: Path, opened: Any) -> None:
    path = make_virtual(inside, [(".", "/x"), (".", "/group/gzip")], "other.h5")
    file = opened(path)
    np.testing.assert_array_equal(read(file, "/all"), np.concatenate([X + 100, X + 100]))
    assert file.find("/all").identity == file.identity


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([("other.h5", "/x"), ("{outside}/secret.h5", "/x")], "which is in none of the directories"),
        ([("symlink.h5", "/x")], "which is in none of the directories"),
        ([("nowhere.h5", "/x")], "/all has a source that cannot be read: .*nowhere.h5 .*No such file"),
        ([("other.h5", "/nothing")], "/all has a source that cannot be read: .*there is no /nothing"),
        ([("fifo", "/x")], "/all has a source that cannot be read: .*is no regular file"),
        ([("linking.h5", "/away")], "/all has a source that cannot be read: .*none of the directories"),
        ([(".", "/all")], f"more than {MOST_LINKS}"),
    ],
)
def test_sources_that_are_none(
    inside: Path, outside: Path, opened: Any, sources: list[tuple[str, str]], message: str
) -> None:
    """HDF5 would fill in for those that it does not find."""
    (inside / "symlink.h5").symlink_to(outside / "secret.h5")
    os.mkfifo(inside / "fifo")
    link(inside / "linking.h5", {"away": h5py.ExternalLink(str(outside / "secret.h5"), "/x")})
    path = make_virtual(inside, [(file.format(outside=outside), name) for file, name in sources])
    with pytest.raises(DatasetError, match=message):
        opened(path).find("/all")


def test_sources_that_are_a_pattern(inside: Path, opened: Any) -> None:
    """There may be any number of them, also later."""
    plist, many = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5s.UNLIMITED
    space = h5py.h5s.create_simple((10, 2), (many, 2))
    space.select_hyperslab((0, 0), (many, 1), (10, 2), (10, 2))
    plist.set_virtual(space, b"other%b.h5", b"/x", h5py.h5s.create_simple((10, 2)))
    with h5py.File(inside / "main.h5", "w") as file:
        h5py.h5d.create(file.id, b"all", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((10, 2), (many, 2)), plist)
    with pytest.raises(DatasetError, match=r"/all cannot be served: its sources are a pattern, other%b\.h5:/x; list"):
        opened(inside / "main.h5").find("/all")


def test_a_source_that_has_grown(inside: Path, opened: Any) -> None:
    many = h5py.h5s.UNLIMITED
    with h5py.File(inside / "source.h5", "w") as source, h5py.File(inside / "main.h5", "w") as file:
        source.create_dataset("x", data=np.arange(10.0), chunks=(5,), maxshape=(None,))
        layout = h5py.VirtualLayout((10,), "f8", maxshape=(None,))
        layout[0:many] = h5py.VirtualSource("source.h5", "/x", (10,), maxshape=(None,))[0:many]
        file.create_virtual_dataset("all", layout)
        source["x"].resize((13,))
        source["x"][10:] = 1.0
    assert read(opened(inside / "main.h5"), "/all").tolist() == [*range(10), 1.0, 1.0, 1.0]


def test_a_virtual_dataset_that_is_replaced_while_it_is_opened(
    inside: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_virtual(inside, [("other.h5", "/x")])
    file = opened(path)

    def replace(place: str) -> Any:
        os.replace(make_virtual(inside, [("other.h5", "/x")], "new.h5"), place)
        return h5py.File(place)

    monkeypatch.setattr("demos_hpc.hdf5.open_path", replace)
    with pytest.raises(DatasetError, match="was replaced while it was opened; open it again"):
        file.find("/all")


# ---- elements -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (h5py.ref_dtype, "references to objects or regions"),
        (h5py.regionref_dtype, "references to objects or regions"),
        (np.dtype([("a", "i4"), ("r", h5py.ref_dtype)]), "compounds that have strings, lists or references in them"),
        (np.dtype([("a", "i4"), ("s", h5py.string_dtype())]), "compounds that have strings, lists or references"),
        (h5py.vlen_dtype(h5py.string_dtype()), "lists of lists, or of strings"),
        (h5py.vlen_dtype(h5py.vlen_dtype("i4")), "lists of lists, or of strings"),
    ],
)
def test_what_cannot_be_served_says_what_it_is(tmp_path: Path, opened: Any, dtype: Any, message: str) -> None:
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file.create_dataset("odd", (3,), dtype)
        file["x"] = X
    file = opened(tmp_path / "odd.h5")
    with pytest.raises(DatasetError, match=f"odd.h5:/odd cannot be served: its elements are {message}.*copy it into"):
        file.find("/odd")
    np.testing.assert_array_equal(read(file, "/x"), X)


def test_types_that_h5py_does_not_know(tmp_path: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        h5py.h5d.create(file.id, b"odd", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))
    with pytest.raises(DatasetError, match=r"odd\.h5:/odd cannot be read: "):
        opened(tmp_path / "odd.h5").find("/odd")
