"""A list has a short name, for tables, messages and `repr`."""

from quantal._core.numbers import presets
from quantal._core.numbers.noise import noise_name
from quantal._core.numbers.values import Values

_SPELLED = 4
"""A list of at most so many numbers is spelled, where it has no short name."""


def short_name(values: Values) -> str:
    """Return what a list is called on a line: a preset's name, a few numbers, or their count.

    >>> [short_name(Values(name)) for name in ("ternary", [1, -1, 0.5], "powers_of_two:4")]
    ['ternary', '1, -1, 0.5', 'powers_of_two:4']
    >>> short_name(Values([1, 2, 5, 10, 20], learnable=True))
    '5 values, learned'
    >>> short_name(Values("ternary", noise=0.05))
    'ternary, noise 0.05'
    """
    if values.channels is not None:
        name = f"{len(values)} values a channel"
    else:
        preset = presets.name_of(values.numbers)
        if preset and (len(values) > _SPELLED or preset in presets.NAMES):
            name = preset
        elif len(values) <= _SPELLED:
            name = ", ".join(f"{number:g}" for number in values.tolist())
        else:
            name = f"{len(values)} values"
    name = f"{name}, learned" if values.learnable else name
    return name if values.noise is None else f"{name}, {noise_name(values.noise)}"
