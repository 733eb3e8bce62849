"""How llama-server gets into its image: refused archives, and a program that runs from one folder."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "docker" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A .tar.gz without llama.cpp."""
    (tmp_path / "CMakeLists.txt").write_text('project("something else")\n')
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as made:
        made.add(tmp_path / "CMakeLists.txt", "tree/CMakeLists.txt")
    return tmp_path / "source.tar.gz"


def test_another_archive_than_the_pinned_one_is_refused(archive: Path, tmp_path: Path) -> None:
    done = run("build-llamacpp.sh", archive, "0" * 64, tmp_path / "out")
    assert done.returncode == 65
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in done.stderr
    assert "LLAMA_CPP_SHA256" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_archive_without_llama_cpp_is_refused(archive: Path, tmp_path: Path) -> None:
    done = run(
        "build-llamacpp.sh", archive, hashlib.sha256(archive.read_bytes()).hexdigest(), tmp_path / "out"
    )
    assert done.returncode == 65
    assert "holds no llama.cpp" in done.stderr


def test_a_bundle_runs_with_its_own_libraries(tmp_path: Path) -> None:
    done = run("bundle-llamacpp.sh", tmp_path / "made", "/bin/true")
    assert done.returncode == 0, done.stderr
    moved = (tmp_path / "made").rename(tmp_path / "moved")
    there = {path.name for path in moved.iterdir()}
    assert {"run", "llama-server", "libc.so.6"} <= there
    assert any(name.startswith("ld-linux") for name in there)
    said = subprocess.run([moved / "run", "--version"], capture_output=True, text=True, check=True).stdout
    assert "true" in said


def test_a_bundle_lacks_nothing_silently(tmp_path: Path) -> None:
    """A library that can not be found is named, before anything is run."""
    program, library = tmp_path / "llama-server", tmp_path / "libabsent.so"
    absent = "int absent(void) { return 0; }"
    caller = "int absent(void); int main(void) { return absent(); }"
    subprocess.run(["cc", "-shared", "-xc", "-", "-o", library], input=absent, text=True, check=True)
    command = ["cc", "-xc", "-", "-o", program, f"-L{tmp_path}", "-labsent"]
    subprocess.run(command, input=caller, text=True, check=True)
    library.unlink()
    done = run("bundle-llamacpp.sh", tmp_path / "made", program)
    assert done.returncode == 66
    assert "libabsent.so" in done.stderr


def test_a_program_of_another_c_library_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    subprocess.run(
        ["cc", "-static", "-nostdlib", "-xc", "-", "-o", program],
        input="void _start(void) {}",
        text=True,
        check=True,
    )
    done = run("bundle-llamacpp.sh", tmp_path / "made", program)
    assert done.returncode == 66
    assert "glibc" in done.stderr
