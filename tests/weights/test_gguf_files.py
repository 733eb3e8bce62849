"""A profile's GGUF files: found, fetched, gone on with, refused; through the hub's real client."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache

from sidecar.embedded import GGUF_Q4_0, GGUF_Q8_0
from sidecar.profiles import LlamaCpp
from tests.weights.machine import Machine, finished

MODEL = GGUF_Q4_0.read_bytes()
ENCODER = GGUF_Q8_0.read_bytes()
SUM = hashlib.sha256(MODEL).hexdigest()
REPO, NAME = "owner/model-GGUF", "model-Q4_0.gguf"
BLOCK = LlamaCpp(hf_repo_id=REPO, hf_filename=NAME)


def block(**fields: str) -> LlamaCpp:
    return LlamaCpp.model_validate({"hf_repo_id": REPO, "hf_filename": NAME, **fields})


def test_what_is_fetched_lies_where_the_hubs_client_looks_and_is_not_asked_for_again(
    machine: Machine,
) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    machine.environ["HF_TOKEN"] = "good"
    machine.hub.tokens.add("good")
    first = machine.fetch(BLOCK)
    assert first.files.model.read_bytes() == MODEL
    assert first.files.mmproj is None
    assert try_to_load_from_cache(REPO, NAME, cache_dir=machine.cache) == str(first.files.model)
    assert blob.served_bytes == len(MODEL)
    assert blob.authorizations == [None], "the token stays with the hub"
    fractions = [told.fraction for told in first.told[:-1]]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    asked = list(machine.hub.requests)
    assert machine.fetch(BLOCK).files == first.files
    assert machine.hub.requests == asked


def test_everything_is_here_and_there_is_no_network(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    machine.fetch(BLOCK)
    machine.environ |= {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}
    assert machine.fetch(BLOCK).files.model.read_bytes() == MODEL


def test_a_cut_line_is_gone_on_from(machine: Machine) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    blob.cuts = [200_000, 300_000]
    assert machine.fetch(BLOCK).files.model.read_bytes() == MODEL
    assert blob.ranges[0] is None
    assert all(asked and asked > "bytes=1" for asked in blob.ranges[1:])
    assert len(blob.ranges) == 3
    assert blob.served_bytes == len(MODEL)


def test_a_process_that_was_killed_is_gone_on_from(machine: Machine) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    blob.released = threading.Event()
    process = machine.start(BLOCK)
    assert process.stdout is not None
    part = machine.cache / "models--owner--model-GGUF" / "blobs" / f"{SUM}.incomplete"
    half = len(MODEL) // 2
    while not part.exists() or part.stat().st_size < half:
        assert process.poll() is None
    process.kill()
    process.communicate()
    blob.released.set()
    kept = part.stat().st_size
    assert machine.fetch(BLOCK).files.model.read_bytes() == MODEL
    assert blob.ranges[-1] == f"bytes={kept}-"


def test_a_server_without_ranges_and_one_that_is_busy(machine: Machine) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    blob.cuts, blob.busy, blob.knows_ranges = [400_000], 1, False
    outcome = machine.fetch(BLOCK)
    assert outcome.files.model.read_bytes() == MODEL
    assert "503" in outcome.log


def test_a_wrong_sum_is_named_and_removed(machine: Machine) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    blob.sent = MODEL[:-1] + bytes([MODEL[-1] ^ 1])
    outcome = machine.fetch(BLOCK)
    assert outcome.code == 65
    assert SUM in outcome.refusal
    assert hashlib.sha256(blob.sent).hexdigest() in outcome.refusal
    left = [path for path in machine.cache.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []
    blob.sent = b""
    assert machine.fetch(BLOCK).files.model.read_bytes() == MODEL


def test_the_profiles_own_sum_is_held_against_the_hubs_before_anything_is_fetched(machine: Machine) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    outcome = machine.fetch(block(sha256="0" * 64))
    assert outcome.code == 65
    assert SUM in outcome.refusal
    assert "0" * 64 in outcome.refusal
    assert blob.served_bytes == 0
    assert machine.fetch(block(sha256=SUM)).files.model.read_bytes() == MODEL


def test_another_version_in_the_cache_is_not_taken_for_the_one_with_the_sum(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: ENCODER})
    machine.fetch(BLOCK)
    machine.hub.add(REPO, {NAME: MODEL})
    assert machine.fetch(block(sha256=SUM)).files.model.read_bytes() == MODEL


def test_a_revision_is_kept_to(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL}, revision="v1")
    old = machine.hub.commit(REPO, "v1")
    machine.hub.add(REPO, {NAME: ENCODER})
    assert machine.fetch(block(hf_revision="v1")).files.model.read_bytes() == MODEL
    assert machine.fetch(block(hf_revision=old)).files.model.read_bytes() == MODEL
    assert machine.fetch(BLOCK).files.model.read_bytes() == ENCODER


@pytest.mark.parametrize(
    ("fields", "environ", "code", "words"),
    [
        ({"hf_repo_id": "o/none"}, {}, "not_on_hub", "o/none: the hub has no such repository"),
        ({"hf_repo_id": "o/none"}, {"HF_TOKEN": "good"}, "not_on_hub", "or does not show it (404)"),
        ({"hf_repo_id": "o/private"}, {}, "not_on_hub", "for a private one set HF_TOKEN"),
        ({"hf_revision": "v9"}, {}, "not_on_hub", "owner/model-GGUF@v9: the hub has no such revision"),
        ({"hf_filename": "model-q4_0.gguf"}, {}, "not_on_hub", "nearest: model-Q4_0.gguf"),
        ({"hf_repo_id": "o/gated"}, {}, "not_on_hub", "is gated (401). Ask for access on http"),
        ({"hf_repo_id": "o/gated"}, {"HF_TOKEN": "other"}, "not_on_hub", "is gated (403)"),
        ({}, {"HF_TOKEN": "bad"}, "weights_missing", "does not accept HF_TOKEN (401)"),
        ({}, {"HF_ENDPOINT": "http://127.0.0.1:1"}, "weights_missing", "no connection to http://127"),
        ({}, {"HF_HUB_OFFLINE": "1"}, "weights_missing", "HF_HUB_OFFLINE forbids"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    machine: Machine, fields: dict[str, str], environ: dict[str, str], code: str, words: str
) -> None:
    machine.hub.tokens |= {"good", "other"}
    machine.hub.add(REPO, {NAME: MODEL})
    machine.hub.add("o/gated", {NAME: MODEL}, gated=True, allowed={"good"})
    machine.hub.add("o/private", {NAME: MODEL}, token="good")
    machine.environ |= environ
    outcome = machine.fetch(block(**fields))
    assert words in outcome.refusal
    assert getattr(outcome.told[-1], "code", None) == code


def test_a_token_with_access_opens_a_gated_repository(machine: Machine) -> None:
    machine.hub.tokens.add("good")
    machine.hub.add(REPO, {NAME: MODEL}, gated=True, allowed={"good"})
    machine.environ["HF_TOKEN"] = "good"
    assert machine.fetch(BLOCK).files.model.read_bytes() == MODEL


def test_a_disk_without_room_is_named_before_the_first_byte(machine: Machine) -> None:
    """49 terabytes in 999 parts: more than any disk that this runs on has."""
    parts = machine.hub.add(REPO, {f"m-{n:05}-of-00999.gguf": b"%d" % n for n in range(1, 1000)})
    for part in parts.values():
        part.claimed_bytes = 49_000_000_000
    outcome = machine.fetch(block(hf_filename="m-00001-of-00999.gguf"))
    assert " MB free, 48951" in outcome.refusal
    assert " MB are needed" in outcome.refusal
    assert str(machine.cache) in outcome.refusal
    assert sum(part.served_bytes for part in parts.values()) == 0


def test_a_disk_that_fills_up_on_the_way(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    outcome = machine.fetch(BLOCK, largest_file_bytes=500_000)
    assert "is full" in outcome.refusal
    assert outcome.code == 66
    assert machine.fetch(BLOCK).files.model.read_bytes() == MODEL


def test_two_at_once_fetch_it_once(machine: Machine) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    blob.released = threading.Event()
    first = machine.start(BLOCK)
    part = machine.cache / "models--owner--model-GGUF" / "blobs" / f"{SUM}.incomplete"
    while not part.exists():
        assert first.poll() is None
    second = machine.start(BLOCK)
    assert second.stdout is not None
    while "waiting for another download" not in (line := second.stdout.readline()):
        assert line
    blob.released.set()
    assert finished(first).files == finished(second).files
    assert blob.served_bytes == len(MODEL)


def test_a_split_model_and_its_image_encoder_come_whole(machine: Machine, parts: dict[str, bytes]) -> None:
    blobs = machine.hub.add(REPO, {**parts, "mmproj.gguf": ENCODER})
    wanted = block(hf_filename="Q4/m-00001-of-00002.gguf", mmproj_filename="mmproj.gguf")
    files = machine.fetch(wanted).files
    assert files.model.name == "m-00001-of-00002.gguf"
    assert files.model.with_name("m-00002-of-00002.gguf").is_file()
    assert files.mmproj is not None
    assert files.mmproj.read_bytes() == ENCODER
    assert all(blob.served_bytes == len(blob.data) for blob in blobs.values())
    asked = len(machine.hub.requests)
    assert machine.fetch(wanted).files == files
    assert len(machine.hub.requests) == asked


def test_a_wrong_sum_of_the_image_encoder_is_named(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL, "mmproj.gguf": ENCODER})
    right = hashlib.sha256(ENCODER).hexdigest()
    outcome = machine.fetch(block(mmproj_filename="mmproj.gguf", mmproj_sha256=SUM))
    assert outcome.code == 65
    assert SUM in outcome.refusal
    assert right in outcome.refusal
    root = machine.folder / "gguf"
    root.mkdir()
    (root / NAME).write_bytes(MODEL)
    (root / "mmproj.gguf").write_bytes(ENCODER[:-1] + bytes([ENCODER[-1] ^ 1]))
    copied = block(model_root=str(root), mmproj_filename="mmproj.gguf", mmproj_sha256=right)
    outcome = machine.fetch(copied)
    assert (outcome.code, "mmproj.gguf" in outcome.refusal) == (65, True)
    (root / "mmproj.gguf").write_bytes(ENCODER)
    assert machine.fetch(copied).files.mmproj == root / "mmproj.gguf"


def test_a_profile_without_a_repository_fetches_nothing(machine: Machine) -> None:
    """What `hf_repo_id` is for, beside a model_root."""
    machine.hub.add(REPO, {NAME: MODEL})
    root = machine.folder / "gguf"
    alone = LlamaCpp(model_root=str(root), hf_filename=NAME)
    outcome = machine.fetch(alone)
    assert outcome.code == 66
    assert "is not here; looked in: " in outcome.refusal
    assert "name its repository in `hf_repo_id`" in outcome.refusal
    assert machine.hub.requests == []
    assert machine.fetch(alone.model_copy(update={"hf_repo_id": REPO})).files.model == root / NAME


# --- folders ------------------------------------------------------------------------------------


def test_a_model_root_gets_the_file_under_its_own_name(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    root = machine.folder / "models" / "gguf"
    files = machine.fetch(block(model_root=str(root), sha256=SUM)).files
    assert files.model == root / NAME
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == [NAME]
    assert not machine.cache.exists()


def test_llm_cache_dir_stands_for_models(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    cache_dir = machine.folder / "llm-cache"
    cache_dir.mkdir()
    files = machine.fetch(block(model_root="/models/gguf"), cache_dir=cache_dir).files
    assert files.model == cache_dir / "gguf" / NAME


def test_a_copy_below_llm_cache_dir_is_taken_for_every_profile(machine: Machine) -> None:
    copy = machine.folder / "gguf" / NAME
    copy.parent.mkdir()
    copy.write_bytes(MODEL)
    assert machine.fetch(BLOCK, cache_dir=machine.folder).files.model == copy
    own = machine.folder / "own" / NAME
    own.parent.mkdir()
    own.write_bytes(MODEL)
    rooted = block(model_root=str(own.parent))
    assert machine.fetch(rooted, cache_dir=machine.folder).files.model == own  # the profile's own place first
    assert machine.hub.requests == []


@pytest.mark.parametrize("name", [NAME, f"Q4/{NAME}"])
def test_a_copy_by_hand_is_taken_without_asking_anybody(machine: Machine, name: str) -> None:
    root = machine.folder / "gguf"
    root.mkdir()
    (root / NAME).write_bytes(MODEL)
    files = machine.fetch(block(model_root=str(root), hf_filename=name, sha256=SUM)).files
    assert files.model == root / NAME
    assert machine.hub.requests == []


def test_a_copy_by_hand_that_is_cut_or_another_is_refused_and_left_alone(machine: Machine) -> None:
    path = machine.folder / NAME
    path.write_bytes(MODEL[:500_000])
    outcome = machine.fetch(block(model_root=str(machine.folder)))
    assert f"is truncated: has 500000 of {len(MODEL)} bytes" in outcome.refusal
    path.write_bytes(ENCODER)
    outcome = machine.fetch(block(model_root=str(machine.folder), sha256=SUM))
    assert SUM in outcome.refusal
    assert path.read_bytes() == ENCODER


def test_a_sum_is_counted_once_and_again_when_the_file_was_touched(machine: Machine) -> None:
    path = machine.folder / NAME
    path.write_bytes(MODEL)
    wanted = block(model_root=str(machine.folder), sha256=SUM)
    assert "checking" in " ".join(machine.fetch(wanted).details)
    assert "checking" not in " ".join(machine.fetch(wanted).details)
    path.write_bytes(ENCODER)
    assert SUM in machine.fetch(wanted).refusal


def test_nowhere_and_no_repository_says_where_it_looked(machine: Machine) -> None:
    wanted = LlamaCpp(hf_filename=NAME, model_root="/models/gguf")
    refusal = machine.fetch(wanted, cache_dir=machine.folder).refusal
    for words in (str(machine.folder / "gguf"), "/models/gguf", "Copy", "hf_repo_id", "MODEL_PATH"):
        assert words in refusal


# --- files that are given -----------------------------------------------------------------------


def test_the_embedded_model_and_a_path_of_the_profile(machine: Machine) -> None:
    assert machine.fetch(LlamaCpp(model_path="embedded")).files.model == GGUF_Q8_0
    given = machine.folder / "given.gguf"
    given.write_bytes(MODEL)
    wanted = block(model_path=str(given), sha256=SUM, model_root="/models")
    assert machine.fetch(wanted).files.model == given
    assert machine.hub.requests == []


def test_a_path_through_latest(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    found = machine.fetch(BLOCK).files.model
    latest = found.parents[1] / "latest" / NAME
    assert machine.fetch(LlamaCpp(model_path=str(latest))).files.model == found


def test_the_image_encoder_beside_a_given_file(machine: Machine) -> None:
    machine.hub.add(REPO, {"mmproj.gguf": ENCODER})
    given = machine.folder / "given.gguf"
    given.write_bytes(MODEL)
    wanted = block(model_path=str(given), mmproj_filename="mmproj.gguf")
    fetched = machine.fetch(wanted).files
    assert fetched.model == given
    assert fetched.mmproj is not None
    assert machine.cache in fetched.mmproj.parents
    (machine.folder / "mmproj.gguf").write_bytes(ENCODER)
    assert machine.fetch(wanted).files.mmproj == machine.folder / "mmproj.gguf"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/models/model.gguf", "/models/model.gguf (MODEL_PATH, or the profile's model_path) is not there"),
        (str(Path(__file__).parent), "is a folder; a .gguf file is expected"),
        (
            "/data/.huggingface/hub/models--Qwen--Q-GGUF/snapshots/latest/q.gguf",
            "`hf download Qwen/Q-GGUF q.gguf` puts it there",
        ),
        (__file__, "not a GGUF file"),
    ],
)
def test_a_given_path_that_can_not_be_used(machine: Machine, path: str, words: str) -> None:
    assert words in machine.fetch(LlamaCpp(model_path=path)).refusal


def test_the_cache_that_an_image_carries(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    machine.fetch(BLOCK)
    (machine.folder / "hf").rename(machine.folder / "carried")
    machine.environ["PRELOADED_MODELS"] = str(machine.folder / "carried")
    asked = len(machine.hub.requests)
    assert machine.folder / "carried" in machine.fetch(BLOCK).files.model.parents
    assert len(machine.hub.requests) == asked
