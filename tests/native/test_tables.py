"""The logistic tables against floating-point arithmetic."""

import numpy as np

from cortado.native.tables import LIMIT, STEPS_PER_NAT, logistic_tables


def test_squash_is_the_logistic_function() -> None:
    squash, _ = logistic_tables()
    nats = np.arange(-LIMIT, LIMIT) / STEPS_PER_NAT
    assert np.abs(squash - np.clip(65536 / (1 + np.exp(-nats)), 1, 65535)).max() <= 1


def test_squash_is_symmetric_and_rises() -> None:
    squash = logistic_tables()[0].astype(np.int64)
    assert (squash[LIMIT + 1 :] + squash[LIMIT - 1 : 0 : -1] == 65536).all()
    assert (np.diff(squash) >= 0).all()


def test_stretch_inverts_squash() -> None:
    squash, stretch = logistic_tables()
    shares = np.arange(64, 65536 - 64)
    nats = np.log(shares / (65536 - shares)) * STEPS_PER_NAT
    slope = 65536 * STEPS_PER_NAT / (shares * (65536.0 - shares))  # of the inverse: steps for one unit of share
    assert (np.abs(stretch[shares] - nats) <= 1 + slope).all()
    assert (squash[stretch.astype(np.int64) + LIMIT][64:-64] >= shares).all()
