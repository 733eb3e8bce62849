"""Whether the kernel killed for memory, as its files say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.engines.killed import memory_words, oom_kills

V2 = {"proc/self/cgroup": "0::/app.slice", "sys/fs/cgroup/app.slice/memory.events": "oom 3\noom_kill 2\n"}
V1 = {
    "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/x\n",
    "sys/fs/cgroup/memory/docker/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
}
INSIDE = {
    "proc/self/cgroup": "0::/../outside",
    "sys/fs/cgroup/memory.events": "low 0\noom_kill 5\n",
}
MACHINE = {"proc/vmstat": "nr_free_pages 7\noom_kill 6\n"}


@pytest.mark.parametrize(
    ("files", "kills"),
    [(V2, 2), (V1, 4), (INSIDE, 5), (MACHINE, 6), ({**MACHINE, **V2}, 2), ({}, 0)],
)
def test_the_nearest_counter_counts(tmp_path: Path, files: dict[str, str], kills: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == kills


@pytest.mark.parametrize(
    ("exit_code", "tail", "kills", "words"),
    [
        (-9, "", 1, "the kernel killed it"),
        (-9, "", 0, ""),  # somebody did
        (-15, "", 1, ""),
        (-6, "what():  std::bad_alloc", 0, "it ended itself because memory ran out (std::bad_alloc)"),
        (-6, "memory allocation of 4096 bytes failed", 0, "(memory allocation of 4096 bytes failed)"),
        (1, "Traceback\nMemoryError", 0, "(MemoryError)"),
        (1, "ValueError: no", 0, ""),
        (0, "std::bad_alloc", 0, ""),
    ],
)
def test_only_what_died_of_memory_is_said_to(exit_code: int, tail: str, kills: int, words: str) -> None:
    said = memory_words(exit_code, tail, kills)
    assert words in said
    assert bool(said) == bool(words)
