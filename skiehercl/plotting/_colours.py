"""Labels in the order of their names, and a colour for each."""

import re

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from .._spots._checks import UNLABELLED, encode_labels

# Seven colours of Okabe & Ito, then colours chosen one by one to be as far as possible from
# those before them (CIELAB) for normal, protanopic and deuteranopic vision and from light grey.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#B6003D"),
    *("#55006D", "#92FF92", "#3D3100", "#9E8649", "#49243D", "#9279E7", "#316D6D", "#FF9E6D"),
    *("#863D0C", "#FFC2FF", "#AADB9E", "#003D92", "#AA3192", "#FF6D86", "#6DB649", "#186131"),
)
GREY = "#A6A6A6"
# Linear RGB as seen by protanopes and deuteranopes (Machado et al. 2009), and as XYZ / white.
_VISIONS = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
)
_XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]])
N_DISTINCT = 12  # of the first colours each can be told from any other
_DISTINCT = 16.5  # of CIELAB's units: what the first twelve colours are from each other, at least
_MOST_ARRANGED = 60  # the search for an order takes seconds for these, and more is no use
_ALIKE = 0.1  # of the spots of either of two domains are those of both, if they are matched


def find_palette(adata, key):
    """Return {domain: colour} of ``uns[key + "_colors"]``, as scanpy stores it, or None."""
    colours = adata.uns.get(f"{key}_colors")
    categories = getattr(getattr(adata.obs.get(key), "cat", None), "categories", None)
    if colours is None or categories is None or len(colours) < len(categories):
        return None
    return dict(zip(categories, map(str, colours), strict=False))


def sort_labels(labels, name, n_spots):
    """Codes (n_spots,), -1 where unlabelled, into the sorted names; and these names."""
    codes, names = encode_labels(labels, name, UNLABELLED)
    if len(codes) != n_spots:
        raise ValueError(
            f"{name} has {len(codes)} entries but coords has {n_spots} rows: pass one label per "
            "spot (did you filter one of them?)"
        )
    categories = getattr(getattr(labels, "cat", labels), "categories", None)
    present = np.unique(codes[codes >= 0])
    if categories is not None:
        ordered = sorted(present, key=lambda code: list(categories).index(names[code]))
    else:
        ordered = sorted(present, key=lambda code: _natural_key(names[code]))
    rank = np.full(len(names) + 1, -1)
    rank[ordered] = np.arange(len(ordered))
    return rank[codes], [names[code] for code in ordered]


def _natural_key(name):
    """Sort key that puts 2 before 10 and numbers before words."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def pick_colours(names, palette, contacts=None):
    """Return one colour per name; those in contact (K, K) get distinct ones of the default."""
    from matplotlib import colormaps

    if isinstance(palette, dict):
        missing = [name for name in names if name not in palette and str(name) not in palette]
        if missing:
            raise ValueError(f"palette has no colour for {missing}: add them to the dict")
        return [palette[name] if name in palette else palette[str(name)] for name in names]
    if isinstance(palette, str):
        return list(colormaps[palette](np.linspace(0, 1, len(names))))
    if palette is None:
        return name_colours(len(names), contacts)
    if len(palette) < len(names):
        raise ValueError(
            f"palette has {len(palette)} colours for {len(names)} domains: pass more colours, "
            "a dict or the name of a colormap"
        )
    return list(palette[: len(names)])


def name_colours(n_colours, contacts=None):
    """Return the default colours as "#RRGGBB", without matplotlib.

    They are `PALETTE` in its order, unless two domains that touch by `contacts` (K, K) would be
    hard to tell apart, which takes more than twelve of them: then the order is changed.
    """
    colours = _extend_palette(n_colours)
    if contacts is not None and N_DISTINCT < n_colours <= _MOST_ARRANGED:
        colours = colours[_arrange(_measure_differences(colours), contacts)]
    levels = np.rint(255 * colours).astype(int)
    return ["#{:02X}{:02X}{:02X}".format(*level) for level in levels]


def _extend_palette(n_colours):
    """Return PALETTE and further colours, mixed from it: (n_colours, 3) in [0, 1]."""
    rounds = -(-n_colours // len(PALETTE))
    base = np.array([list(bytes.fromhex(name[1:])) for name in PALETTE]) / 255
    # Round 1 half-way to white, round 2 half-way to black, and weaker steps after that.
    mixes = [base] + [base + (r % 2 - base) / (1 + (r + 1) // 2) for r in range(1, rounds)]
    return np.vstack(mixes)[:n_colours]


def _measure_differences(colours):
    """Return distances (n, n) in CIELAB, the least of three kinds of vision."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    least = np.full((len(colours),) * 2, np.inf)
    for vision in _VISIONS:
        xyz = np.clip(linear @ vision.T, 0, 1) @ _XYZ.T
        root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        x, y, z = root.T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
        least = np.minimum(least, np.linalg.norm(lab[:, None] - lab[None], axis=2))
    return least


