"""What is remembered of a step without memory, and whom it concerns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.budget import Plan
from sidecar.worker.shortage import Shape, Shortage, of_shape, shortage, without

PLAN = Plan(4000, 1000, 64, 0, 256, 100, 16, 1024, 800)
shapes = st.builds(Shape, st.integers(1, 512), st.integers(1, 4096))


def test_a_request_as_large_or_larger_is_concerned_and_a_smaller_one_is_not() -> None:
    known = (Shortage(Shape(400, 400), 30.0),)
    assert of_shape(known, Shape(400, 404)) is known[0]
    assert of_shape(known, Shape(512, 2000)) is known[0]
    assert of_shape(known, Shape(399, 2000)) is None
    assert of_shape(known, Shape(512, 399)) is None


def test_what_is_needed_is_its_share_of_the_workspace() -> None:
    assert shortage(Shape(256, 256), PLAN, 512, 10.0, 4.0).needed_mib == 32.0
    assert shortage(Shape(2000, 2000), PLAN, 512, 10.0, 4.0).needed_mib == 64.0


def test_what_was_not_enough_is_not_enough_again() -> None:
    assert shortage(Shape(1, 900), PLAN, 512, 5.0, 40.0).needed_mib == 45.0
    assert shortage(Shape(1, 900), PLAN, 512, 0.0, 40.0).needed_mib == 41.0


def test_the_error_names_what_is_needed_and_what_is_free() -> None:
    message = Shortage(Shape(400, 400), 30.0).error(3.7).message
    assert "needs about 30 MiB, 4 MiB are free" in message
    assert "\n" not in message


@given(shapes, st.floats(0, 1000), st.floats(0, 1000), st.floats(0, 5000))
def test_room_is_what_forgets(shape: Shape, asked_mib: float, free_mib: float, later_mib: float) -> None:
    met = shortage(shape, PLAN, 512, asked_mib, free_mib)
    assert met.needed_mib > free_mib
    assert without((met,), free_mib) == (met,)
    assert without((met,), later_mib) == (() if later_mib >= met.needed_mib else (met,))
