"""Measure what a C source takes on a machine: the sections of its compiled object."""

import pathlib
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_WRITABLE, _ALLOCATED, _EXECUTABLE, _NO_BITS = 1, 2, 4, 8
"""The flags of sections, and the type of one that a file has no bytes for."""


class ObjectSize(NamedTuple):
    """The bytes of an object's sections.

    Attributes:
        text: The program.
        rodata: Constants: the weights.
        data: Variables with a start.
        bss: Variables without one: the memory between layers.
    """

    text: int
    rodata: int
    data: int
    bss: int

    @property
    def flash(self) -> int:
        """The bytes of read-only memory."""
        return self.text + self.rodata + self.data

    @property
    def ram(self) -> int:
        """The bytes of memory, without the stack."""
        return self.data + self.bss

    def __str__(self) -> str:
        return (
            f"flash {self.flash:,} bytes (program {self.text:,}, constants "
            f"{self.rodata + self.data:,}), RAM {self.ram:,} bytes"
        )


def object_size(
    source: pathlib.Path, compiler: str = "cc", options: Sequence[str] = ("-Os",)
) -> ObjectSize | None:
    """Return the sizes of a compiled source; None where the object is no ELF file.

    Args:
        source: The C file; its headers lie beside it.
        compiler: The compiler, which may be one for another machine.
        options: The compiler's options.

    Raises:
        RuntimeError: The source does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "object.o"
        # Tables for unwinding the stack are not for machines without exceptions.
        always = ["-std=c99", "-fno-asynchronous-unwind-tables", "-c", str(source), "-o", str(path)]
        process = subprocess.run([compiler, *options, *always], capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(f"{compiler} says {process.stderr.strip().splitlines()[0]}")
        return _size_of_elf(path.read_bytes())


class _Section(NamedTuple):
    kind: int
    flags: int
    size: int


def _size_of_elf(data: bytes) -> ObjectSize | None:
    """Return the sizes of sections that are loaded."""
    if data[:4] != b"\x7fELF":
        return None
    sizes = {"text": 0, "rodata": 0, "data": 0, "bss": 0}
    for section in _sections(data):
        if not section.flags & _ALLOCATED:
            continue
        if section.flags & _EXECUTABLE:
            name = "text"
        elif section.kind == _NO_BITS:
            name = "bss"
        else:
            name = "data" if section.flags & _WRITABLE else "rodata"
        sizes[name] += section.size
    return ObjectSize(**sizes)


def _sections(data: bytes) -> Iterator[_Section]:
    """Yield the sections of an ELF file. Source: the System V ABI, "Object files"."""
    is_64, order = data[4] == 2, "<" if data[5] == 1 else ">"
    (start,) = struct.unpack_from(order + ("Q" if is_64 else "I"), data, 40 if is_64 else 32)
    length, count = struct.unpack_from(order + "HH", data, 58 if is_64 else 46)
    layout = order + ("IIQQQQ" if is_64 else "IIIIII")
    for index in range(count):
        _, kind, flags, _, _, size = struct.unpack_from(layout, data, start + index * length)
        yield _Section(kind, flags, size)
