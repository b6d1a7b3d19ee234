"""Figures as people and programs read them: without the noise that adding up binary fractions leaves."""

from __future__ import annotations

import numpy as np

from app.model import Values

#: Sizes between which a figure has one more digit before its point. Outside of them nothing is done: what is smaller would take
#: powers of ten that no double is, what is larger is whole anyway.
_SIZES = np.array([float(f"1e{exponent}") for exponent in range(-7, 16)])
#: what the figures of each size are multiplied by, so that 15 digits are before the point
_POWERS = 10.0 ** np.arange(21, -1, -1)


def without_noise(values: Values) -> Values:
    """The values to 15 significant digits, as many as a double holds of any decimal: `206910.88840000003` is `206910.8884`.

    What a store holds with no more digits than that stays what it is, to the last bit; so do null, whole numbers of any size and
    what is nearer to 0 than 1e-7.
    """
    size = np.abs(values)
    inside = (size >= _SIZES[0]) & (size < _SIZES[-1])  # never true of null
    if inside.all():
        return _round_digits(values, size)
    rounded = values.copy()
    rounded[inside] = _round_digits(values[inside], size[inside])
    return rounded


def _round_digits(values: Values, size: Values) -> Values:
    # Compared, not computed: the logarithm of what lies a last bit below a power of ten is that power's.
    power = _POWERS[np.searchsorted(_SIZES, size, side="right") - 1]
    rounded: Values = np.rint(values * power) / power
    return rounded