def _arrange(differences, contacts):
    """Return which colour each domain takes: swaps, as long as domains that touch look alike."""
    n, chosen = len(contacts), np.arange(len(contacts))
    touch = (np.maximum(contacts, contacts.T) > 0) & ~np.eye(n, dtype=bool)

    def measure(order):
        near = differences[np.ix_(order, order)][touch]
        return np.maximum(_DISTINCT - near, 0).sum()

    cost = measure(chosen)
    while cost > 0:
        swaps = [(a, b) for a in range(n) for b in range(a)]
        tried = []
        for a, b in swaps:
            order = chosen.copy()
            order[[a, b]] = order[[b, a]]
            tried.append(measure(order))
        best = int(np.argmin(tried))
        if tried[best] >= cost - 1e-9:
            break
        a, b = swaps[best]
        chosen[[a, b]] = chosen[[b, a]]
        cost = tried[best]
    return chosen


def count_contacts(coords, codes, n_domains, sections=None):
    """Return how many of the six nearest spots are of which domain: (n_domains, n_domains)."""
    counts = np.zeros((n_domains, n_domains))
    groups = np.zeros(len(coords)) if sections is None else np.asarray(sections)
    for section in np.unique(groups):
        own = np.flatnonzero((groups == section) & (codes >= 0))
        if len(own) < 2:
            continue
        near = cKDTree(coords[own]).query(coords[own], k=min(7, len(own)))[1][:, 1:]
        here, there = np.repeat(codes[own], near.shape[1]), codes[own][near.ravel()]
        np.add.at(counts, (here, there), 1)
    return counts


def match_panels(reference, other, palette):
    """Colour the reference's domains, and each other domain as the one that it is most alike.

    Two domains are alike by the share of spots that they have in common among those of either;
    below a tenth they aren't matched, so that no few spots give their colour to a large domain.
    """
    (own_codes, own_names), (codes, names) = reference, other
    colours = pick_colours(own_names, palette)
    if isinstance(palette, dict):
        return [(*reference, colours), (*other, pick_colours(names, palette))]
    both = (own_codes >= 0) & (codes >= 0)
    pairs = codes[both] * len(own_names) + own_codes[both]
    overlap = np.bincount(pairs, minlength=len(names) * len(own_names))
    overlap = overlap.reshape(len(names), len(own_names))
    either = overlap.sum(axis=0) + overlap.sum(axis=1)[:, None] - overlap
    share = overlap / np.maximum(either, 1)
    assigned = zip(*linear_sum_assignment(share, maximize=True), strict=True)
    matched = {i: j for i, j in assigned if share[i, j] >= _ALIKE}
    spare = iter(range(len(own_names), len(own_names) + len(names)))
    colour_of = np.array([matched[i] if i in matched else next(spare) for i in range(len(names))])
    further = _list_further(colours, palette, len(names))
    # Legends in the order of the colours, so that matched domains stand side by side.
    order = np.argsort(colour_of)
    rank = np.append(np.argsort(order), -1)
    shades = [[*colours, *further][colour_of[i]] for i in order]
    return [(own_codes, own_names, colours), (rank[codes], [names[i] for i in order], shades)]


def _list_further(colours, palette, n_further):
    """Return colours beyond those in use: of a list of them the rest, then the default ones."""
    rest = [] if palette is None or isinstance(palette, str) else list(palette[len(colours) :])
    used = to_rgba([*colours, *rest]) if len(colours) + len(rest) else np.empty((0, 4))
    default = to_rgba(name_colours(len(used) + n_further))
    free = (np.abs(default[:, None] - used).max(axis=2) > 1e-2).all(axis=1)
    return [*rest, *map(tuple, default[free, :3])]


def to_rgba(colours):
    """Colours of any kind as array (n_colours, 4)."""
    from matplotlib.colors import to_rgba_array

    return np.vstack([to_rgba_array(colour) for colour in colours])
