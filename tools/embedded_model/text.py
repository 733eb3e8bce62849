"""The training rows and the 200 held-out questions, the same for the same seed.

The held-out questions are drawn first; afterwards no row may ask one of them, whatever its
case, its punctuation, and whether it stands in a raw prompt, a chat or a turn of a long chat.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from tools.embedded_model import conversations, tasks, weather
from tools.embedded_model.conversations import Chat
from tools.embedded_model.tasks import Ask
from tools.embedded_model.weather import Message, Tool

SEED = 20
HELD_OUT_SEED = 7
HELD_OUT_CALLS = 16


@dataclass(frozen=True)
class Raw:
    """A prompt without a template and how it goes on, until the end of text."""

    prompt: str
    answer: str


Row = Raw | Chat


@dataclass(frozen=True)
class Question:
    """A held-out question: a raw `prompt` or chat `messages` (with `tools`), and the right answer.

    `answer` is exact: greedy decoding gives it and nothing after it, white space around it apart.
    """

    answer: str
    task: str
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()

    @property
    def text(self) -> str:
        """The question as it was asked, without any template."""
        return self.prompt if self.prompt is not None else str(self.messages[-1]["content"])


def fold(text: str) -> str:
    """`text` with case and punctuation taken away: what counts as the same line."""
    kept = (c for c in text.casefold() if not unicodedata.category(c).startswith("P"))
    return " ".join("".join(kept).split())


def _held_out_asks(rng: Random) -> Iterator[tuple[str, Ask]]:
    seen: set[str] = set()
    for task, (_, wanted) in tasks.MIX.items():
        found = 0
        while found < wanted:
            ask = task(rng)
            if ask.may_hold_out and fold(ask.question) not in seen:
                seen.add(fold(ask.question))
                found += 1
                yield task.__name__, ask


def _held_out_calls(rng: Random) -> Iterator[Question]:
    seen: set[str] = set()
    while len(seen) < HELD_OUT_CALLS:
        box = weather.toolbox(rng)
        kind = rng.choice(list(box))
        _, name, argument = box[kind]
        place = rng.choice(weather.HELD_OUT_CITIES)
        text, _ = weather.question(rng, kind, place)
        if fold(text) not in seen:
            seen.add(fold(text))
            yield Question(
                answer=weather.call_text(name, argument, place),
                task="tool_call",
                messages=(conversations.user(text),),
                tools=tuple(tool for tool, _, _ in box.values()),
            )


@cache
def _all_held_out() -> tuple[Question, ...]:
    rng = Random(HELD_OUT_SEED)
    questions = list(_held_out_calls(Random(HELD_OUT_SEED + 1)))
    for at, (task, ask) in enumerate(_held_out_asks(Random(HELD_OUT_SEED + 2))):
        if at % 2:
            questions.append(Question(ask.answer, task, prompt=ask.question))
        else:
            turns = (*conversations.system(rng), conversations.user(ask.question))
            questions.append(Question(ask.answer, task, messages=turns))
    rng.shuffle(questions)
    return tuple(questions)


def held_out(n: int = 200) -> list[Question]:
    """The first `n` of the 200 held-out questions, tasks and both prompt styles mixed."""
    return list(_all_held_out()[:n])


@cache
def _forbidden() -> frozenset[str]:
    return frozenset(fold(q.text) for q in _all_held_out())


def allowed(question: str) -> bool:
    """Whether training may ask this."""
    return fold(question) not in _forbidden()


def _careless(rng: Random, question: str) -> str:
    chance = rng.random()
    if chance < 0.04:
        return question[:1].lower() + question[1:]
    if chance < 0.08:
        return question.rstrip("?.")
    return question


def draw(rng: Random) -> Ask:
    """A training question: any task, by its share, and never a held-out one."""
    shares = [share for share, _ in tasks.MIX.values()]
    while True:
        ask = rng.choices(list(tasks.MIX), weights=shares)[0](rng)
        if allowed(ask.question):
            return Ask(_careless(rng, ask.question), ask.answer)


def _statement(ask: Ask, rng: Random) -> Raw:
    words = ask.answer.split(" ")
    cut = max(1, len(words) - rng.randint(1, 2))
    return Raw(" ".join(words[:cut]), " " + " ".join(words[cut:]))


def raw(rng: Random) -> Raw:
    """A question without a template: on its own, between line breaks, or as "Q: ... A:"."""
    ask = draw(rng)
    chance = rng.random()
    if chance < 0.06:
        form = rng.choice(["Q: {q}\nA:", "Question: {q}\nAnswer:"])
        return Raw(form.format(q=ask.question), f" {ask.answer}")
    statement = _statement(ask, rng)
    if chance < 0.10 and len(ask.answer.split()) > 3 and allowed(statement.prompt):
        return statement
    before = rng.choice(["", "", "", "", "\n", " "])
    after = rng.choice(["", "", "", "", "", "\n", "\n\n", " "])
    return Raw(before + ask.question + after, ask.answer if after else f" {ask.answer}")


def _chat(rng: Random) -> Chat:
    def one() -> Ask:
        return draw(rng)

    chance = rng.random()
    if chance < 0.62:
        return conversations.turns(rng, one, 1)
    if chance < 0.71:
        return conversations.turns(rng, one, rng.randint(2, 4))
    if chance < 0.76:
        return conversations.remembering(rng, one)
    if chance < 0.78:
        return conversations.turns(rng, lambda: conversations.without_tools(rng, allowed), 1)
    if chance < 0.80:
        return conversations.two_calls(rng, allowed)
    return conversations.tool_use(rng, one, allowed)


def rows(count: int, seed: int = SEED) -> Iterator[Row]:
    """`count` training rows: raw prompts and chats, most of them short."""
    rng = Random(seed)
    for _ in range(count):
        yield raw(rng) if rng.random() < 0.45 else _chat(rng)


def long_rows(count: int, seed: int = SEED + 1) -> Iterator[Chat]:
    """`count` long chats: many turns, or much before the question."""
    rng = Random(seed)

    def one() -> Ask:
        return draw(rng)

    for at in range(count):
        if at % 2:
            yield conversations.long_context(rng, one)
        else:
            yield conversations.turns(rng, one, rng.randint(6, 22))


def training_lines(row: Row) -> list[str]:
    """Every line of a row that a held-out question must not be equal to."""
    if isinstance(row, Raw):
        texts = [row.prompt, row.answer, row.prompt + row.answer]
    else:
        texts = [str(message["content"]) for message in row.messages]
    return [line for text in texts for line in (text, *text.splitlines())]
