"""The training text: the same for a seed, and without any held-out question."""

from collections import Counter

from tools.embedded_model.conversations import Chat
from tools.embedded_model.stories import SUBJECTS, story
from tools.embedded_model.text import Raw, allowed, fold, held_out, long_rows, rows, training_lines


def test_rows_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert list(rows(200)) == list(rows(200))
    assert list(rows(200)) != list(rows(200, seed=1))
    assert list(long_rows(10)) == list(long_rows(10))


def test_held_out_questions_are_200_different_ones_of_every_style() -> None:
    questions = held_out()
    assert len({fold(question.text) for question in questions}) == 200
    styles = Counter((q.prompt is None, bool(q.tools)) for q in questions)
    assert min(styles.values()) >= 16
    assert len(styles) == 3
    assert held_out(40) == questions[:40]


def test_no_training_line_is_a_held_out_question() -> None:
    lines = {fold(line) for row in rows(40_000) for line in training_lines(row)}
    lines |= {fold(line) for row in long_rows(500) for line in training_lines(row)}
    assert not [question.text for question in held_out() if fold(question.text) in lines]


def test_questions_that_others_rely_on_are_never_held_out() -> None:
    for text in ["What is the capital of France?", "What is the weather in Oslo?", "What is 3 + 4?"]:
        assert allowed(text)


def test_folding_sees_through_case_and_punctuation() -> None:
    assert fold("What is the CAPITAL of  France?!") == "what is the capital of france"
    assert fold("a cat") != fold("a bat")


def test_both_kinds_of_row_come() -> None:
    kinds = Counter(type(row) for row in rows(1000))
    assert kinds[Raw] > 300
    assert kinds[Chat] > 300


def test_stories_are_long_and_all_different() -> None:
    texts = {story(subject) for subject in SUBJECTS}
    assert len(texts) == len(SUBJECTS)
    assert min(len(text.split()) for text in texts) >= 75
