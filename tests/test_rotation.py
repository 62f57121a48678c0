"""The cases of long products take turns, and none is left out for ever."""

import pytest

from conftest import ROTATION, in_turn

pytestmark = pytest.mark.without_keras


@pytest.mark.parametrize("cases", [list("a"), list("abc"), list("abcdefg")])
def test_three_days_or_three_backends_see_all_cases(cases):
    for number in range(ROTATION):
        days = [in_turn(cases, number, 740_000 + day) for day in range(ROTATION)]
        backends = [in_turn(cases, backend, 740_000 + number) for backend in range(3)]
        for turns in (days, backends):
            assert sorted(case for turn in turns for case in turn) == cases
