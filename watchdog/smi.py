"""What nvidia-smi printed, as readings or as a named Unknown. Pure: text in, values out.

nvidia-smi prints `[N/A]`, half a line, a header or a sentence where a number is expected, and it
may do so with exit status 0. A row that can not be understood is refused; to guess would be to
watch the wrong number, and a 0 would blind the guard for good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from watchdog.observation import Card, Look, Reading, Unknown

MEMORY = ("nvidia-smi", "--query-gpu=uuid,memory.used,memory.total", "--format=csv,noheader,nounits")
PROCESSES = (
    "nvidia-smi",
    "--query-compute-apps=pid,gpu_uuid,used_memory",
    "--format=csv,noheader,nounits",
)
EVERYTHING = ("nvidia-smi", "-q", "-x")

# Sixteen cards are 1 KiB of rows. The long form is about 60 KiB for each card.
CSV_BYTES_MAX = 64 * 1024
XML_BYTES_MAX = 2 * 1024 * 1024

# What the tool prints instead of numbers. The exit status often says less than the text.
_SENTENCES = (
    ("GPU is lost", "off_the_bus"),
    ("Driver/library version mismatch", "driver_mismatch"),
    ("couldn't communicate with the NVIDIA driver", "driver_not_loaded"),
    ("No devices were found", "no_devices"),
    ("Failed to initialize NVML: Unknown Error", "gpu_lost"),
    ("Unknown Error", "off_the_bus"),
    ("executable file not found", "not_found"),
    ("no such file or directory", "not_found"),
    ("permission denied", "not_executable"),
    ("Insufficient Permissions", "insufficient_permissions"),
)
# The tool's own meanings (man nvidia-smi), and the shell's 126 and 127.
_STATUS = {
    2: ("bad_query", "it does not know the query"),
    3: ("not_supported", "the card does not offer this"),
    4: ("insufficient_permissions", "no permission"),
    6: ("no_devices", "no card was found"),
    8: ("no_power", "the card's power cables are not attached"),
    9: ("driver_not_loaded", "the NVIDIA driver is not loaded"),
    10: ("interrupt", "the kernel sees an interrupt problem with the card"),
    12: ("no_library", "the NVML library is missing in the container"),
    13: ("no_function", "the NVML library is too old for the tool"),
    14: ("inforom", "the card's infoROM is damaged"),
    15: ("off_the_bus", "the card has fallen off the bus"),
    126: ("not_executable", "it can not be executed"),
    127: ("not_found", "it is not in the container"),
}
_TEXT = {
    "off_the_bus": "the card has fallen off the bus; the host has to be rebooted",
    "driver_mismatch": "the driver was updated under the running system; reboot or reload the driver",
    "driver_not_loaded": "the NVIDIA driver is not loaded on the host",
    "no_devices": "the driver found no card",
    "gpu_lost": "the container lost its GPU (NVML: Unknown Error)",
    "not_found": "nvidia-smi is not in the container",
    "not_executable": "nvidia-smi can not be executed in the container",
    "insufficient_permissions": "the driver refuses the figure (Insufficient Permissions), as under MIG",
    "not_available": "the driver has no figure for this card ([N/A])",
    "garbage": "nvidia-smi printed something else than the figures",
    "empty": "nvidia-smi printed nothing",
    "too_large": "nvidia-smi printed far too much",
    "cut": "nvidia-smi's output ends in the middle of a line",
    "above_total": "more memory in use than the card has",
    "mig": "the card is split by MIG, and its parts can not be read",
}
_UUID = re.compile(r"(GPU|MIG)-[\x21-\x2b\x2d-\x7e]{1,92}")  # anything printable but a comma
_MIB = re.compile(r"\d{1,8}( MiB)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Process:
    """One process on a card, by the host's number; `used_mib` None when the driver does not say."""

    pid: int
    gpu: str
    used_mib: float | None


def unknown(cause: str) -> Unknown:
    """The cause with its sentence."""
    return Unknown(cause, _TEXT.get(cause, cause))


def readings(output: bytes, status: int) -> Look:
    """The rows of `MEMORY`, by UUID. A damaged answer is refused as a whole."""
    rows = _rows(output, status, width=3)
    if isinstance(rows, Unknown):
        return rows
    found = {uuid: _card(used, total) for uuid, used, total in rows}
    if len(found) != len(rows) or not all(map(_UUID.fullmatch, found)):
        return unknown("garbage")
    return found


