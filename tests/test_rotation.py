"""The cases of long products take turns, and none is left out for ever."""

import pytest

from conftest import ROTATION, is_in_turn

pytestmark = pytest.mark.without_keras
CASES = [f"test_it[{number}]" for number in range(300)]


@pytest.mark.parametrize("case", CASES)
def test_three_days_or_three_backends_see_each_case_once(case):
    for number in range(ROTATION):
        assert sum(is_in_turn(case, number, 740_000 + day) for day in range(ROTATION)) == 1
        assert sum(is_in_turn(case, backend, 740_000 + number) for backend in range(3)) == 1


def test_a_turn_is_about_a_third():
    assert 80 < sum(is_in_turn(case, 0, 740_000) for case in CASES) < 120
