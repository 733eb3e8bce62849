"""What is sent to llama-server and what comes back, as values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.engines import llama_binary
from sidecar.engines.last_words import last_words, without_requests
from sidecar.engines.llama_bodies import chat_body, completion_body, message_fields, sampling_fields, seed_of
from sidecar.engines.llama_frames import ChatChoice, CompletionChoice, error_of
from sidecar.engines.llama_vectors import embeddings
from sidecar.engines.sse_frames import SseFrames
from sidecar.errors import (
    BadRequest,
    ConfigError,
    ContextOverflow,
    EngineFault,
    NotReady,
    OutOfMemory,
    SidecarError,
)
from sidecar.generation import (
    Delta,
    Embeddings,
    Event,
    Finished,
    Function,
    GenerationRequest,
    Image,
    JsonFormat,
    Message,
    Sampling,
    ToolCall,
    Tools,
)

REQUEST = GenerationRequest("r", "x")
CHAT = GenerationRequest("r", (Message("user", "hi"),))
FULL = Sampling(0.7, 0.9, 40, 0.05, 0.1, -0.2, 1.1, seed=5, logit_bias=((7, -100.0), (9, 2.5)))

# What llama-server takes for a field that is not sent is its own taste: none may be missing.
NEUTRAL = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0,
    "frequency_penalty": 0.0, "presence_penalty": 0.0, "typical_p": 1.0, "dynatemp_range": 0.0,
    "xtc_probability": 0.0, "dry_multiplier": 0.0, "top_n_sigma": -1.0, "mirostat": 0, "ignore_eos": False,
    "logit_bias": [],
}  # fmt: skip


def test_every_sampling_value_is_sent_and_neutral_where_nothing_is_asked() -> None:
    fields = sampling_fields(Sampling(), 3, 2048)
    assert {name: fields[name] for name in NEUTRAL} == NEUTRAL
    assert set(fields) == {*NEUTRAL, "samplers", "repeat_last_n", "seed"}
    assert fields["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p"]
    assert (fields["seed"], fields["repeat_last_n"]) == (3, 2048)


def test_what_is_asked_for_is_sent() -> None:
    fields = sampling_fields(FULL, 5, 64)
    assert fields | {
        "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "frequency_penalty": 0.1,
        "presence_penalty": -0.2, "repeat_penalty": 1.1, "seed": 5, "logit_bias": [[7, -100.0], [9, 2.5]],
    } == fields  # fmt: skip


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 3))
def test_a_seed_never_becomes_the_word_for_a_random_one(seed: int, choice: int) -> None:
    assert 0 <= seed_of(seed, choice) < 2**32 - 1
    assert seed_of(seed, choice) != seed_of(seed + 1, choice) != seed_of(seed, choice + 1)


@pytest.mark.parametrize(("asked", "sent"), [(None, None), (0, 1), (1, 1), (20, 20)])
def test_log_probabilities(asked: int | None, sent: int | None) -> None:
    request = replace(REQUEST, logprobs=asked)
    assert completion_body(request, (1, 2), 5, 0, 64).get("n_probs") == sent
    assert chat_body(replace(CHAT, logprobs=asked), 5, 0, 64).get("top_logprobs") == sent


def test_bodies_have_these_fields_and_no_others() -> None:
    sampling = set(sampling_fields(Sampling(), 0, 1))
    plain = completion_body(REQUEST, (1, 2), 5, 0, 64)
    assert set(plain) - sampling == {
        "prompt", "n_predict", "stream", "cache_prompt", "return_progress", "response_fields",
    }  # fmt: skip
    assert (plain["prompt"], plain["n_predict"], plain["stream"]) == ([1, 2], 5, True)
    chat = chat_body(CHAT, 5, 0, 64)
    assert set(chat) - sampling == {
        "messages", "max_tokens", "stream", "stream_options", "cache_prompt", "reasoning_format",
        "timings_per_token", "return_progress",
    }  # fmt: skip
    json.dumps([plain, chat])


def test_a_named_function_is_the_only_one_on_offer() -> None:
    functions = (Function("a", "A", {"type": "object"}), Function("b"))
    tools = Tools(functions, "required", only="b", parallel=False)
    body = chat_body(replace(CHAT, tools=tools), 5, 0, 64)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["b"]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    every = chat_body(replace(CHAT, tools=Tools(functions)), 5, 0, 64)
    assert [tool["function"]["name"] for tool in every["tools"]] == ["a", "b"]


def test_messages_keep_what_they_say_of_tools() -> None:
    calls = (ToolCall("c1", "f", '{"a": 1}'),)
    fields = message_fields(Message("assistant", "", tool_calls=calls, name="ann"))
    function = {"name": "f", "arguments": '{"a": 1}'}
    assert fields["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert fields["name"] == "ann"
    assert message_fields(Message("tool", "sunny", tool_call_id="c1"))["tool_call_id"] == "c1"


@given(
    st.text(max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.binary(min_size=1, max_size=3)), max_size=4),
)
def test_pictures_stand_where_they_stood(text: str, places: list[tuple[int, bytes]]) -> None:
    images = tuple(Image(data, "image/png", min(at, len(text))) for at, data in places)
    content = message_fields(Message("user", text, images=images))["content"]
    if not images:
        assert content == text
        return
    assert "".join(part.get("text", "") for part in content) == text
    assert sum(part["type"] == "image_url" for part in content) == len(images)
    assert all(part.get("text", "x") for part in content)
    at, places_found = 0, []
    for part in content:
        if part["type"] == "text":
            at += len(part["text"])
        else:
            places_found.append(at)
    assert places_found == sorted(image.at for image in images)


def sse(*frames: object) -> bytes:
    return b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames)


@given(st.lists(st.integers(1, 30), max_size=40))
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    stream = (
        b": ping\n\n" + sse({"a": "é\n"}, {"b": 2}).replace(b"\n\n", b"\r\n\r\n") + b":\n\ndata: [DONE]\n\n"
    )
    frames, found, at = SseFrames(), [], 0
    for cut in [*cuts, len(stream)]:
        found += frames.feed(stream[at : at + cut])
        at += cut
    if at < len(stream):
        found += frames.feed(stream[at:])
    assert [frame if frame == b"[DONE]" else json.loads(frame) for frame in found] == [
        {"a": "é\n"}, {"b": 2}, b"[DONE]",
    ]  # fmt: skip


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    frames = SseFrames()
    with pytest.raises(EngineFault, match="1048576 bytes"):
        for _ in range(100):
            frames.feed(b"x" * 65536)


def word(text: str, count: int, **more: Any) -> bytes:
    return json.dumps({"content": text, "stop": False, "tokens_predicted": count, **more}).encode()


def end(kind: str, count: int) -> bytes:
    timings = {"cache_n": 3, "prompt_n": 2, "predicted_n": count}
    last = {"content": "", "stop": True, "stop_type": kind, "tokens_predicted": count, "timings": timings}
    return json.dumps(last).encode()


def fed(choice: CompletionChoice | ChatChoice, *frames: bytes) -> list[Event]:
    events: list[Event] = []
    for frame in frames:
        if not choice.over:
            events += choice.feed(frame)
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize(("kind", "reason"), [("eos", "stop"), ("limit", "length"), ("word", "stop")])
def test_a_completion(kind: str, reason: str) -> None:
    choice = CompletionChoice(1, REQUEST)
    progress = json.dumps(
        {"content": "", "tokens": [0], "prompt_progress": {"total": 9}, "stop": False}
    ).encode()
    events = fed(choice, progress, word("The", 1), word(" end", 2), end(kind, 3))
    assert events == [Delta(1, "The"), Delta(1, " end"), Finished(1, reason)]
    assert (choice.completion_tokens, choice.cached_tokens, choice.complete) == (3, 3, True)


@given(st.lists(st.sampled_from(["a", "b", "ab", "STOP", "ST", "OP", " "]), max_size=12))
def test_a_stop_string_ends_it_wherever_it_was_cut(pieces: list[str]) -> None:
    choice = CompletionChoice(0, replace(REQUEST, stop=("STOP",)))
    events = fed(choice, *(word(text, at + 1) for at, text in enumerate(pieces)), end("eos", len(pieces)))
    assert text_of(events) == "".join(pieces).partition("STOP")[0]
    assert events[-1] == Finished(0, "stop")
    assert sum(isinstance(event, Finished) for event in events) == 1


def chunk(reason: str | None = None, **delta: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).encode()


def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    name = {"name": more.pop("name")} if "name" in more else {}
    return {"index": index, "function": {**name, "arguments": arguments}, **more}


USAGE = b'{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}, "timings": {"cache_n": 2}}'


def test_calls_keep_their_numbers_and_ids() -> None:
    choice = ChatChoice(0, CHAT)
    events = fed(
        choice,
        chunk(role="assistant", content=None),
        chunk(content="Well"),
        chunk(tool_calls=[piece(3, "", id="x", name="f")]),
        chunk(tool_calls=[piece(3, '{"a"'), piece(7, "{}", name="g")]),
        chunk(tool_calls=[piece(3, ": 1}")]),
        chunk("tool_calls"),
        USAGE,
    )
    tools = [event.tool for event in events if isinstance(event, Delta) and event.tool]
    assert [(tool.index, tool.id, tool.name, tool.arguments) for tool in tools] == [
        (0, "x", "f", ""), (0, None, None, '{"a"'), (1, "call_0_1", "g", "{}"), (0, None, None, ": 1}"),
    ]  # fmt: skip
    assert text_of(events) == "Well"
    assert events[-1] == Finished(0, "tool_calls")
    assert (choice.prompt_tokens, choice.completion_tokens, choice.cached_tokens) == (9, 4, 2)


def test_a_second_call_ends_it_where_one_was_wanted() -> None:
    tools = Tools((Function("f"),), parallel=False)
    choice = ChatChoice(0, replace(CHAT, tools=tools))
    events = fed(
        choice,
        chunk(tool_calls=[piece(0, "{}", id="x", name="f")]),
        chunk(tool_calls=[piece(1, "{", id="y", name="f")]),
        chunk(tool_calls=[piece(1, "}")]),
    )
    assert [event.tool.id for event in events if isinstance(event, Delta) and event.tool] == ["x"]
    assert events[-1] == Finished(0, "tool_calls")
    assert choice.over


def test_a_chat_is_over_only_when_it_is_counted() -> None:
    choice = ChatChoice(0, CHAT)
    choice.feed(chunk("stop"))
    assert choice.complete
    assert not choice.over
    choice.feed(USAGE)
    assert choice.over


@pytest.mark.parametrize(
    "frame", [b"", b"{", b"[]", b'{"content": 7}', b'{"stop": "yes"}', b'{"tokens_predicted": "x"}', b"\xff",
              b'{"completion_probabilities": [{"bytes": [256]}]}'],
)  # fmt: skip
def test_frames_of_a_wrong_shape_are_faults(frame: bytes) -> None:
    with pytest.raises(EngineFault, match="can not be read"):
        CompletionChoice(0, REQUEST).feed(frame)


@pytest.mark.parametrize(
    "frame", [b'{"choices": 7}', b'{"choices": [{"delta": []}]}', b'{"usage": []}', b"null"]
)
def test_chunks_of_a_wrong_shape_are_faults(frame: bytes) -> None:
    with pytest.raises(EngineFault, match="can not be read"):
        ChatChoice(0, CHAT).feed(frame)


@given(st.binary(max_size=60))
def test_any_bytes_are_events_or_an_error_of_ours(frame: bytes) -> None:
    for choice in (CompletionChoice(0, REQUEST), ChatChoice(0, CHAT)):
        try:
            choice.feed(frame)
        except SidecarError:
            continue


def said(status: int, message: str, type: str = "server_error") -> bytes:
    return json.dumps({"error": {"code": status, "message": message, "type": type}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, said(400, "too long", "exceed_context_size_error"), ContextOverflow),
        (500, said(500, "input (300 tokens) is too large to process. increase the"), ContextOverflow),
        (400, said(400, "Invalid tool_choice: bogus", "invalid_request_error"), BadRequest),
        (401, said(401, "Invalid API Key", "authentication_error"), EngineFault),
        (404, said(404, "File Not Found", "not_found_error"), EngineFault),
        (503, said(503, "Loading model", "unavailable_error"), NotReady),
        (500, said(500, "CUDA error: out of memory"), OutOfMemory),
        (500, said(500, "Compute error."), EngineFault),
        (501, said(501, "This server does not support embeddings"), EngineFault),
        (502, b"<html>Bad Gateway</html>", EngineFault),
        (400, b'{"error": "text"}', BadRequest),
        (500, b'{"error": {"message": null}}', EngineFault),
        (500, b"", EngineFault),
    ],
)
def test_what_a_status_means(status: int, body: bytes, kind: type[SidecarError]) -> None:
    found = error_of(status, body)
    assert type(found) is kind
    assert len(found.message) < 500


@pytest.mark.parametrize(
    "answer", [{}, {"data": 7, "usage": {"prompt_tokens": 1}},
               {"data": [{"embedding": [1.0], "index": 1}], "usage": {"prompt_tokens": 1}},
               {"data": [{"embedding": ["x"], "index": 0}], "usage": {"prompt_tokens": 1}},
               {"data": [], "usage": {"prompt_tokens": 1}}],
)  # fmt: skip
def test_vectors_of_a_wrong_shape_are_faults(answer: dict[str, Any]) -> None:
    with pytest.raises(EngineFault):
        embeddings(answer, 1)


def test_vectors_come_in_the_order_of_the_inputs() -> None:
    rows = [{"embedding": [2, 0.5], "index": 1}, {"embedding": [1, 0.5], "index": 0}]
    found = embeddings({"data": rows, "usage": {"prompt_tokens": 3, "total_tokens": 3}}, 2)
    assert found == Embeddings(((1.0, 0.5), (2.0, 0.5)), 3)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (
            "0.00.1 ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient",
            "driver is too old",
        ),
        (
            "0.00.139.334 E llama_model_load: error loading model: unknown model architecture: 'q'",
            "older than",
        ),
        (
            "0.00.139.334 E llama_model_load: error loading model: missing tensor 'blk.4'",
            "damaged, incomplete",
        ),
        (
            "0.00.139.334 E gguf_init_from_reader: invalid magic characters: '<!DO', expected 'GGUF'",
            "is no GGUF",
        ),
        ("0.00.139.334 E gguf_init_from_reader: failed to read tensor info", "is cut short"),
        (
            "0.00.139.334 E ggml_cuda: allocating 76 MiB on device 0: cudaMalloc failed: out of memory",
            "memory: lower",
        ),
        ("0.00.139.334 E srv start: couldn't bind HTTP server socket, port: 1", "another one is tried"),
        ("error: invalid argument: --n-parallel", "does not take one of the flags"),
        ("CUDA error: no kernel image is available for execution on the device", "not made for this card"),
        ("0.00.139.334 E clip_init: failed to load model '/x': clip_model_loader: ...", "projector (mmproj)"),
    ],
)
def test_the_cause_is_told_whatever_comes_behind_it(line: str, advice: str) -> None:
    tail = [
        "0.00.116.391 E llama_model_load_from_file_impl: failed to load model",
        "0.00.116.562 E srv    load_model: failed to load model, '/models/mmproj.gguf'",
        "0.00.116.651 I srv    operator(): operator(): cleaning up before exit...",
        "gdb: error while loading shared libraries: libicudata.so.72",
        "0.00.117.255 E srv  llama_server: exiting due to model loading error",
    ]
    words = last_words(["0.00.075.208 I srv    load_model: loading model '/models/x.gguf'", line, *tail])
    assert advice in words
    assert "exiting due to" not in words
    assert not words.startswith("0.00.139")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ""),
        (["", "...."], ""),
        (["0.00.075.208 I srv  x: all is well"], ""),
        (["0.00.075.208 E first", "0.00.075.209 E second"], "first"),
        (["Traceback", "ValueError: x"], "ValueError: x"),
        (["x" * 10_000], "x" * 200),
    ],
)
def test_words_that_no_table_knows(lines: list[str], words: str) -> None:
    assert last_words(lines) == words


def test_lines_that_quote_a_client_are_not_for_the_log() -> None:
    quoted = '0.01 W srv operator(): got exception: {"error": {"message": "... last read: \'SECRET\'"}}'
    assert without_requests(["a", quoted, "b"]) == ["a", "b"]


def test_the_program_is_the_given_one_else_the_one_on_path(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match=r"there is no llama-server on PATH.*LLAMA_SERVER_PATH"):
        llama_binary.find(None, {"PATH": str(tmp_path)})
    with pytest.raises(ConfigError, match="no such program"):
        llama_binary.find(str(program), {})
    program.chmod(0o755)
    assert llama_binary.find(None, {"PATH": str(tmp_path)}) == str(program)
    assert llama_binary.find(str(program), {}) == str(program)


def test_bytes_that_are_no_text_are_the_one_character_that_a_grammar_took_them_for() -> None:
    """Else a text would be longer than the schema says; in free text they are what the model said."""
    frames = [f'{{"content":"{text}"}}'.encode() for text in ("a\ufffd\ufffd", "\ufffd\ufffd", "b\ufffdc")]
    held = CompletionChoice(0, replace(REQUEST, format=JsonFormat()))
    free = CompletionChoice(0, REQUEST)
    said = ["".join(e.text for e in fed(c, *frames) if isinstance(e, Delta)) for c in (held, free)]
    assert said == ["a\ufffdb\ufffdc", "a\ufffd\ufffd\ufffd\ufffdb\ufffdc"]
