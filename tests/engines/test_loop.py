"""The loop against `generate`, and against everything that kills other loops."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from sidecar.generation import Sampling
from sidecar.ledger import Ledger
from sidecar.worker import load as loading
from sidecar.worker.loop import StickyError
from sidecar.worker.messages import Released, Step, Trim, Trimmed
from sidecar.worker.model import Model
from tests.engines.conftest import config
from tests.engines.driver import GREEDY, Driver

SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("mistral", {"sliding_window": 24}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    ("qwen3", {}),
]


def prompts(count: int, longest: int, seed: int = 1) -> list[list[int]]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=g).tolist()
    return [torch.randint(0, 256, (n,), generator=g).tolist() for n in lengths]


def generated(folder: Path, ids: list[int], count: int) -> list[int]:
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    out = reference.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize(("kind", "changes"), SHAPES, ids=str)
def test_tokens_are_those_of_generate(
    kind: str, changes: dict[str, Any], make_checkpoint: Callable[..., Path]
) -> None:
    """Ragged prompts, chunked prefill beside decode, shared prefixes, cancellations in between."""
    folder = make_checkpoint(kind, **changes)
    driver = Driver(loading.load(config(folder), lambda *_: None))
    plain = prompts(6, 100)
    shared = [plain[0] * 3, plain[0] * 3 + [5], plain[0] * 3 + plain[1]]
    for index, ids in enumerate([*plain, *shared]):
        driver.begin(str(index), ids, 12, logprobs=0)
        driver.begin(f"gone-{index}", [*ids, 7], 30)
        driver.turns(1)
        if index % 2:
            driver.cancel(f"gone-{index}")
    driver.finish()
    for index, ids in enumerate([*plain, *shared]):
        assert driver.ids(str(index)) == generated(folder, ids, 12), f"prompt {index} of {len(ids)} tokens"
    assert driver.loop.blocks.used == 0


def test_a_trim_is_measured_and_answers_go_on(model: Model) -> None:
    driver = Driver(model)
    driver.begin("a", [1, 2, 3], 8)
    driver.turns(2)
    driver.loop.arrivals.put(Trim())
    driver.finish()
    (told,) = [message for message in driver.sent if isinstance(message, Trimmed)]
    assert told.stats.resident_bytes > 0
    assert told.stats.pages_used > 0
    assert driver.released("a").code is None


def test_every_answer_is_the_same_alone_and_in_a_crowd(model: Model) -> None:
    """Greedy and seeded, at 32 streams."""
    kinds = [
        GREEDY,
        Sampling(seed=5),
        Sampling(seed=5, top_k=20),
        Sampling(seed=9, top_p=0.9, temperature=1.3),
    ]
    cases = [(ids, kinds[i % 4]) for i, ids in enumerate(prompts(32, 40, seed=4))]
    crowd = Driver(model)
    for index, (ids, sampling) in enumerate(cases):
        crowd.begin(str(index), ids, 10, sampling, logprobs=0)
    crowd.finish()
    for index, (ids, sampling) in enumerate(cases):
        alone = Driver(model)
        alone.begin("x", ids, 10, sampling, logprobs=0)
        alone.finish()
        assert alone.ids("x") == crowd.ids(str(index))


def test_a_seed_repeats_and_another_differs(model: Model) -> None:
    driver = Driver(model)
    for id, seed in (("a", 1), ("b", 1), ("c", 2)):
        driver.begin(id, [1, 2, 3], 20, Sampling(seed=seed), logprobs=0)
    driver.finish()
    assert driver.ids("a") == driver.ids("b") != driver.ids("c")


def test_a_second_request_computes_only_its_own_tail(model: Model) -> None:
    driver = Driver(model)
    ids = prompts(1, 2)[0] * 200
    driver.begin("first", ids, 4)
    driver.finish()
    driver.begin("second", [*ids, 1, 2, 3], 4)
    driver.finish()
    usage = driver.released("second").usage
    assert usage is not None
    assert len(ids) + 3 - usage.cached_tokens < 16 + 3


def test_choices_share_the_prompt_and_differ_in_their_draws(model: Model) -> None:
    driver = Driver(model)
    driver.begin("r", prompts(1, 2)[0] * 64, 12, Sampling(seed=3), n=4, logprobs=0)
    driver.finish()
    answers = [driver.ids("r", choice) for choice in range(4)]
    assert len({tuple(answer) for answer in answers}) == 4
    usage = driver.released("r").usage
    assert usage is not None
    assert usage.completion_tokens == 48
    # 64 tokens of prompt in four pages; each later choice shares three of them.
    assert driver.loop.blocks.cached <= 4 + 4


def test_a_cancelled_request_frees_its_pages_in_any_state(model: Model) -> None:
    driver = Driver(model)
    for id in ("queued", "prefill", "decode"):
        driver.begin(id, prompts(1, 2)[0] * 60, 100)
    driver.cancel("queued")
    driver.turns(1)
    driver.cancel("prefill")
    driver.turns(4)
    driver.cancel("decode")
    driver.turns(1)
    assert driver.loop.blocks.used == 0
    assert all(driver.released(id).code is None for id in ("queued", "prefill", "decode"))


def test_a_cancel_that_overtakes_its_preparation(model: Model) -> None:
    from sidecar.generation import GenerationRequest
    from sidecar.worker.choice import Job
    from sidecar.worker.loop import Prepared
    from sidecar.worker.messages import prepare

    driver = Driver(model)
    request = prepare(GenerationRequest("early", (1, 2), 4))
    driver.loop.arrivals.put(request)
    driver.cancel("early")
    driver.loop.arrivals.put(Prepared("early", Job(request, (1, 2), 4, 0)))
    driver.begin("other", [1, 2], 4)
    driver.finish()
    assert driver.released("early").code is None
    assert driver.outputs("early") == []


def test_a_stop_string_across_tokens_ends_the_text_before_it(model: Model) -> None:
    driver = Driver(model)
    driver.begin("whole", [65, 66, 67], 40)
    driver.finish()
    whole = driver.text("whole")
    stop = whole[3:6]
    driver.begin("cut", [65, 66, 67], 40, stop=(stop,))
    driver.finish()
    assert driver.text("cut") == whole[: whole.index(stop)]
    assert driver.outputs("cut")[-1].finish == "stop"


def test_log_probabilities_of_a_stop_string_are_not_shown(model: Model) -> None:
    driver = Driver(model)
    driver.begin("whole", [65, 66, 67], 40, logprobs=0)
    driver.finish()
    whole = driver.text("whole")
    driver.begin("cut", [65, 66, 67], 40, stop=(whole[3:6],), logprobs=0)
    driver.finish()
    scored = [t for output in driver.outputs("cut") for t in output.logprobs]
    assert b"".join(t.token_bytes for t in scored).decode(errors="replace").startswith(driver.text("cut"))
    assert len(scored) <= len(driver.text("cut").encode())


class Failing:
    """Stands before a network and raises once, at a step of one's choosing."""

    def __init__(self, network: Any, at: int, error: Exception) -> None:
        self._network, self._left, self._error = network, at, error

    def __call__(self, **inputs: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise self._error
        return self._network(**inputs)


def expected(model: Model, ids: list[int], count: int) -> str:
    driver = Driver(model)
    driver.begin("x", ids, count)
    driver.finish()
    return driver.text("x")


def test_a_step_that_raises_ends_its_requests_and_the_loop_goes_on(model: Model) -> None:
    wanted = expected(model, [1, 2, 3], 8)
    driver = Driver(model)
    network = model.network
    model.network = Failing(network, 3, ValueError("broken on purpose"))
    driver.begin("a", [1, 2, 3], 8)
    driver.begin("b", [4, 5], 8)
    driver.finish()
    assert {driver.released(id).code for id in "ab"} == {"engine_fault"}
    assert driver.loop.blocks.used == driver.loop.blocks.cached == 0
    driver.begin("c", [1, 2, 3], 8)
    driver.finish()
    assert driver.text("c") == wanted


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_costs_the_largest_request_alone(model: Model, error: Exception) -> None:
    wanted = expected(model, [1, 2, 3], 12)
    driver = Driver(model)
    driver.begin("small", [1, 2, 3], 12)
    driver.turns(2)
    network = model.network
    model.network = Failing(network, 1, error)
    driver.begin("large", prompts(1, 2)[0] * 90, 12)
    driver.finish()
    assert driver.released("large").code == "out_of_memory"
    assert driver.released("small").code is None
    assert driver.text("small") == wanted


def test_out_of_memory_gives_back_what_the_failed_pass_held(model: Model) -> None:
    """The exception's traceback must be gone when memory is given back."""
    held: list[Any] = []

    class Tensorlike:
        pass

    def failing(**_: Any) -> Any:
        activations = Tensorlike()
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    driver = Driver(model)
    model.network, network = failing, model.network
    driver.begin("a", [1, 2, 3], 4)
    driver.turns(1)
    model.network = network
    assert driver.released("a").code == "out_of_memory"
    assert held[0]() is None


def test_who_was_admitted_is_never_stopped_for_memory(model: Model) -> None:
    """Let in as the gate does, to the last page: all answers come whole, and no one that generates pauses."""
    driver = Driver(model)
    plan = model.plan
    ledger = Ledger(max_queue=24, slots=24, pages=plan.pages, patience_s=10)
    asked = dict(enumerate(prompts(24, 160, seed=8), start=1))
    for ids in asked.values():
        ticket = ledger.arrive()
        assert ticket
        ledger.price(ticket, -(-(len(ids) + 60 - 1) // plan.page_tokens))
    ended: set[int] = set()
    fullest = 0
    for turn in range(3000):
        for ticket in ledger.promote(turn):
            driver.begin(str(ticket), asked[ticket], 60, logprobs=0)
        driver.turns(1)
        fullest = max(fullest, ledger.pages_reserved)
        over = {int(m.id) for m in driver.sent if isinstance(m, Released)}
        for ticket in over - ended:
            ledger.leave(ticket)
        ended = over
        if len(ended) == len(asked):
            break
    assert fullest > 0.95 * plan.pages
    steps = [message for message in driver.sent if isinstance(message, Step)]
    for ticket in asked:
        released = driver.released(str(ticket))
        assert released.code is None
        assert released.usage is not None and released.usage.completion_tokens == 60
        at = [n for n, step in enumerate(steps) if any(o.id == str(ticket) for o in step.outputs)]
        assert at[-1] - at[0] < 60
    assert driver.loop.blocks.used == 0


def test_an_error_in_one_choices_text_costs_its_request_alone(model: Model) -> None:
    wanted = expected(model, [1, 2, 3], 6)
    driver = Driver(model)
    driver.begin("a", [1, 2, 3], 6)
    driver.begin("b", [4, 5], 6)
    driver.turns(2)

    def broken(token: int) -> str:
        raise ValueError("Invalid prefix encountered")

    next(c for c in driver.loop._running.values() if c.request_id == "b").text.feed = broken
    driver.finish()
    assert driver.text("a") == wanted
    assert driver.released("b").code == "engine_fault"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        Sampling,
        temperature=st.one_of(st.just(0.0), st.floats(1e-5, 2.0)),
        top_p=st.floats(1e-6, 1.0),
        top_k=st.integers(0, 300),
        min_p=st.floats(0.0, 1.0),
        frequency_penalty=st.floats(-2, 2),
        presence_penalty=st.floats(-2, 2),
        repetition_penalty=st.floats(0.01, 100),
        seed=st.integers(-(2**63), 2**63 - 1),
        logit_bias=st.lists(st.tuples(st.integers(0, 258), st.floats(-100, 100)), max_size=3).map(tuple),
    ),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_no_accepted_sampling_hurts_a_neighbour(
    model: Model, sampling: Sampling, logprobs: int | None
) -> None:
    driver = Driver(model)
    driver.begin("odd", [7, 8, 9], 4, sampling, logprobs=logprobs)
    driver.begin("plain", [1, 2, 3], 4)
    driver.finish()
    assert driver.released("odd").code is None
    assert driver.released("plain").code is None


def test_an_error_that_cuda_does_not_survive_leaves_the_loop(model: Model) -> None:
    driver = Driver(model)
    model.network = Failing(model.network, 1, RuntimeError("CUDA error: device-side assert triggered"))
    driver.begin("a", [1], 4)
    with pytest.raises(StickyError):
        driver.finish()


@pytest.mark.parametrize("logprobs", [None, 2])
def test_an_output_that_is_not_a_number_costs_one_request(model: Model, logprobs: int | None) -> None:
    wanted = expected(model, [1, 2, 3], 6)
    driver = Driver(model)
    network = model.network

    def poisoned(**inputs: Any) -> Any:
        out = network(**inputs)
        out.logits[0, 0] = float("nan")
        return out

    driver.begin("a", [9, 9], 6, logprobs=logprobs)
    driver.begin("b", [1, 2, 3], 6, logprobs=logprobs)
    driver.turns(1)
    model.network = poisoned
    driver.turns(1)
    model.network = network
    driver.finish()
    assert driver.released("a").code == "engine_fault"
    assert driver.text("b") == wanted


def test_it_beats_while_idle(model: Model) -> None:
    driver = Driver(model)
    driver.turns(1)
    assert driver.beats()[0].stats.resident_bytes > 0
