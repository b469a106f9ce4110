"""The binary grid on which values enter, so that sums are exact in any order."""

import numpy as np
import numpy.typing as npt


def snap(
    value: npt.NDArray[np.float64], resolution: npt.NDArray[np.float64] | float
) -> npt.NDArray[np.float64]:
    """The nearest values on the grid of a kind's resolution (a power of two); ties to even.

    >>> snap(np.array([0.3, 7.0]), 0.25)
    array([0.25, 7.  ])
    """
    snapped: npt.NDArray[np.float64] = value * (1 / resolution)
    np.rint(snapped, out=snapped)
    snapped *= resolution
    # Adding 0.0 turns -0.0 into 0.0: equal values must have equal bytes.
    snapped += 0.0
    return snapped
