"""What it costs to turn a request into bytes and back: the wire's frames against general formats.

    python benchmarks/wire.py [--quick]

Each format carries the same request, six integers and one (n, 8) float64 array, and must give back both before
anything is timed. Rounds go around all formats in turn, so that a busy machine disturbs all alike; medians of the
rounds are shown. "By reference" is what MPI is given: a large array is not copied on either side.
"""

from __future__ import annotations

import argparse
import gc
import pickle
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import print_table, report

from demos_hpc import wire

COLUMNS = 8
#: kind, operation, model, id, n_rows, seed
Fields = tuple[int, int, int, int, int, int]
FIELDS: Fields = (1, 1, 2, 2**40 + 7, 0, 2**63 + 1)
NAMES = ("kind", "operation", "model", "id", "n_rows", "seed")


class Format(NamedTuple):
    """``size`` gives the bytes of what ``encode`` made."""

    name: str
    encode: Callable[[Fields, Any], Any]
    decode: Callable[[Any], tuple[Fields, Any]]
    size: Callable[[Any], int] = len


def demos() -> Iterator[Format]:
    def encode(fields: Fields, x: Any) -> wire.Packed:
        kind, operation, model, id_, n_rows, seed = fields
        return wire.pack(kind, [x], operation=operation, model=model, id=id_, n_rows=n_rows, seed=seed)

    def decode(packed: wire.Packed) -> tuple[Fields, Any]:
        header = wire.read_header(packed.head)
        arrays = None
        if packed.tail:  # the transport has received them in place
            wire.read_layout(header, packed.head)
            arrays = list(packed.tail)
        array = wire.Frame(header, packed.head, 0, arrays).arrays[0]
        return (header.kind, header.operation, header.model, header.id, header.n_rows, header.seed), array

    def size(packed: wire.Packed) -> int:
        return len(packed.head) + sum(array.nbytes for array in packed.tail)

    def encode_joined(fields: Fields, x: Any) -> bytearray:
        packed = encode(fields, x)
        return bytearray().join([packed.head, *packed.tail]) if packed.tail else packed.head

    def decode_joined(message: bytearray) -> tuple[Fields, Any]:
        return decode(wire.Packed(message, ()))

    yield Format("demos-hpc, by reference", encode, decode, size)
    yield Format("demos-hpc, one buffer", encode_joined, decode_joined)


def pickle5() -> Iterator[Format]:
    def encode(fields: Fields, x: Any) -> bytes:
        return pickle.dumps((fields, x), protocol=5)

    yield Format("pickle 5 (unsafe)", encode, pickle.loads)


def messagepack() -> Iterator[Format]:
    import msgpack

    def encode(fields: Fields, x: Any) -> bytes:
        return msgpack.packb((*fields, x.shape, memoryview(x).cast("B")))

    def decode(message: bytes) -> tuple[Fields, Any]:
        *fields, shape, data = msgpack.unpackb(message)
        return tuple(fields), np.frombuffer(data).reshape(shape)  # type: ignore[return-value]

    yield Format("MessagePack", encode, decode)


def protobuf() -> Iterator[Format]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="request.proto", package="bench", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, data_type, label in (
        ("Bytes", kinds.TYPE_BYTES, kinds.LABEL_OPTIONAL),
        ("Doubles", kinds.TYPE_DOUBLE, kinds.LABEL_REPEATED),
    ):
        message = file.message_type.add(name=name)
        for number, field in enumerate(NAMES, 1):
            message.field.add(name=field, number=number, type=kinds.TYPE_UINT64, label=kinds.LABEL_OPTIONAL)
        message.field.add(name="shape", number=7, type=kinds.TYPE_UINT64, label=kinds.LABEL_REPEATED)
        message.field.add(name="data", number=8, type=data_type, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def with_class(name: str, to_field: Callable[[Any], Any], to_array: Callable[[Any], Any]) -> tuple[Any, Any]:
        make = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}"))

        def encode(fields: Fields, x: Any) -> bytes:
            kind, operation, model, id_, n_rows, seed = fields
            return make(
                kind=kind, operation=operation, model=model, id=id_, n_rows=n_rows, seed=seed,
                shape=x.shape, data=to_field(x),
            ).SerializeToString()  # fmt: skip

        def decode(message: bytes) -> tuple[Fields, Any]:
            m = make.FromString(message)
            fields = (m.kind, m.operation, m.model, m.id, m.n_rows, m.seed)
            return fields, to_array(m.data).reshape(m.shape)

        return encode, decode

    yield Format("Protocol Buffers, bytes", *with_class("Bytes", lambda x: x.tobytes(), np.frombuffer))
    yield Format("Protocol Buffers, doubles", *with_class("Doubles", lambda x: x.ravel().tolist(), np.array))


