"""Together AI, then OpenAI, behind the door, while ours can not answer: stand-ins that are wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.program import until
from tests.fakes.hosted_provider import ANSWER, HostedProvider, hosted_provider
from tests.faults.clients import Outcome
from tests.stack.door import Door, litellm

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
TOGETHER, OPENAI = "fallback-together", "fallback-openai"
TOGETHER_KEY, OPENAI_KEY = "sk-together-canary", "sk-openai-canary"
BEGIN_S = 2
# Longer than the door waits by itself.
RETRY_S = 5


@dataclass
class Stage:
    """The door, and who stands behind it."""

    door: Door
    ours: HostedProvider
    together: HostedProvider
    openai: HostedProvider

    def be(self, together: str, second: str = "") -> Stage:
        """As if they were new, each like its words; ours breaks every connection off."""
        self.ours.become("hangup")
        self.together.become(*together.split())
        self.openai.become(*second.split())
        return self

    def ask(self, stream: bool) -> Outcome:
        """What becomes of one request."""
        return asyncio.run(self.door.asked(self.door.ask(stream=stream)))

    @property
    def asked(self) -> list[str]:
        return [TOGETHER] * len(self.together.asked) + [OPENAI] * len(self.openai.asked)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("providers")
    with (
        hosted_provider() as ours,
        hosted_provider() as together,
        hosted_provider() as second,
        litellm(folder, [ours.url.removesuffix("/v1")], **_account(together, second)) as port,
    ):
        yield Stage(Door(port, []), ours, together, second)


@pytest.mark.parametrize("stream", [True, False])
def test_together_is_asked_first_and_nobody_else_when_it_answers(stage: Stage, stream: bool) -> None:
    found = stage.be("").ask(stream)
    assert (found.kind, found.texts) == ("complete", (ANSWER,))
    assert found.headers["x-litellm-model-id"] == TOGETHER
    assert stage.asked == [TOGETHER]
    assert stage.together.asked[0].key == TOGETHER_KEY


@pytest.mark.parametrize(
    ("fault", "stream"),
    [("hangup", True), ("mute", True), ("mute", False), ("status:401", False), ("status:429", True)],
)
def test_openai_answers_what_together_can_not(stage: Stage, fault: str, stream: bool) -> None:
    found = stage.be(fault).ask(stream)
    assert (found.kind, found.texts) == ("complete", (ANSWER,))
    assert found.headers["x-litellm-model-id"] == OPENAI
    assert stage.asked == [TOGETHER, OPENAI]
    assert stage.openai.asked[0].key == OPENAI_KEY


def test_one_that_is_slow_to_begin_is_waited_for(stage: Stage) -> None:
    found = stage.be(f"slow:{BEGIN_S / 4}").ask(stream=True)
    assert (found.kind, found.headers["x-litellm-model-id"]) == ("complete", TOGETHER)


def test_behind_the_first_word_nobody_else_is_asked(stage: Stage) -> None:
    """The pause gives the words time to be passed on; what breaks off before is as if it was never said."""
    found = stage.be("pause:0.5 cut:2").ask(stream=True)
    assert (found.kind, found.status) == ("error", 200)
    assert stage.asked == [TOGETHER]


@pytest.mark.parametrize(("fault", "stream"), [("hangup", True), ("status:401", False)])
def test_where_neither_can_the_error_is_our_own(stage: Stage, fault: str, stream: bool) -> None:
    """A provider's 401 would send the client to look at its own key, and repeats a part of ours."""
    body = stage.be(fault, fault).door.ask(stream=stream).body
    found = httpx.post(f"http://127.0.0.1:{stage.door.port}/v1/chat/completions", json=body, timeout=60)
    # The connection's end, or, right behind another such request, that all are left alone for a moment.
    assert found.status_code in (500, 429)
    assert "canary" not in found.text
    assert stage.asked == [TOGETHER, OPENAI]


@pytest.mark.parametrize("stream", [True, False])
def test_one_of_ours_that_is_busy_is_asked_again_when_it_said(stage: Stage, stream: bool) -> None:
    # The door leaves it alone for a moment after the tests before, which would spend this one's repeats.
    stage.be("").ours.become()
    until(lambda: stage.ask(stream).headers.get("x-litellm-model-id") == "gpu-server-1", "ours answers")
    stage.be("").ours.become("status:429", f"retry:{RETRY_S}")
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        asking = pool.submit(stage.ask, stream)
        until(lambda: bool(_chats(stage.ours)), "it was asked")
        stage.ours.words = ()
        found = asking.result()
    assert (found.kind, found.headers["x-litellm-model-id"]) == ("complete", "gpu-server-1")
    assert RETRY_S <= time.monotonic() - began < 3 * RETRY_S
    assert (_chats(stage.ours), stage.asked) == (2, [])


def _account(together: HostedProvider, second: HostedProvider) -> dict[str, str]:
    both = (("TOGETHER", TOGETHER_KEY, together), ("OPENAI", OPENAI_KEY, second))
    found = {"FALLBACK": "1", "FALLBACK_PER_HOUR": "1000", "FALLBACK_TIMEOUT": str(BEGIN_S)}
    for name, key, provider in both:
        found |= {f"{name}_API_KEY": key, f"{name}_MODEL": "theirs", f"{name}_BASE_URL": provider.url}
    return found


def _chats(provider: HostedProvider) -> int:
    """How many; the door looks at /readyz too."""
    return sum(asked.path.endswith("/chat/completions") for asked in provider.asked)
