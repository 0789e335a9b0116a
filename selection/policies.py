"""Selection policies: which losses a score needs, and the score itself.

A score is ℓ_act(x; online) − ℓ_act(x; reference), with a missing term taken as
0. Which models that involves is data (`Policy`), so that the learner, the
inference servers, the configuration and the cost ledger all read it from the
same place.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional

from classact import user_code

# The configuration reads this table, also where nothing is computed and JAX takes a second to load.
if TYPE_CHECKING:
    import jax

# What a scoring model returned for a batch: `loss: float32[B]` (ℓ_act) and
# everything else that the model's forward pass gave, for instance `logits`.
ModelOutputs = Mapping[str, "jax.Array"]
ScoreFn = Callable[[Optional[ModelOutputs], Optional[ModelOutputs]], "jax.Array"]

ONLINE_KINDS = (None, "learner", "proxy")
REFERENCE_KINDS = (None, "fixed", "trained")
REFERENCE_DATA = ("in_domain", "held_out")
PREPARED = (None, "share", "order")


def loss_difference(online: Optional[ModelOutputs], reference: Optional[ModelOutputs]) -> "jax.Array":
    """The score of every policy in the paper: Eq. 2 to 5.

    Args:
        online: outputs of the online model, or None if the policy has none.
        reference: outputs of the reference model, or None.

    Returns:
        float32[B], ℓ_act(online) − ℓ_act(reference).

    Raises:
        ValueError: if both are None: there is nothing to score with.
    """
    if online is None:
        if reference is None:
            raise ValueError("a score needs the outputs of an online or of a reference model")
        return -reference["loss"]
    if reference is None:
        return online["loss"]
    return online["loss"] - reference["loss"]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A selection policy, as data.

    Attributes:
        name: the name that `--config.policy` takes.
        online: the model of the score's first term: None, "learner" (scored
            with the learner's own parameters) or "proxy" (a small model with
            the reference's architecture, trained on the learner's sub-batches).
        reference: the model of the second term: None, "fixed" (read from a
            checkpoint) or "trained" (in the same run, on the IID super-batch).
        reference_data: what a fixed reference must have been trained on:
            "in_domain" or "held_out" (data that the learner never sees).
        score: `score(online, reference) -> float32[B]`; see `ModelOutputs`.
            It is traced by JAX: use `jax.numpy`.
        joint: whether a sub-batch is chosen together, see `joint`, by scores between pairs of
            examples: `score` then takes and gives losses of any shape, element by element.
        prepared: what a policy that scores nothing goes by, made before the run: "share",
            the best share of the data by score files, or "order", the order in which
            another run has learned. None: nothing.
        paper: where the paper defines it.
    """

    name: str
    online: Optional[str] = None
    reference: Optional[str] = None
    reference_data: str = "in_domain"
    score: ScoreFn = loss_difference
    joint: bool = False
    prepared: Optional[str] = None
    paper: str = ""

    def __post_init__(self) -> None:
        for field, value, accepted in (
            ("online", self.online, ONLINE_KINDS),
            ("reference", self.reference, REFERENCE_KINDS),
            ("reference_data", self.reference_data, REFERENCE_DATA),
            ("prepared", self.prepared, PREPARED),
        ):
            if value not in accepted:
                raise ValueError(f"policy {self.name!r}: {field}={value!r}, expected one of {accepted}")
        if self.joint and (not self.scores or self.reference == "trained"):
            models = "an online model, a fixed reference, or both"
            raise ValueError(f"policy {self.name!r}: joint=True, expected with it {models}")

    @property
    def scores(self) -> bool:
        """Whether examples are scored at all (False: IID, no inference server)."""
        return self.online is not None or self.reference is not None

    @property
    def trained_models(self) -> tuple[str, ...]:
        """The models that the learner node trains, the learner first."""
        names = ["learner"]
        if self.online == "proxy":
            names.append("online")
        if self.reference == "trained":
            names.append("reference")
        return tuple(names)

    @property
    def published_models(self) -> tuple[str, ...]:
        """The trained models that an inference server follows."""
        names = []
        if self.online is not None:
            names.append("learner" if self.online == "learner" else "online")
        if self.reference == "trained":
            names.append("reference")
        return tuple(names)