def flatbuffer() -> Iterator[Format]:
    import flatbuffers
    from flatbuffers import encode as reading
    from flatbuffers import number_types, packer
    from flatbuffers.table import Table

    slots = [4 + 2 * i for i in range(len(NAMES) + 2)]  # where a table's vtable has its fields

    def encode(fields: Fields, x: Any) -> bytearray:
        builder = flatbuffers.Builder(x.nbytes + 256)
        data = builder.CreateNumpyVector(x.reshape(-1))
        shape = builder.CreateNumpyVector(np.array(x.shape, dtype=np.uint64))
        builder.StartObject(len(slots))
        for i, value in enumerate(fields):
            builder.PrependUint64Slot(i, value, 0)
        builder.PrependUOffsetTRelativeSlot(6, shape, 0)
        builder.PrependUOffsetTRelativeSlot(7, data, 0)
        builder.Finish(builder.EndObject())
        return builder.Output()

    def decode(message: bytearray) -> tuple[Fields, Any]:
        table = Table(message, reading.Get(packer.uoffset, message, 0))
        fields = tuple(
            table.Get(number_types.Uint64Flags, table.Pos + offset) if (offset := table.Offset(slot)) else 0
            for slot in slots[:6]
        )
        shape = table.GetVectorAsNumpy(number_types.Uint64Flags, table.Offset(slots[6]))
        data = table.GetVectorAsNumpy(number_types.Float64Flags, table.Offset(slots[7]))
        return fields, data.reshape(shape)  # type: ignore[return-value]

    yield Format("FlatBuffers", encode, decode)


def capnproto() -> Iterator[Format]:
    import capnp

    members = [f"  {name.replace('_r', 'R')} @{i} :UInt64;" for i, name in enumerate(NAMES)]
    lines = ["@0xbf5147cbbecf40c1;", "struct Request {", *members, "  shape @6 :List(UInt64);", "  data @7 :Data;", "}"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "request.capnp")
        path.write_text("\n".join(lines), encoding="utf-8")
        schema = capnp.load(str(path))

    def encode(fields: Fields, x: Any) -> bytes:
        kind, operation, model, id_, n_rows, seed = fields
        message = schema.Request.new_message(
            kind=kind, operation=operation, model=model, id=id_, nRows=n_rows, seed=seed,
            shape=list(x.shape), data=x.tobytes(),
        )  # fmt: skip
        return message.to_bytes()

    def decode(message: bytes) -> tuple[Fields, Any]:
        with schema.Request.from_bytes(message, traversal_limit_in_words=2**60) as m:
            fields = (m.kind, m.operation, m.model, m.id, m.nRows, m.seed)
            return fields, np.frombuffer(m.data).reshape(list(m.shape))

    yield Format("Cap'n Proto", encode, decode)


def all_formats() -> list[Format]:
    """Those whose package is installed; the others are named."""
    formats: list[Format] = []
    for make in (demos, pickle5, messagepack, protobuf, flatbuffer, capnproto):
        try:
            formats += make()
        except ImportError as error:
            print(f"left out, not installed: {error.name}")
    return formats


def check(form: Format, fields: Fields, x: Any) -> None:
    got, array = form.decode(form.encode(fields, x))
    if got != fields or array.dtype != x.dtype or not np.array_equal(array, x):
        raise SystemExit(f"{form.name} does not give back what it was given")


def seconds(function: Callable[[], object], repeat: int) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        function()
    return (time.perf_counter() - start) / repeat


def measure(formats: list[Format], n: int, rounds: int, round_seconds: float) -> dict[str, dict[str, float]]:
    """For each format: microseconds to encode and to decode, and the bytes that come on top of the array."""
    x = np.random.default_rng(1).standard_normal((n, COLUMNS))
    fields = (*FIELDS[:4], n, FIELDS[5])
    tasks: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {}
    figures: dict[str, dict[str, float]] = {}
    for form in formats:
        check(form, fields, x)
        message = form.encode(fields, x)
        figures[form.name] = {"overhead_bytes": form.size(message) - x.nbytes}

        def encode(form: Format = form) -> object:
            return form.encode(fields, x)

        def decode(form: Format = form, message: Any = message) -> object:
            return form.decode(message)

        once = seconds(encode, 1) + seconds(decode, 1)
        tasks[form.name] = encode, decode, max(1, int(round_seconds / once))
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in tasks}
    for _ in range(rounds):
        for name, (encode, decode, repeat) in tasks.items():
            times[name][0].append(seconds(encode, repeat))
            times[name][1].append(seconds(decode, repeat))
    for name, (encoding, decoding) in times.items():
        figures[name]["encode_us"] = 1e6 * statistics.median(encoding)
        figures[name]["decode_us"] = 1e6 * statistics.median(decoding)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, up to 10,000 rows")
    quick = parser.parse_args().quick
    formats = all_formats()
    print(", ".join(find_versions()))
    table: list[list[object]] = []
    figures: dict[str, float] = {}
    gc.disable()
    for n in (1, 100, 10_000) if quick else (1, 100, 10_000, 1_000_000):
        rounds = 5 if quick or n > 10_000 else 25
        for name, f in measure(formats, n, rounds, 2e-3 if quick else 1e-2).items():
            encode, decode, more = f["encode_us"], f["decode_us"], f["overhead_bytes"]
            table.append([name, f"{n:,}", f"{encode:.2f}", f"{decode:.2f}", f"{encode + decode:.2f}", f"{more:.0f}"])
            key = re.sub(r"\W+", "_", name.lower()).strip("_")
            figures |= {f"{key}_encode_us_{n}": encode, f"{key}_decode_us_{n}": decode}
        gc.collect()
    print_table(["format", "rows", "encode/us", "decode/us", "sum/us", "overhead/B"], table)
    report("wire", figures)


def find_versions() -> list[str]:
    found = []
    for name in ("numpy", "msgpack", "protobuf", "flatbuffers", "pycapnp"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found


if __name__ == "__main__":
    main()
