"""Joint example selection: a sub-batch whose pairs fit each other, out of a super-batch (JEST).

In a contrastive loss pairs of images and texts are each other's negatives, so a batch is worth
more than what its pairs are worth one by one. Evans et al., "Data curation via joint example
selection further accelerates multimodal learning" (2024, arXiv 2406.17711), draw it in n chunks,
without replacement: the first by exp(S_ii), each further one by exp of S_ii and of what an example
adds to those that are there.

Sigmoid loss: it is a sum over all [B, B] pairs of an image and a text, and so is the score
S = ℓ(online) − ℓ(reference). Example i adds Σ_j (S_ij + S_ji) over the chosen j.

Softmax loss: it is no such sum. Of each model the loss of i alone is −logit_ii, and what i adds
are its negatives, ½ (log Σ_j exp logit_ij + log Σ_j exp logit_ji) over the chosen j; both online
minus reference.

Which losses a score has is the policy's: both for `jest`, one for `jest_easy` and `jest_hard`.
The whole score is divided by the temperature; the paper's is 1.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from classact.selection.policies import Policy

LOSSES = ("infonce", "sigmoid")

# A whole score that is NaN or -inf counts as this, +inf as its negative: last and first of all.
_LEAST = -1e30
# After all that can be used; what has been chosen is at -inf.
_UNUSABLE = 2 * _LEAST


class Embedded(NamedTuple):
    """What a model makes of B pairs.

    Attributes:
        image: float[B, D], of norm 1.
        text: float[B, D], of norm 1.
        scale: float32[], of the similarities.
        bias: float32[], which only the sigmoid loss uses.
    """

    image: Any
    text: Any
    scale: Any
    bias: Any


class Drawn(NamedTuple):
    """A sub-batch.

    Attributes:
        rows: int32[b], which examples, in the order of the draws.
        own: float32[b], S_ii of each.
        added: float32[b], what each added to those of the chunks before its own; 0 in the first.
    """

    rows: jax.Array
    own: jax.Array
    added: jax.Array


@dataclasses.dataclass(frozen=True)
class JointScore:
    """The score of a policy between examples; its methods can be jitted.

    Attributes:
        policy: says which models there are. Its score is applied to what losses are made of, arrays
            of any one shape, element by element.
        loss: ℓ_learn, one of `LOSSES`.

    Raises:
        ValueError: for an unknown loss.
    """

    policy: Policy
    loss: str

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: expected one of {LOSSES}")

    @property
    def roles(self) -> tuple[str, ...]:
        """The models: "online", "reference" or both, in this order."""
        wanted = {"online": self.policy.online, "reference": self.policy.reference}
        return tuple(role for role, kind in wanted.items() if kind is not None)

    def own(self, embedded: Mapping[str, Embedded]) -> jax.Array:
        """S_ii, what each pair is worth alone: float32[B].

        Args:
            embedded: by role, of `roles`.
        """

        def loss(model: Embedded) -> jax.Array:
            logits = self._scaled(jnp.sum(_wide(model.image) * _wide(model.text), axis=-1), model)
            return -jax.nn.log_sigmoid(logits) if self.loss == "sigmoid" else -logits

        return self._difference({role: loss(embedded[role]) for role in self.roles})

    def matrix(self, embedded: Mapping[str, Embedded]) -> jax.Array:
        """S of the sigmoid loss, float32[B, B]: of image i and text j; its sum is what the batch is worth."""

        def loss(model: Embedded) -> jax.Array:
            logits = self._logits(model, None)[:, 0]
            own = jnp.eye(len(logits), dtype=bool)
            return -jax.nn.log_sigmoid(jnp.where(own, logits, -logits))

        return self._difference({role: loss(embedded[role]) for role in self.roles})

    def terms(self, embedded: Mapping[str, Embedded], rows: Optional[jax.Array] = None) -> jax.Array:
        """What two examples have to do with each other, for `draw`.

        Args:
            embedded: by role, of `roles`.
            rows: int32[R], of which examples i; None: of all B. Devices that each compute some rows
                exchange nothing for it.

        Returns:
            float32[R, T, B]. With the sigmoid loss T = 1: S_ij + S_ji, for i ≠ j alone. With the
            softmax loss T = 2 for each model, in the order of `roles`: logit_ij and logit_ji.
        """
        logits = {role: self._logits(embedded[role], rows) for role in self.roles}
        if self.loss == "infonce":
            return jnp.concatenate(list(logits.values()), axis=1)
        # An image and the text of another example: a negative.
        losses = {role: -jax.nn.log_sigmoid(-found) for role, found in logits.items()}
        return self._difference(losses).sum(1, keepdims=True)

    def draw(
        self, own: jax.Array, terms: jax.Array, seed: Any, *, size: int, chunks: int, temperature: float
    ) -> Drawn:
        """Draws a sub-batch in chunks, without replacement.

        Of a chunk those with the largest sums of score / temperature and Gumbel noise: as many draws
        in sequence from the softmax. So equal scores have equal chances. An example whose own score
        is not finite is taken only when no other is left. A whole score that is NaN or -inf comes
        after all finite ones, +inf before; among such the smaller index comes first.

        Args:
            own: float32[B], of `own`.
            terms: float32[B, T, B], of `terms`.
            seed: uint32[], of the noise.
            size: b, from 1 to B.
            chunks: n, at least 1. At most b are made; their sizes differ by 1 at most, the larger first.
            temperature: of the softmax, above 0, in the units of a score.

        Raises:
            ValueError: for a size or a number of chunks out of range.
        """
        examples = len(own)
        if not 1 <= size <= examples or chunks < 1:
            raise ValueError(f"size={size}, chunks={chunks}: must be 1 to {examples}, and at least 1")
        key = jax.random.key(jnp.asarray(seed, jnp.uint32))
        usable = jnp.isfinite(own)

        def draw_chunk(count: int, carry: Any, index: jax.Array) -> tuple[Any, Drawn]:
            taken, sums = carry
            # Nothing is added to nothing.
            added = jnp.where(jnp.any(taken), self._added(sums), 0.0)
            whole = jnp.nan_to_num((own + added) / temperature, nan=_LEAST, posinf=-_LEAST, neginf=_LEAST)
            noise = jax.random.gumbel(jax.random.fold_in(key, index), (examples,), own.dtype)
            ranked = jnp.where(usable, jnp.clip(whole, _LEAST, -_LEAST) + noise, _UNUSABLE)
            _, rows = jax.lax.top_k(jnp.where(taken, -jnp.inf, ranked), count)
            more = terms[:, :, rows]
            if self.loss == "sigmoid":
                sums = sums + more.sum(-1)
            else:
                sums = jnp.logaddexp(sums, jax.nn.logsumexp(more, axis=-1))
            return (taken.at[rows].set(True), sums), Drawn(rows, own[rows], added[rows])

        nothing = 0.0 if self.loss == "sigmoid" else -jnp.inf
        carry = (jnp.zeros(examples, bool), jnp.full(terms.shape[:2], nothing, terms.dtype))
        chunks = min(chunks, size)
        smaller, larger = divmod(size, chunks)
        parts, begun = [], 0
        # Chunks of one size are one compiled body.
        for count, times in ((smaller + 1, larger), (smaller, chunks - larger)):
            if times:
                numbers = jnp.arange(begun, begun + times)
                carry, drawn = jax.lax.scan(functools.partial(draw_chunk, count), carry, numbers)
                parts.append(jax.tree.map(lambda array: array.reshape(-1), drawn))
                begun += times
        return Drawn(*(jnp.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _added(self, sums: jax.Array) -> jax.Array:
        """What each example would add to the chosen, float32[B], from float32[B, T]."""
        if self.loss == "sigmoid":
            return sums[:, 0]
        negatives = sums.reshape(len(sums), len(self.roles), 2).mean(-1)
        return self._difference({role: negatives[:, place] for place, role in enumerate(self.roles)})

    def _difference(self, losses: Mapping[str, jax.Array]) -> jax.Array:
        """The policy's score of losses by role."""
        online, reference = (
            {"loss": losses[role]} if role in losses else None for role in ("online", "reference")
        )
        return self.policy.score(online, reference)

    def _logits(self, model: Embedded, rows: Optional[jax.Array]) -> jax.Array:
        """logit_ij and logit_ji, float32[R, 2, B]."""
        image, text = _wide(model.image), _wide(model.text)
        if rows is None:
            similarities = _product(image, text)
            both = similarities, similarities.T
        else:
            both = _product(image[rows], text), _product(text[rows], image)
        return self._scaled(jnp.stack(both, axis=1), model)

    def _scaled(self, similarities: jax.Array, model: Embedded) -> jax.Array:
        scaled = similarities * model.scale
        return scaled + model.bias if self.loss == "sigmoid" else scaled


def matrix_macs(examples: int, width: int) -> int:
    """MACs of a model's similarities, [B, B], of embeddings [B, D], as `JointScore.terms` has them."""
    return examples * examples * width


def _product(queries: jax.Array, keys: jax.Array) -> jax.Array:
    # Accelerators would round to fewer bits than the embeddings have.
    return jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST)


def _wide(embedding: jax.Array) -> jax.Array:
    return embedding.astype(jnp.float32)