_POLICIES: dict[str, Policy] = {}


def register(policy: Policy) -> Policy:
    """Makes a policy available to `--config.policy` under its name.

    The same function of the same module may come again, as when a module is reloaded.

    Raises:
        ValueError: if another policy has that name.
    """
    before = _POLICIES.get(policy.name, policy)
    if before != policy and not _is_reloaded(before.score, policy.score):
        raise ValueError(f"a policy named {policy.name!r} is registered already")
    _POLICIES[policy.name] = policy
    return policy


def _is_reloaded(before: ScoreFn, now: ScoreFn) -> bool:
    def origin(score: ScoreFn) -> tuple[Any, Any]:
        return getattr(score, "__module__", None), getattr(score, "__qualname__", None)

    return now is not loss_difference and origin(before) == origin(now)


def register_policy(name: str, **fields: Any) -> Callable[[ScoreFn], Policy]:
    """Decorator that turns a score function into a registered policy.

    Example:
        >>> @register_policy("confident_mistakes", online="proxy")
        ... def confident_mistakes(online, reference):
        ...     return online["loss"] * online["logits"].max(axis=-1)

    In the file `my_policies.py` it is `--config.policy=my_policies:confident_mistakes`.

    Args:
        name: the policy's name.
        **fields: the other fields of `Policy`.
    """

    def decorator(score: ScoreFn) -> Policy:
        return register(Policy(name=name, score=score, **fields))

    return decorator


def get(name: str) -> Policy:
    """Returns the policy of that name.

    Args:
        name: a registered name, or `package.module:attribute` of a `Policy`, which
            every process of a program finds by itself.

    Raises:
        ValueError: if there is none; the message gives the nearest names.
    """
    if ":" in name:
        return _imported(name)
    if name not in _POLICIES:
        near = difflib.get_close_matches(name, _POLICIES, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown policy {name!r}: {hint}known policies: {', '.join(names())}")
    return _POLICIES[name]


def _imported(path: str) -> Policy:
    found = user_code.find("policy", path)
    if not isinstance(found, Policy):
        raise user_code.UserCodeError(
            f"policy {path!r} is a {type(found).__name__}, expected a Policy: decorate the function of the "
            "two models' outputs with @policies.register_policy(...)"
        )
    user_code.adopt(found.score)
    return found


def importable_name(name: str) -> str:
    """The name under which every process finds a registered policy.

    Returns:
        The name as it is, of one of classact's own; `package.module:attribute` of one
        that another module has registered.

    Raises:
        ValueError: if that policy is no attribute of a module that can be imported.
    """
    if ":" in name or name in _OWN or name not in _POLICIES:
        return name
    return user_code.require_importable("policy", name, _POLICIES[name])


def names() -> tuple[str, ...]:
    """The names of all registered policies, in the order of registration."""
    return tuple(_POLICIES)


register(Policy("uniform", paper="IID baseline"))
register(Policy("hard_learner", online="learner", paper="Eq. 2"))
register(Policy("easy_reference", reference="fixed", paper="Eq. 3"))
register(Policy("rho", online="learner", reference="fixed", reference_data="held_out", paper="Eq. 5, RHO"))
register(Policy("learnability", online="learner", reference="fixed", paper="Eq. 5"))
register(Policy("classact_ho", online="proxy", reference="fixed", reference_data="held_out", paper="Table 1"))
register(Policy("classact", online="proxy", reference="fixed", paper="Algorithm 1"))
register(Policy("classact_online", online="proxy", reference="trained", paper="Algorithm 2"))
register(Policy("jest", online="learner", reference="fixed", joint=True, paper="JEST, learnability"))
register(Policy("jest_proxy", online="proxy", reference="fixed", joint=True, paper="JEST, online model"))
register(Policy("jest_easy", reference="fixed", joint=True, paper="JEST, easy reference"))
register(Policy("jest_hard", online="learner", joint=True, paper="JEST, hard learner"))
register(Policy("top_share", prepared="share", paper="offline curation, the baseline"))
register(Policy("curriculum", prepared="order", paper="Figure 2, foundation curriculum"))

# The names that every process knows by this module alone.
_OWN = names()
