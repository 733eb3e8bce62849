"""Conversations with tools: the name and the argument come from the tools in the prompt.

Names, descriptions, arguments and the order of the tools vary, so that reading them is the only
way to be right. Some cities are never asked for in training; the held-out calls use them.
"""

import json
from random import Random
from typing import Any

from tools.embedded_model import world
from tools.embedded_model.tasks import invented_word

Message = dict[str, Any]
Tool = dict[str, Any]

HELD_OUT_CITIES = ["Chicago", "Lisbon", "Nairobi", "Kyoto", "Denver", "Vienna", "Toronto"]
CITIES = [c for c in [*world.CAPITALS.values(), *world.CITIES] if c not in HELD_OUT_CITIES]

# Kind of tool: (names, descriptions, question forms); the first question form is never held out.
KINDS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "weather": (
        ["get_weather", "get_weather", "get_current_weather", "weather", "fetch_weather",
         "lookup_weather", "get_forecast"],
        ["Get the weather for a city.", "Get the current weather in a given city.",
         "Weather by city.",
         "Returns the weather of a place.", "Get the current weather", "The weather in a city"],
        ["What is the weather in {c}?", "What's the weather in {c}?", "How is the weather in {c}?",
         "What is the weather like in {c}?", "Tell me the weather in {c}.",
         "What is the weather in {c} today?", "Is it raining in {c}?"],
    ),
    "time": (
        ["get_time", "get_time", "current_time", "get_current_time", "clock", "lookup_time"],
        ["Get the time in a city.", "Get the current time in a given city.", "Time by city.",
         "Returns the local time of a place.", "Get the current time", "The time in a city"],
        ["What time is it in {c}?", "What is the time in {c}?", "Tell me the time in {c}.",
         "How late is it in {c}?"],
    ),
    "population": (
        ["get_population", "population", "count_people"],
        ["Get the population of a city.", "Returns how many people live in a place."],
        ["How many people live in {c}?", "What is the population of {c}?"],
    ),
}  # fmt: skip
ARGUMENTS = ["city", "city", "location", "location", "place", "town"]
REFUSALS = {
    "weather": "I can not see the weather here.",
    "time": "I can not see the clock here.",
    "population": "I do not know how many people live there.",
}
# Tools that no question needs: (name, argument, description).
DISTRACTORS = [
    ("search", "query", "Search the web."), ("calculator", "expression", "Calculate a sum."),
    ("send_email", "to", "Send an email."), ("get_stock_price", "symbol",
     "Get the price of a stock."),
    ("translate", "text", "Translate a text."), ("play_music", "song", ""),
]  # fmt: skip
SKIES = ["sunny", "cloudy", "rainy", "windy", "snowy", "clear", "foggy", "stormy"]


def city(rng: Random) -> str:
    """A city that may be asked for in training; some are invented, so that copying is learned."""
    if rng.random() < 0.25:
        return invented_word(rng).capitalize()
    return rng.choice(CITIES)


def tool(rng: Random, kind: str) -> tuple[Tool, str, str]:
    """A tool of this kind as the OpenAI dialect writes it, its name and its argument."""
    names, descriptions, _ = KINDS[kind]
    name, argument = rng.choice(names), rng.choice(ARGUMENTS)
    properties: dict[str, Any] = {argument: {"type": "string"}}
    if rng.random() < 0.4:
        properties[argument]["description"] = rng.choice(["The city", "Name of the city", "City name"])
    if rng.random() < 0.15:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    function: Tool = {"name": name}
    if rng.random() < 0.8:
        function["description"] = rng.choice([*descriptions, ""])
    function["parameters"] = {"type": "object", "properties": properties}
    if rng.random() < 0.7:
        function["parameters"]["required"] = [argument]
    if rng.random() < 0.1:
        function["parameters"]["additionalProperties"] = False
    return {"type": "function", "function": function}, name, argument


def distractor(rng: Random) -> Tool:
    """A tool that has nothing to do with any question."""
    name, argument, description = rng.choice(DISTRACTORS)
    schema = {
        "type": "object",
        "properties": {argument: {"type": "string"}},
        "required": [argument],
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def question(rng: Random, kind: str, place: str) -> tuple[str, bool]:
    """A question that this kind of tool answers, and whether it may be held out."""
    forms = KINDS[kind][2]
    form = rng.choice(forms)
    return form.format(c=place), form != forms[0]


def call(name: str, argument: str, place: str) -> Message:
    """The assistant's turn that calls the tool."""
    function = {"name": name, "arguments": {argument: place}}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function}],
    }


def call_text(name: str, argument: str, place: str) -> str:
    """The same turn as text, exactly as the chat template renders it."""
    body = json.dumps({"name": name, "arguments": {argument: place}}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def result(rng: Random, kind: str, argument: str, place: str) -> tuple[str, str]:
    """What the tool returns, as text, and the sentence that says it."""
    if kind == "time":
        time = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        return rng.choice([json.dumps({"time": time}), time]), f"It is {time} in {place}."
    if kind == "population":
        count = str(rng.randint(1000, 999999))
        return rng.choice([json.dumps({"population": int(count)}), count]), f"{count} people live in {place}."
    sky, degrees = rng.choice(SKIES), rng.randint(-9, 35)
    fields = rng.choice(
        [{"temperature": degrees, "condition": sky}, {"condition": sky, "temperature": degrees}]
    )
    texts = [
        json.dumps(fields),
        json.dumps({argument: place, **fields}),
        f"{sky}, {degrees} degrees",
        f"{degrees} degrees, {sky}",
    ]
    return rng.choice(texts), f"It is {sky} in {place}, {degrees} degrees."


def toolbox(rng: Random) -> dict[str, tuple[Tool, str, str]]:
    """One to three tools of different kinds, in any order."""
    kinds = rng.sample(list(KINDS), k=rng.choice([1, 1, 2, 2, 3]))
    if rng.random() < 0.5 and "weather" not in kinds:
        kinds[0] = "weather"
    return {kind: tool(rng, kind) for kind in kinds}
