"""What files say of Python's and numpy's own objects, checked before it is believed."""

import numpy as np

__all__ = ["check_key", "make_random_state"]

_KEY_LENGTH = 624  # of a Mersenne Twister


def check_key(key):
    """Return a key of a dict: a text, or a whole number of which no two have one hash.

    Python hashes texts by a secret; numbers and tuples that a file chose could all collide, and
    60,000 of them in a dict take minutes.
    """
    if type(key) is str or (type(key) is int and abs(key) < 2**31):
        return key
    raise TypeError(f"{key!r:.40} is no key: keys are texts and whole numbers below 2**31")


def make_random_state(state):
    """Return a RandomState at a place that it can be at: numpy reads whatever is set.

    Parameters
    ----------
    state : dict
        As of ``RandomState.get_state(legacy=False)``; its kind is taken for a Mersenne Twister.

    Raises
    ------
    ValueError
        If there is no such place.
    """
    key, position = state["state"]["key"], state["state"]["pos"]
    if type(key) is not np.ndarray or key.dtype != np.uint32 or key.shape != (_KEY_LENGTH,):
        raise ValueError(f"RandomState: the key isn't {_KEY_LENGTH} numbers of 32 bits")
    # From nothing but zeros comes nothing else, and numpy's normal numbers are sought for ever.
    if not (key[0] >> 31 or key[1:].any()):
        raise ValueError("RandomState: the key is zero")
    if type(position) is not int or not 0 <= position <= _KEY_LENGTH:
        raise ValueError(f"RandomState: position {position!r:.40} isn't in the key")
    has_gauss, gauss = state["has_gauss"], state["gauss"]
    if type(has_gauss) is not int or has_gauss not in (0, 1):
        raise ValueError("RandomState: has_gauss is neither 0 nor 1")
    if type(gauss) is not float or not np.isfinite(gauss):
        raise ValueError("RandomState: the normal number in store is none")
    value = np.random.RandomState(0)
    value.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": key, "pos": position},
            "has_gauss": has_gauss,
            "gauss": gauss,
        }
    )
    return value
