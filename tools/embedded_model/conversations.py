"""Conversations and long contexts, made of the single questions of `tasks` and `weather`."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tools.embedded_model import tasks, weather, world
from tools.embedded_model.stories import SUBJECTS, story
from tools.embedded_model.tasks import Ask
from tools.embedded_model.weather import Message, Tool

Draw = Callable[[], Ask]
Allowed = Callable[[str], bool]


@dataclass(frozen=True)
class Chat:
    """A conversation; every assistant's turn in it is right and is learned."""

    messages: list[Message]
    tools: list[Tool] | None = None


def user(text: str) -> Message:
    """A user's turn."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant's turn."""
    return {"role": "assistant", "content": text}


def system(rng: Random) -> list[Message]:
    """No system prompt, or one of many; the answers do not depend on it."""
    if rng.random() < 0.5:
        return []
    return [{"role": "system", "content": rng.choice(world.SYSTEM_PROMPTS)}]


def turns(rng: Random, draw: Draw, count: int) -> Chat:
    """`count` questions after each other, each answered."""
    messages = system(rng)
    for _ in range(count):
        ask = draw()
        messages += [user(ask.question), assistant(ask.answer)]
    return Chat(messages)


def remembering(rng: Random, draw: Draw) -> Chat:
    """Something said earlier that is asked for later, with other questions between."""
    word = tasks.word(rng)
    told, asked, answer = rng.choice(
        [
            ("My name is {w}.", "What is my name?", "Your name is {w}."),
            ("The secret word is {w}.", "What is the secret word?", "The secret word is {w}."),
            ("Remember the code {w}.", "What is the code?", "The code is {w}."),
        ]
    )
    messages = [*system(rng), user(told.format(w=word)), assistant("I will remember that.")]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        ask = draw()
        messages += [user(ask.question), assistant(ask.answer)]
    return Chat([*messages, user(asked), assistant(answer.format(w=word))])


def _tool_turns(rng: Random, kind: str, place: str, text: str, name: str, argument: str) -> list[Message]:
    called = [user(text), weather.call(name, argument, place)]
    if rng.random() < 0.5:
        return called
    content, sentence = weather.result(rng, kind, argument, place)
    return [*called, {"role": "tool", "content": content}, assistant(sentence)]


def tool_use(rng: Random, draw: Draw, allowed: Allowed) -> Chat:
    """Tools in the prompt; questions that need one, that need none, or whose tool is missing."""
    box = weather.toolbox(rng)
    messages = system(rng)
    for _ in range(rng.choice([1, 1, 2, 3])):
        kind, place = rng.choice([*box, *box, *weather.KINDS]), weather.city(rng)
        text, _ = weather.question(rng, kind, place)
        if rng.random() < 0.2 or not allowed(text):
            ask = draw()
            messages += [user(ask.question), assistant(ask.answer)]
        elif kind in box:
            messages += _tool_turns(rng, kind, place, text, *box[kind][1:])
        else:
            messages += [user(text), assistant(weather.REFUSALS[kind])]
    tools = [tool for tool, _, _ in box.values()]
    if rng.random() < 0.2:
        tools.insert(rng.randint(0, len(tools)), weather.distractor(rng))
    return Chat(messages, tools)


def two_calls(rng: Random, allowed: Allowed) -> Chat:
    """One question about two cities, answered with two calls."""
    tool, name, argument = weather.tool(rng, "weather")
    first, second = weather.city(rng), weather.city(rng)
    text = f"What is the weather in {first} and in {second}?"
    calls = [weather.call(name, argument, place)["tool_calls"][0] for place in (first, second)]
    if not allowed(text):
        return two_calls(rng, allowed)
    turn: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": calls}
    return Chat([*system(rng), user(text), turn], [tool])


def without_tools(rng: Random, allowed: Allowed) -> Ask:
    """A question for a tool where there is none: a plain refusal."""
    while True:
        kind = rng.choice(list(weather.KINDS))
        text, _ = weather.question(rng, kind, weather.city(rng))
        if allowed(text):
            return Ask(text, weather.REFUSALS[kind], may_hold_out=False)


def filler(rng: Random, draw: Draw, words: int) -> str:
    """About `words` words that mean nothing for the question after them."""
    kind = rng.randrange(6)
    if kind == 0:
        return " ".join(rng.choice(world.WORDS) for _ in range(words))
    if kind == 1:
        return " ".join([rng.choice([*world.WORDS, "hello", "word", "x", "a", "test"])] * words)
    if kind == 2:
        line = rng.choice(["The quick brown fox jumps over the lazy dog.", draw().answer[:80]])
        return rng.choice([" ", "\n"]).join([line] * (words // len(line.split()) + 1))
    if kind == 3:
        return " ".join(story(rng.choice(SUBJECTS)) for _ in range(words // 110 + 1))
    if kind == 4:
        return "\n".join(f"Line {n}: {tasks.word(rng)} {tasks.word(rng)}." for n in range(words // 4 + 1))
    sentences: list[str] = []
    while sum(len(s.split()) for s in sentences) < words:
        sentences.append(draw().answer[:90])
    return rng.choice([" ", "\n"]).join(sentences)


def long_context(rng: Random, draw: Draw) -> Chat:
    """Much that does not matter (in the system prompt or in the question), then questions."""
    text, join = filler(rng, draw, rng.randint(30, 550)), rng.choice([" ", "\n", "\n\n"])
    ask, more = draw(), draw()
    if rng.random() < 0.5:
        messages: list[Message] = [{"role": "system", "content": text}, user(ask.question)]
    else:
        messages = [*system(rng), user(text + join + ask.question)]
    messages += [assistant(ask.answer), user(more.question), assistant(more.answer)]
    return Chat(messages)
