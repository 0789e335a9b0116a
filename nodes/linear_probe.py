"""A linear classifier on features that do not change: multinomial logistic regression by L-BFGS."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

# How strongly weights are held small, where nobody says it: the one that does best on examples apart.
L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_APART = 0.1
# Fewer examples than this tell nothing of the others.
_LEAST_APART = 20
_MAX_ITERATIONS = 500


@dataclasses.dataclass(frozen=True)
class Head:
    """A linear classifier: logits are features · kernel + bias.

    Attributes:
        kernel: float32[D, K].
        bias: float32[K].
        l2: of its weights, as chosen or given.
        passes: examples that went through it, forward and backward, in all fits.
    """

    kernel: np.ndarray
    bias: np.ndarray
    l2: float
    passes: int

    @property
    def macs(self) -> float:
        """What the fits have cost: a product forward, and one backward, as the features have no gradient."""
        return float(2 * self.kernel.size * self.passes)


def fit(
    features: np.ndarray, labels: np.ndarray, num_classes: int, l2: Sequence[float] = L2, seed: int = 0
) -> Head:
    """Fits a head: the mean cross-entropy, plus `l2` / 2 · the sum of squared weights.

    The weights that are held small are those of features of mean 0 and deviation 1; the head that is
    returned takes the features as they are. Blocks until it is fitted: at most 500 steps of L-BFGS each.

    Args:
        features: float32[N, D], finite.
        labels: int[N], 0 to K − 1. Classes may be lacking: they become improbable.
        num_classes: K.
        l2: at least one, each at least 0. Of several the one is taken with the smallest loss on a tenth of
            the examples, which the fits have not seen; then all are fitted.
        seed: which tenth.

    Raises:
        ValueError: if there are no examples, or features that are not finite.
    """
    if not len(features) or not np.isfinite(features).all():
        raise ValueError(f"{len(features)} examples: expected at least one, and finite features")
    mean, std = features.mean(axis=0), features.std(axis=0)
    # What does not change says nothing.
    std = np.where(std > 1e-6, std, 1.0).astype(np.float32)
    scaled = (features - mean) / std
    passes, best = 0, l2[0]
    if len(l2) > 1:
        order = np.random.default_rng(seed).permutation(len(scaled))
        count = int(_APART * len(scaled))
        apart, rest = order[:count], order[count:]
        if count >= _LEAST_APART:
            losses = []
            start = None
            # From strong to weak, each begins where the one before it has ended.
            for value in sorted(l2, reverse=True):
                start, made = _minimised(scaled[rest], labels[rest], num_classes, value, start)
                passes += made
                losses.append((_loss_of(start, scaled[apart], labels[apart]), value))
            best = min(losses)[1]
        else:
            best = sorted(l2)[len(l2) // 2]
    (kernel, bias), made = _minimised(scaled, labels, num_classes, best, None)
    kernel = kernel / std[:, None]
    return Head(kernel, (bias - mean @ kernel).astype(np.float32), best, passes + made)


def _loss(head: Any, features: jax.Array, labels: jax.Array) -> jax.Array:
    kernel, bias = head
    logits = jnp.matmul(features, kernel, precision=jax.lax.Precision.HIGHEST) + bias[None]
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=1))


def _regularised(head: Any, features: jax.Array, labels: jax.Array, l2: jax.Array) -> jax.Array:
    return _loss(head, features, labels) + 0.5 * l2 * jnp.sum(head[0] ** 2)


_value_and_gradient = jax.jit(jax.value_and_grad(_regularised))
_value = jax.jit(_loss)


def _loss_of(head: Any, features: np.ndarray, labels: np.ndarray) -> float:
    return float(_value(head, features, np.asarray(labels, np.int32)))


def _minimised(features: np.ndarray, labels: np.ndarray, num_classes: int, l2: float, start: Any) -> Any:
    """The head (kernel, bias) of the smallest loss, and how many examples went through it."""
    width = features.shape[1]
    on_device, targets = jnp.asarray(features), jnp.asarray(labels, jnp.int32)

    def head_of(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kernel = flat[: width * num_classes].reshape(width, num_classes)
        return kernel.astype(np.float32), flat[width * num_classes :].astype(np.float32)

    def evaluated(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _value_and_gradient(head_of(flat), on_device, targets, np.float32(l2))
        return float(value), np.concatenate([np.asarray(part, np.float64).ravel() for part in gradient])

    begin = np.zeros((width + 1) * num_classes)
    if start is not None:
        begin = np.concatenate([part.ravel() for part in start]).astype(np.float64)
    options = {"maxiter": _MAX_ITERATIONS, "gtol": 1e-5}
    found = scipy.optimize.minimize(evaluated, begin, jac=True, method="L-BFGS-B", options=options)
    return head_of(found.x), int(found.nfev) * len(features)
