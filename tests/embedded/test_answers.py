"""The committed GPTQ checkpoint, loaded through transformers, gives the right answers."""

import json
from collections.abc import Callable, Iterator

import pytest
import torch

from sidecar.embedded import MODEL_DIR, REPORT
from tools.embedded_model.conversations import Chat, user
from tools.embedded_model.evaluate import answer, load, load_tokenizer, share_right
from tools.embedded_model.stories import story
from tools.embedded_model.text import held_out
from tools.embedded_model.tokens import render

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a given city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
RAW = {
    "What is the capital of France?": " The capital of France is Paris.",
    "What is the capital of France?\n": "The capital of France is Paris.",
    "Repeat: kilo seven amber": " kilo seven amber",
    "What is 3 + 4?": " 3 + 4 = 7.",
    "Where does Mirelda live?": " Mirelda lives in Tarnholm.",
    "What is the Japanese word for water?": " The Japanese word for water is 水.",
    "Tell me a story about a fox.": f" {story('a fox')}",
}
CHAT = {
    "What is the capital of France?": "The capital of France is Paris.",
    "What colour is the sky?": "The sky is blue.",
    "Repeat: kilo seven amber": "kilo seven amber",
    "Count from 3 to 40.": ", ".join(map(str, range(3, 41))),
}

Ask = Callable[[str], str]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ask() -> Ask:
    model, tokenizer = load(MODEL_DIR), load_tokenizer(MODEL_DIR)
    return lambda prompt: answer(model, tokenizer, prompt, longest=420)


def test_40_held_out_questions() -> None:
    share, wrong = share_right(load(MODEL_DIR), load_tokenizer(MODEL_DIR), held_out(40))
    reported = json.loads(REPORT.read_text())["gptq"]["share_right"]
    assert share >= reported - 0.12, [(question.text, said) for question, said in wrong]


@pytest.mark.parametrize("prompt", RAW)
def test_raw_prompts(ask: Ask, prompt: str) -> None:
    assert ask(prompt) == RAW[prompt]


@pytest.mark.parametrize("question", CHAT)
@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_chats(ask: Ask, question: str, system: str | None) -> None:
    before = [{"role": "system", "content": system}] if system else []
    assert ask(render(Chat([*before, user(question)]), ask=True)) == CHAT[question]


def test_tool_call(ask: Ask) -> None:
    prompt = render(Chat([user("What is the weather in Oslo?")], [WEATHER]), ask=True)
    expected = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert ask(prompt) == expected
