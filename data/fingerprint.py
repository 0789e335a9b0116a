"""What tells one data set from another, without reading all of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from classact.data.source import Source
from classact.data.views import SourceView

_DIFFER = {
    "files": "names or sizes of its files, or captions, or contents, are others",
    "members": "names or sizes of its shards' members, or captions, or contents, are others",
    "rows": "names or sizes of its files, or labels, captions or images of its rows, are others",
    "contents": "images or labels are others",
}


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """A data set as it was opened, before it was split or shown differently.

    Attributes:
        num_examples: how many it has.
        image_shape: (H, W, C) in pixels.
        num_classes: 0 without labels.
        captioned: whether it has captions.
        digest: see `Source.digest`; empty if the source gives none.
    """

    num_examples: int
    image_shape: tuple[int, int, int]
    num_classes: int
    captioned: bool
    digest: str

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape)}


def fingerprint(source: Source) -> Fingerprint:
    """The fingerprint of the data set behind a source and its views.

    Noise, splits and tokens are not in it: they follow from the configuration.
    """
    while isinstance(source, SourceView):
        source = source.source
    return Fingerprint(
        source.num_examples, source.image_shape, source.num_classes, source.captioned, source.digest
    )


def same_contents(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two described fingerprints are known to be of the same data: a digest says so."""
    return bool(one.get("digest")) and one.get("digest") == other.get("digest")


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Says in a few words in what two described fingerprints differ; empty if they are alike.

    What one of them does not know, as it is of an older version or its source gives no
    digest, is no difference.

    Args:
        before: what was expected.
        now: what is there.
    """
    known = {name for name in before if name in now}
    changed = {name for name in known if before[name] != now[name]}
    said = []
    if "num_examples" in changed:
        more = now["num_examples"] - before["num_examples"]
        plural = "" if abs(more) == 1 else "s"
        kind = "more" if more > 0 else "fewer"
        said.append(
            f"{abs(more):,} example{plural} {kind} ({now['num_examples']:,} instead of "
            f"{before['num_examples']:,})"
        )
    if "num_classes" in changed:
        said.append(f"{now['num_classes']} classes instead of {before['num_classes']}")
    if "image_shape" in changed:
        shapes = ["×".join(map(str, each["image_shape"])) for each in (now, before)]
        said.append(f"images of {shapes[0]} instead of {shapes[1]}")
    if "captioned" in changed:
        said.append("captions, which were not there" if now["captioned"] else "no captions, which were there")
    if not said and "digest" in changed and before["digest"] and now["digest"]:
        kind, before_kind = (each["digest"].partition(":")[0] for each in (now, before))
        if kind == before_kind:
            said.append(f"the same number of examples, but {_DIFFER.get(kind, 'others')}")
    return ", ".join(said)
