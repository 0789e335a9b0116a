"""Whether draws follow the softmax over what is in a table: an exact test of every single draw."""

import collections

import numpy as np
from scipy import stats

# Random numbers of a whole program cannot be seeded: a level that chance does not reach.
LEVEL = 1e-6


class Table:
    """What is in a table, item by item, as it is filled and drawn from; the oldest leaves when it is full.

    Before each draw the law gives each item a probability. Laid out from 0 to 1 in the
    order of the items' weights, a random point of the drawn one's part is uniform on
    [0, 1], whatever was there, and independent of all other draws; in the order of
    their ages likewise. So a law of the scores and a law of the ages can be tested with
    all draws at once, without simulating anything.
    """

    def __init__(self, capacity, seed=0):
        self._capacity = capacity
        self._rng = np.random.default_rng(seed)
        # By id, in the order in which they came.
        self._weights = collections.OrderedDict()
        self.by_weight, self.by_age, self.drawn = [], [], []

    @property
    def ids(self):
        return list(self._weights)

    def insert(self, ids, weights):
        for item, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            self._weights[item] = weight
            if len(self._weights) > self._capacity:
                self._weights.popitem(last=False)

    def remove(self, drawn):
        """Takes out what was drawn at moments that are not known."""
        for item in drawn.tolist():
            del self._weights[item]

    def draw(self, drawn):
        for item in drawn.tolist():
            ids = np.array(list(self._weights))
            weights = np.array(list(self._weights.values()))
            law = np.exp(weights - weights.max())
            law /= law.sum()
            place = int(np.flatnonzero(ids == item)[0])
            for points, order in (
                (self.by_weight, np.argsort(weights, kind="stable")),
                (self.by_age, np.arange(len(ids))),
            ):
                before = law[order][: int(np.flatnonzero(order == place)[0])].sum()
                points.append(before + self._rng.uniform() * law[place])
            del self._weights[item]
            self.drawn.append(item)

    def assert_law(self):
        assert p_value(self.by_weight) > LEVEL
        assert p_value(self.by_age) > LEVEL


def p_value(points):
    """The Kolmogorov–Smirnov test of points that should be uniform on [0, 1]."""
    return stats.kstest(np.clip(points, 0.0, 1.0), "uniform").pvalue
