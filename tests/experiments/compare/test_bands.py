import numpy as np
import pytest

from classact.experiments.compare import bands


def test_aggregate_interpolates_over_the_common_range():
    band = bands.aggregate([[(0, 0.0), (20, 0.2), (40, 0.4)], [(10, 0.3), (30, 0.5)]])
    np.testing.assert_allclose(band.steps, [10, 20, 30])
    np.testing.assert_allclose(band.low, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(band.high, [0.3, 0.4, 0.5])
    np.testing.assert_allclose(band.mean, [0.2, 0.3, 0.4])


@pytest.mark.parametrize("several", [[], [[]], [[(1, 0.5)], []]])
def test_aggregate_of_nothing_is_refused(several):
    with pytest.raises(ValueError, match="one or more"):
        bands.aggregate(several)