def processes(output: bytes, status: int) -> tuple[Process, ...] | Unknown:
    """The rows of `PROCESSES`. No row is an answer: nobody is on the card, or nobody may be seen."""
    rows = _rows(output, status, width=3)
    if isinstance(rows, Unknown):
        return () if rows.cause == "empty" else rows
    if not all(re.fullmatch(r"\d{1,10}", pid, re.ASCII) for pid, _, _ in rows):
        return unknown("garbage")
    return tuple(Process(int(pid), uuid, _mib(used)) for pid, uuid, used in rows)


def needs_parts(look: Look) -> bool:
    """Whether a card without a figure may be one that MIG has split."""
    causes = ("not_available", "insufficient_permissions")
    unread = [] if isinstance(look, Unknown) else look.values()
    return any(isinstance(reading, Unknown) and reading.cause in causes for reading in unread)


def with_parts(look: Look, output: bytes, status: int) -> Look:
    """The look with MIG's parts, from `EVERYTHING`, in place of the cards that they are parts of."""
    if isinstance(look, Unknown) or status != 0 or len(output) > XML_BYTES_MAX:
        return look
    found: dict[str, Reading] = {}
    parts = _parts(output.decode("utf-8", "replace"))
    for uuid, reading in look.items():
        if isinstance(reading, Unknown) and uuid in parts:
            found |= parts[uuid] or {uuid: unknown("mig")}
        else:
            found[uuid] = reading
    return found


def _rows(output: bytes, status: int, width: int) -> list[list[str]] | Unknown:
    if len(output) > CSV_BYTES_MAX:
        return unknown("too_large")
    text = output.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")
    if status != 0:
        return _refusal(text, status)
    if not text.strip():
        return unknown("empty")
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    if any(len(row) != width for row in rows):
        return _sentence(text) or unknown("garbage")
    # A process that is killed while it writes leaves a number without its last digits.
    return rows if text.endswith("\n") else unknown("cut")


def _refusal(text: str, status: int) -> Unknown:
    if (found := _sentence(text)) is not None:
        return found
    cause, meaning = _STATUS.get(status, ("failed", "nvidia-smi failed"))
    shown = "".join(c for c in text.strip()[:200] if c.isprintable())
    return Unknown(cause, f"nvidia-smi: {meaning} (status {status}{': ' + shown if shown else ''})")


def _sentence(text: str) -> Unknown | None:
    return next((unknown(cause) for words, cause in _SENTENCES if words.lower() in text.lower()), None)


def _card(used: str, total: str) -> Reading:
    used_mib, total_mib = _mib(used), _mib(total)
    if used_mib is None:
        return _no_number(used)
    if total_mib is None and not _is_missing(total):
        return unknown("garbage")
    if total_mib is not None and used_mib > total_mib:
        return unknown("above_total")
    return Card(used_mib, total_mib)


def _mib(cell: str) -> float | None:
    return float(cell.removesuffix(" MiB")) if _MIB.fullmatch(cell) else None


def _is_missing(cell: str) -> bool:
    return cell.strip("[]").lower() in ("n/a", "not available", "not supported", "unknown")


def _no_number(cell: str) -> Unknown:
    return unknown("not_available") if _is_missing(cell) else _sentence(cell) or unknown("garbage")


def _parts(xml: str) -> dict[str, dict[str, Reading]]:
    """MIG's parts by card. The tool's own lines are regular enough not to need a parser."""
    found: dict[str, dict[str, Reading]] = {}
    for card in _between(xml, "gpu id=[^>]*", "gpu"):
        if "Enabled" not in "".join(_between(card, "current_mig")):
            continue
        uuid = "".join(_between(card, "uuid")[:1]).strip()
        parts = [_part(uuid, part) for part in _between(card, "mig_device")]
        found[uuid] = {name: reading for name, reading in parts if name}
    return found


def _part(uuid: str, xml: str) -> tuple[str, Reading]:
    memory = "".join(_between(xml, "fb_memory_usage")[:1])
    index, used, total = (
        "".join(_between(text, tag)[:1]).strip()
        for text, tag in ((xml, "index"), (memory, "used"), (memory, "total"))
    )
    return (f"{uuid}/{index}" if index else ""), _card(used, total)


def _between(xml: str, opening: str, closing: str = "") -> Sequence[str]:
    return re.findall(f"<{opening}>(.*?)</{closing or opening}>", xml, re.DOTALL)
