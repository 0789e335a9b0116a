"""Zero-shot classification: the nearest class by prompts that name it (A.6).

A class is the mean of the embeddings of its prompts, one prompt a template, and
its score for an image is the dot product with the image's embedding.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from classact.data import prompts
from classact.models import registry
from classact.nodes import embedding
from classact.nodes import mesh as mesh_lib
from classact.nodes import per_class as per_class_lib
from classact.nodes.evaluator import Measure

# encode(texts) -> int32[B, L]: a tokenizer's method.
Encode = Callable[[list[str]], np.ndarray]
_BLOCK = 1024


def class_embeddings(
    embed_text: Callable[[np.ndarray], np.ndarray | jax.Array],
    encode: Encode,
    class_names: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> np.ndarray:
    """Embeds classes by their prompts.

    Each prompt's embedding is scaled to unit norm, the class's are averaged, and
    the mean is scaled to unit norm again. All K·T embeddings of K classes and T
    templates are held in memory.

    Args:
        embed_text: maps int32[B, L] to float32[B, D]; it is called with
            B = `batch_size` only.
        encode: maps texts to tokens int32[B, L].
        class_names: K names; `-` and `_` in them are read as spaces.
        templates: T texts, each with one `{}` for the name.
        batch_size: prompts that are embedded at once.

    Returns:
        float32[K, D].

    Raises:
        ValueError: if there are no classes or no templates, a name has no words,
            or an embedding is not finite; it names the prompt.
    """
    texts = _prompts(class_names, templates)
    embedder = embedding.Embedder(embed_text, batch_size)
    for start in range(0, len(texts), batch_size):
        embedder.add(encode(texts[start : start + batch_size]))
    embeddings = embedder.finish()
    for text, finite in zip(texts, np.isfinite(embeddings).all(axis=1), strict=True):
        if not finite:
            raise ValueError(f"the embedding of {text!r} is not finite")
    per_class = _unit(embeddings).reshape(len(class_names), len(templates), -1)
    return _unit(per_class.mean(axis=1))


def zero_shot(
    model: registry.Model,
    encode: Encode,
    class_names: Sequence[str],
    templates: Sequence[str],
    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]],
    batch_size: int = 256,
    mesh: Mesh | None = None,
) -> Measure:
    """Builds `measure` for a labelled data set: zero-shot top-1 and top-5 accuracy.

    Ties count against the model: the rank of the right class is the number of
    wrong ones with at least its score (up to `embedding.tie_tolerance`), so two
    classes of one name are never told apart. The embeddings of all images are
    held in memory.

    Args:
        model: two towers: `image_embedding` and `text_embedding` float32[B, D],
            of unit norm.
        encode: maps texts to tokens int32[B, L].
        class_names: the name of each label, K in all.
        templates: see `class_embeddings`.
        batches: gives the whole data set once: `image` uint8[B, H, W, C] and
            `label` int32[B]; B may vary.
        batch_size: images, and prompts, that are embedded at once.
        mesh: the devices that embed, each some of the rows; None: one.

    Returns:
        A function of variables that gives `zero_shot_top1` and, if there are
        more than five classes, `zero_shot_top5`: shares of the examples; and what
        `per_class.measured` makes of the classes. It raises ValueError if an
        embedding is not finite, a label has no name, or there are no examples.

    Raises:
        ValueError: if there are no classes or no templates, or a name has no words.
    """
    _prompts(class_names, templates)
    embed_image, embed_text = embedding.image_tower(model, mesh), embedding.text_tower(model, mesh)

    def measure(variables: embedding.Variables) -> per_class_lib.Measured:
        variables = mesh_lib.everywhere(mesh, variables)
        of_variables = functools.partial(embed_text, variables)
        classes = class_embeddings(of_variables, encode, class_names, templates, batch_size)
        images = embedding.embedder(embed_image, variables, batch_size)
        labels = []
        for batch in batches():
            images.add(batch["image"])
            labels.append(batch["label"])
        right = np.concatenate(labels)
        ranks = label_ranks(images.finish(), classes, right)
        tops = (1, 5) if len(classes) > 5 else (1,)
        examples, correct = (
            np.bincount(found, minlength=len(classes)) for found in (right, right[ranks == 0])
        )
        values = {f"zero_shot_top{k}": float(np.mean(ranks < k)) for k in tops}
        return per_class_lib.measured(values, examples, correct, class_names, "zero_shot_")

    return measure


def label_ranks(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts the wrong classes whose score is not below the right one's.

    Args:
        images: float32[N, D], embeddings.
        classes: float32[K, D], embeddings.
        labels: int[N], the right class of each image.

    Returns:
        int64[N]: 0 where the right class is alone at the top.

    Raises:
        ValueError: if an embedding is not finite or a label out of range.
    """
    embedding.check_finite("image", images)
    embedding.check_finite("class", classes)
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        raise ValueError(
            f"example {outside[0]} has label {labels[outside[0]]}: expected 0 to {len(classes) - 1}, "
            "one a class name"
        )
    tolerance = embedding.tie_tolerance(images, classes)
    ranks = np.empty(len(images), np.int64)
    for start in range(0, len(images), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = images[part] @ classes.T
        right = np.take_along_axis(scores, labels[part, None], axis=1)
        # The right class reaches its own floor.
        ranks[part] = np.count_nonzero(scores >= right - tolerance, axis=1) - 1
    return ranks


def _prompts(class_names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The texts that name the classes, one class after the other."""
    if not class_names or not templates:
        raise ValueError(
            f"{len(class_names)} class names and {len(templates)} templates: expected at least one of each"
        )
    return [prompts.fill(template, name) for name in class_names for template in templates]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scales the last axis to unit norm; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)
