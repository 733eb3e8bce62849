"""GGUF headers: what is read of good ones, what is said of bad ones, and that bad ones cost nothing."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import gguf
from sidecar.embedded import GGUF_Q4_0, GGUF_Q8_0
from sidecar.errors import WeightsDamaged, WeightsMissing

WHOLE = GGUF_Q8_0.read_bytes()
HEADER_BYTES = gguf.check(GGUF_Q8_0).data_offset


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(*entries: bytes, tensors: tuple[bytes, ...] = (), version: int = 3, data: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries + tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def read(data: bytes) -> gguf.GgufHeader:
    return gguf.read(io.BytesIO(data), len(data), "x.gguf")


@pytest.mark.parametrize("path", [GGUF_Q8_0, GGUF_Q4_0], ids=lambda path: path.stem)
def test_the_embedded_models_read_as_the_reference_reads_them(path: Path) -> None:
    header, theirs = gguf.check(path), GGUFReader(path)
    assert header.architecture == "llama"
    assert header.block_count == theirs.fields["llama.block_count"].contents()
    assert header.context_length == theirs.fields["llama.context_length"].contents()
    assert header.has_chat_template
    assert header.lengths["tokenizer.ggml.tokens"] == len(theirs.fields["tokenizer.ggml.tokens"].data)
    assert {t.name: t.size_bytes for t in header.tensors} == {t.name: t.n_bytes for t in theirs.tensors}
    assert {header.data_offset + t.offset for t in header.tensors} == {t.data_offset for t in theirs.tensors}
    assert header.needed_bytes == path.stat().st_size


def test_block_sizes_are_those_of_the_reference() -> None:
    theirs = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in gguf.BLOCKS} == gguf.BLOCKS


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a GGUF file (it is empty)"),
        (b"GG", "not a GGUF file (begins with b'GG')"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(99), "only GGUF files are loaded"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1 is not known, only 2 and 3"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "GGUF version 9 is not known"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF\x03\x00", "is truncated: its header goes on behind the file's 6 bytes"),
        (WHOLE[:1000], "is truncated: its header goes on behind the file's 1000 bytes"),
        (WHOLE[:HEADER_BYTES], f"is truncated: has {HEADER_BYTES} of {len(WHOLE)} bytes"),
        (WHOLE[:-1], f"is truncated: has {len(WHOLE) - 1} of {len(WHOLE)} bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensors"),
        (file(entry("k", 77, b"")), "'k' is of type 77"),
        (file(entry("k", 9, struct.pack("<IQ", 9, 1))), "'k' is an array of type 9"),
        (file(entry("k", 9, struct.pack("<IQ", 8, 2**40))), "'k' has 1099511627776 texts"),
        (file(entry("k", 9, struct.pack("<IQ", 0, 2**40))), "is truncated"),
        (file(entry("general.alignment", 4, struct.pack("<I", 24))), "general.alignment is 24"),
        (file(entry("general.alignment", 4, struct.pack("<I", 0))), "general.alignment is 0"),
        (file(tensors=(tensor("t", (1,) * 5, 0),)), "'t' has 5 dimensions"),
        (file(tensors=(tensor("t", (33,), 8),)), "'t' of type 8 has rows of 33 elements"),
        (file(tensors=(tensor("t", (64,), 8),), data=67), "of "),
    ],
)
def test_what_is_wrong_is_named_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(WeightsDamaged) as error:
        read(data)
    assert words in error.value.message
    assert error.value.message.startswith("x.gguf")
    assert "\n" not in error.value.message
    assert error.value.exit_code == 65


def test_a_type_that_is_newer_than_the_table_is_not_refused() -> None:
    header = read(file(tensors=(tensor("old", (64,), 8), tensor("new", (7,), 999, 96)), data=96))
    assert [t.size_bytes for t in header.tensors] == [68, None]
    assert header.needed_bytes == header.data_offset + 96


def test_version_2_short_arrays_and_long_ones() -> None:
    numbers = struct.pack("<IQ3I", 4, 3, 8, 8, 4)
    long = struct.pack("<IQ", 0, 5000) + bytes(5000)
    header = read(file(entry("heads", 9, numbers), entry("mask", 9, long), version=2))
    assert header.version == 2
    assert header.metadata == {"heads": (8, 8, 4)}
    assert header.lengths == {"heads": 3, "mask": 5000}
    assert (header.architecture, header.context_length, header.part_count) == ("", None, 1)


def harmless(data: bytes) -> None:
    """Reads it, or says what is wrong with it, soon and without keeping much."""
    tracemalloc.start()
    began = time.process_time()
    try:
        read(data)
    except WeightsDamaged as error:
        assert "\n" not in error.message
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.process_time() - began < 2
    assert peak < 16 * 1024 * 1024


@settings(deadline=None)  # `harmless` has its own, of processor time
@given(st.integers(0, HEADER_BYTES))
def test_a_header_that_is_cut_anywhere_is_named(length: int) -> None:
    with pytest.raises(WeightsDamaged):
        read(WHOLE[:length])
    harmless(WHOLE[:length])


@settings(deadline=None)  # `harmless` has its own, of processor time
@given(st.lists(st.tuples(st.integers(0, HEADER_BYTES - 9), st.binary(min_size=1, max_size=8)), max_size=5))
def test_no_change_of_the_header_does_harm(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for at, new in changes:
        data[at : at + len(new)] = new
    harmless(bytes(data))


@settings(deadline=None)  # `harmless` has its own, of processor time
@given(st.binary(max_size=400))
def test_no_bytes_behind_the_magic_do_harm(data: bytes) -> None:
    harmless(b"GGUF" + struct.pack("<I", 3) + data)


def test_names_of_parts() -> None:
    assert gguf.part_names("m.gguf") == ("m.gguf",)
    assert gguf.part_names("m-00002-of-00003.gguf") == tuple(f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    assert gguf.part_names("m-00004-of-00003.gguf") == ("m-00004-of-00003.gguf",)


@pytest.fixture
def parts(tmp_path: Path) -> Callable[[int, int], Path]:
    """Writes that many parts which say that they are so many; the first one."""

    def write(count: int, said: int) -> Path:
        names = gguf.part_names(f"m-00001-of-{count:05}.gguf")
        for name in names:
            (tmp_path / name).write_bytes(file(entry("split.count", 2, struct.pack("<H", said))))
        return tmp_path / names[0]

    return write


def test_a_split_model_needs_all_of_its_parts(parts: Callable[[int, int], Path]) -> None:
    first = parts(3, 3)
    assert gguf.check(first).part_count == 3
    (first.parent / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(WeightsMissing, match=r"lacks m-00002-of-00003\.gguf; put it there\.$"):
        gguf.check(first)
    with pytest.raises(WeightsMissing, match=r"lacks m-00002-of-00003\.gguf; `come` fetches it, or put"):
        gguf.check(first, "come")


def test_a_part_that_is_cut_and_a_part_with_another_name(parts: Callable[[int, int], Path]) -> None:
    first = parts(2, 2)
    first.rename(first.with_name("renamed.gguf"))
    with pytest.raises(WeightsDamaged, match="one of 2 parts"):
        gguf.check(first.with_name("renamed.gguf"))
    first = parts(2, 2)
    first.with_name("m-00002-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsDamaged, match="m-00002"):
        gguf.check(first)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="lacks none"):
        gguf.check(tmp_path / "none.gguf")
