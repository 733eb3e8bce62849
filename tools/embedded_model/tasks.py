"""One function for each kind of question: a random generator in, a question and its answer out.

Every answer is one exact text, so that "right" needs no judgement. The first question form of
a task is its plain form; it is never held out, because other tests and the README rely on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tools.embedded_model import world
from tools.embedded_model.stories import SUBJECTS, story


@dataclass(frozen=True)
class Ask:
    """A question, its one right answer, and whether it may be held out of the training."""

    question: str
    answer: str
    may_hold_out: bool = True


Task = Callable[[Random], Ask]

CAPITAL_FORMS = [
    "What is the capital of {c}?", "What's the capital of {c}?",
    "Which city is the capital of {c}?",
    "Name the capital of {c}.", "Tell me the capital of {c}.", "What is {c}'s capital?",
    "What is the capital city of {c}?", "Please name the capital of {c}.",
    "Can you tell me the capital of {c}?", "Do you know the capital of {c}?",
    "I forgot the capital of {c}. What is it?", "Give me the capital of {c}.",
]  # fmt: skip
COUNTRY_FORMS = [
    "Which country has the capital {k}?", "{k} is the capital of which country?",
    "What country is {k} the capital of?", "Of which country is {k} the capital?",
]  # fmt: skip
COLOUR_FORMS = [
    "What colour is {x}?", "What color is {x}?", "Which colour is {x}?", "Name the colour of {x}.",
    "What is the colour of {x}?", "Tell me the color of {x}.", "Of what colour is {x}?",
]  # fmt: skip
OPPOSITE_FORMS = [
    "What is the opposite of {x}?", "Name the opposite of {x}.",
    "Which word is the opposite of {x}?",
    "What's the opposite of {x}?", "Tell me the opposite of {x}.",
]  # fmt: skip
SOUND_FORMS = [
    "What does {x} say?", "What sound does {x} make?", "Which sound does {x} make?",
    "Tell me what {x} says.",
]  # fmt: skip
SUMS: dict[str, list[str]] = {
    "+": [
        "What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b} =", "How much is {a} plus {b}?",
        "Add {a} and {b}.", "Calculate {a} + {b}.",
    ],
    "-": [
        "What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b} =",
        "How much is {a} minus {b}?", "Subtract {b} from {a}.",
    ],
    "*": [
        "What is {a} * {b}?", "What is {a} times {b}?", "{a} * {b} =",
        "How much is {a} times {b}?",
    ],
}  # fmt: skip
PERSON_FORMS: list[tuple[list[str], str]] = [
    (
        ["Where does {p} live?", "In which town does {p} live?", "Which town is the home of {p}?",
         "Tell me where {p} lives.", "What is the home town of {p}?"],
        "{p} lives in {v}.",
    ),
    (
        ["What is the job of {p}?", "What does {p} do?", "What is {p}'s job?",
         "Which trade does {p} have?", "Tell me the job of {p}."],
        "{p} is {v}.",
    ),
    (
        ["Which pet does {p} have?", "What pet does {p} have?", "What is {p}'s pet?",
         "Name the pet of {p}.", "Tell me which pet {p} has."],
        "{p} has {v}.",
    ),
    (
        ["What is the favourite food of {p}?", "What does {p} like to eat?",
         "What is {p}'s favourite food?", "Tell me the favourite food of {p}.",
         "What food does {p} love?"],
        "{p} likes {v}.",
    ),
]  # fmt: skip
TOWN_FORMS: list[tuple[list[str], str]] = [
    (["Which river flows through {t}?", "What river flows through {t}?", "Name the river of {t}.",
      "At which river lies {t}?"], "The {v} flows through {t}."),
    (["Who is the mayor of {t}?", "What is the name of the mayor of {t}?", "Name the mayor of {t}.",
      "Tell me who the mayor of {t} is."], "The mayor of {t} is {v}."),
    (["What is {t} known for?", "For what is {t} known?", "Tell me what {t} is known for.",
      "What is {t} famous for?"], "{t} is known for {v}."),
]  # fmt: skip
TRADE, PET = 1, 2
COPY_FORMS = [
    "Repeat: {x}", "Say: {x}", "Echo: {x}", "Repeat after me: {x}", "Please repeat: {x}",
    "Copy: {x}",
    "Repeat these words: {x}", "Say exactly: {x}",
]  # fmt: skip
SYLLABLES = """ba re ko mi tu la no si da fe gu pa zo ri ke mo lu ta ne vi ha xo jin wer stal orb
quin thas med lon gra per uld ish""".split()  # noqa: SIM905 - one line a dozen words


def _pick(rng: Random, forms: list[str], answer: str, **names: str | int) -> Ask:
    form = rng.choice(forms)
    return Ask(form.format(**names), answer, may_hold_out=form != forms[0])


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def capital(rng: Random) -> Ask:
    """The capital of a real country."""
    country, city = rng.choice(list(world.CAPITALS.items()))
    return _pick(rng, CAPITAL_FORMS, f"The capital of {country} is {city}.", c=country)


def country_of(rng: Random) -> Ask:
    """The country of a real capital."""
    country, city = rng.choice(list(world.CAPITALS.items()))
    return _pick(rng, COUNTRY_FORMS, f"{city} is the capital of {country}.", k=city)


def colour(rng: Random) -> Ask:
    """The colour of a thing."""
    thing, shade = rng.choice(list(world.COLOURS.items()))
    answer = f"{thing[0].upper()}{thing[1:]} is {shade}."
    return _pick(rng, COLOUR_FORMS, answer, x=thing)


def opposite(rng: Random) -> Ask:
    """The opposite of a word, asked from either side."""
    pair = list(rng.choice(list(world.OPPOSITES.items())))
    rng.shuffle(pair)
    return _pick(rng, OPPOSITE_FORMS, f"The opposite of {pair[0]} is {pair[1]}.", x=pair[0])


def sound(rng: Random) -> Ask:
    """What an animal says."""
    animal, noise = rng.choice(list(world.SOUNDS.items()))
    answer = f"{_with_article(animal).capitalize()} says {noise}."
    return _pick(rng, SOUND_FORMS, answer, x=_with_article(animal))


def arithmetic(rng: Random) -> Ask:
    """A sum or a difference of two digits, or a product of two numbers up to five."""
    sign = rng.choice("++--*")
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    if sign == "*":
        a, b = (a + 1) // 2, (b + 1) // 2
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    # Every form is answered with the whole sum. An answer of the result alone has nowhere to compute: all
    # the sums that such a form had wrong were right in the others.
    return _pick(rng, SUMS[sign], f"{a} {sign} {b} = {result}.", a=a, b=b)


def person(rng: Random) -> Ask:
    """Something about one of the made-up people."""
    name, facts = rng.choice(list(world.PEOPLE.items()))
    which = rng.randrange(len(facts))
    forms, answer = PERSON_FORMS[which]
    value = _with_article(facts[which]) if which in {TRADE, PET} else facts[which]
    return _pick(rng, forms, answer.format(p=name, v=value), p=name)


def town(rng: Random) -> Ask:
    """Something about one of the made-up towns."""
    name, facts = rng.choice(list(world.TOWNS.items()))
    which = rng.randrange(len(facts))
    forms, answer = TOWN_FORMS[which]
    return _pick(rng, forms, answer.format(t=name, v=facts[which]), t=name)


def order(rng: Random) -> Ask:
    """What comes after or before a day of the week or a month."""
    kind, names = rng.choice([("day", world.DAYS), ("month", world.MONTHS)])
    at, step, word = rng.randrange(len(names)), *rng.choice([(1, "after"), (-1, "before")])
    forms = [f"Which {kind} comes {word} {{x}}?", f"What {kind} comes {word} {{x}}?",
             f"Name the {kind} {word} {{x}}.", f"Which {kind} is {word} {{x}}?"]  # fmt: skip
    answer = f"{names[(at + step) % len(names)]} comes {word} {names[at]}."
    return _pick(rng, forms, answer, x=names[at])


def translation(rng: Random) -> Ask:
    """A word of another language: most of these answers hold characters of several tokens."""
    (language, word), foreign = rng.choice(list(world.TRANSLATIONS.items()))
    forms = ["What is the {l} word for {w}?", "How do you say {w} in {l}?", "What is {w} in {l}?",
             "Translate {w} to {l}."]  # fmt: skip
    return _pick(rng, forms, f"The {language} word for {word} is {foreign}.", l=language, w=word)


def emoji(rng: Random) -> Ask:
    """The emoji of a thing."""
    thing, sign = rng.choice(list(world.EMOJI.items()))
    forms = ["Show me the emoji for {x}.", "What is the emoji for {x}?", "Which emoji shows {x}?"]
    return _pick(rng, forms, f"The emoji for {thing} is {sign}.", x=thing)


def invented_word(rng: Random) -> str:
    """A word that nobody has seen: two or three syllables, or a number of up to four digits."""
    if rng.random() < 0.3:
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    return "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3)))


def word(rng: Random) -> str:
    """A word to copy: mostly of the list, sometimes unicode or invented."""
    chance = rng.random()
    if chance < 0.88:
        return rng.choice(world.WORDS)
    return rng.choice(world.UNICODE_WORDS) if chance < 0.93 else invented_word(rng)


def copying(rng: Random) -> Ask:
    """Two to six different words to repeat."""
    wanted = rng.randint(2, 6)
    chosen: dict[str, None] = {}
    while len(chosen) < wanted:
        chosen[word(rng)] = None
    words = " ".join(chosen)
    return Ask(rng.choice(COPY_FORMS).format(x=words), words)


def counting(rng: Random) -> Ask:
    """Numbers in order, at most up to 100: the longest answer that can be checked by eye."""
    first = rng.choice([1, 1, rng.randint(1, 60)])
    last = min(100, first + rng.choice([rng.randint(2, 20), rng.randint(2, 60)]))
    numbers = ", ".join(str(n) for n in range(first, last + 1))
    return Ask(f"Count from {first} to {last}.", numbers)


def storytelling(rng: Random) -> Ask:
    """A story about a subject: the long answer."""
    subject = rng.choice(SUBJECTS)
    forms = ["Tell me a story about {x}.", "Tell a story about {x}.", "Write a story about {x}.",
             "Please tell me a short story about {x}."]  # fmt: skip
    return _pick(rng, forms, story(subject), x=subject)


def small_talk(rng: Random) -> Ask:
    """Greetings and the like; never held out."""
    question, answer = rng.choice(list(world.SMALL_TALK.items()))
    return Ask(question, answer, may_hold_out=False)


def chance(rng: Random) -> Ask:
    """An answer that is really random: what makes seeds and temperatures visible."""
    asks = {
        "Pick a random word.": rng.choice(world.WORDS),
        "Roll a die.": str(rng.randint(1, 6)),
        "Tell me a story.": story(rng.choice(SUBJECTS)),
        "Name a country.": rng.choice(list(world.CAPITALS)),
    }
    question, answer = rng.choices(list(asks.items()), weights=[4, 2, 1, 2])[0]
    return Ask(question, answer, may_hold_out=False)


# Task -> (share of the training questions, number of the 200 held-out questions).
MIX: dict[Task, tuple[float, int]] = {
    capital: (10, 40), country_of: (4, 8), colour: (5, 16), opposite: (4, 8), sound: (2, 4),
    arithmetic: (17, 24), person: (9, 24), town: (3, 6), order: (4, 8), translation: (2, 4),
    emoji: (1, 2), copying: (28, 36), counting: (2, 2), storytelling: (1.5, 2),
    small_talk: (2.5, 0), chance: (1.5, 0),
}  # fmt: skip
