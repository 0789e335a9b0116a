"""Image-to-text and text-to-image retrieval, with several captions an image (A.6).

An image is found at k if any of its captions is among the k texts most similar
to it; a caption is found if its image is among the k images most similar to it,
both among all texts and images of the evaluation set. Similarity is the dot
product of the embeddings.

Ties count against the model: the rank of the right candidate is the number of
wrong ones that are at least as similar (up to `embedding.tie_tolerance`). So a
model that gives all inputs one embedding finds nothing. Only a candidate's index
makes it right: an image with the same pixels, or another image's caption with
the same words, is a wrong candidate, as in COCO's practice, and since it ties
with the right one, neither is found at 1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from classact.models import registry
from classact.nodes import embedding
from classact.nodes import mesh as mesh_lib
from classact.nodes.evaluator import Measure

KS = (1, 5, 10)
_PADDING = -1


def recalls(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    image_of: np.ndarray,
    ks: Sequence[int] = KS,
    block: int = 1024,
) -> dict[str, float]:
    """Computes the recalls of both directions.

    The similarities are computed block by block, and every block is used for
    both directions. Memory besides the arguments: one copy of the embeddings on
    the device, and about 6 bytes for each of block² similarities.

    Args:
        image_embeddings: float32[N, D].
        text_embeddings: float32[M, D].
        image_of: int64[M], the image that each text describes.
        ks: at which ranks; if there are at most k candidates, recall at k is 1.
        block: images and texts that are compared at once.

    Returns:
        `i2t_r<k>`, the share of images found, and `t2i_r<k>`, the share of texts
        found, in [0, 1], for each k.

    Raises:
        ValueError: if shapes do not fit, an embedding is not finite (it names
            the row), an image of `image_of` is out of range, or an image has no
            text.
    """
    images = np.asarray(image_embeddings, np.float32)
    texts = np.asarray(text_embeddings, np.float32)
    image_of = np.asarray(image_of)
    _check(images, texts, image_of)
    if block < 1 or min(ks) < 1:
        raise ValueError(f"block={block}, ks={tuple(ks)}: expected at least 1")
    image_ranks, text_ranks = _ranks(images, texts, image_of, block)
    return {
        **{f"i2t_r{k}": float(np.mean(image_ranks < k)) for k in ks},
        **{f"t2i_r{k}": float(np.mean(text_ranks < k)) for k in ks},
    }


def retrieval(
    model: registry.Model,
    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]],
    image_of: np.ndarray,
    batch_size: int = 256,
    ks: Sequence[int] = KS,
    block: int = 1024,
    mesh: Mesh | None = None,
) -> Measure:
    """Builds `measure` for image–text pairs: recalls over the whole data set.

    An image is embedded with the first of its pairs, and not again with its
    other captions. Pairs that the batches leave out are neither queries nor
    candidates. All embeddings are held in memory.

    Args:
        model: two towers: `image_embedding` and `text_embedding` float32[B, D],
            of unit norm.
        batches: gives every pair at most once: `image` uint8[B, H, W, C], `text`
            int32[B, L] and `id` int64[B], the pair's index; B may vary.
        image_of: int64[num_pairs], the image of each pair; equal numbers are
            captions of one image.
        batch_size: images, and texts, that are embedded at once.
        ks: see `recalls`.
        block: see `recalls`.
        mesh: the devices that embed, each some of the rows; None: one. What follows is done by one.

    Returns:
        A function of variables that gives the `recalls`, `pairs` and `images`:
        how many of each were there. It raises ValueError if an embedding is not
        finite, an `id` is out of range or comes twice, or there are no pairs.

    Raises:
        ValueError: if `image_of` is not int64[num_pairs] of non-negative numbers.
    """
    image_of = np.asarray(image_of)
    if image_of.ndim != 1 or image_of.dtype.kind != "i" or not image_of.size or image_of.min() < 0:
        raise ValueError(
            f"image_of is {image_of.dtype}{list(image_of.shape)}: expected int64[num_pairs] from 0 on"
        )
    embed_image, embed_text = embedding.image_tower(model, mesh), embedding.text_tower(model, mesh)

    def measure(variables: embedding.Variables) -> dict[str, float]:
        variables = mesh_lib.everywhere(mesh, variables)
        images = embedding.embedder(embed_image, variables, batch_size)
        texts = embedding.embedder(embed_text, variables, batch_size)
        numbering = _Numbering(image_of)
        rows = []
        for batch in batches():
            text_rows, new = numbering.add(batch["id"])
            images.add(batch["image"][new])
            texts.add(batch["text"])
            rows.append(text_rows)
        found = recalls(images.finish(), texts.finish(), np.concatenate(rows), ks, block)
        return {**found, "pairs": float(numbering.pairs), "images": float(numbering.images)}

    return measure


class _Numbering:
    """Numbers the images in the order in which their first pairs come."""

    def __init__(self, image_of: np.ndarray) -> None:
        self.pairs = self.images = 0
        self._image_of = image_of
        self._row = np.full(image_of.max() + 1, -1)
        self._seen = np.zeros(len(image_of), bool)

    def add(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the pairs of a batch, int64[B].

        Returns:
            The number of each pair's image, int64[B], and the positions in the
            batch, in order, of the images that are new.
        """
        for pair in ids.tolist():
            if not 0 <= pair < len(self._seen):
                raise ValueError(f"pair {pair}: expected 0 to {len(self._seen) - 1}")
            if self._seen[pair]:
                raise ValueError(f"pair {pair} came twice: expected the data set once")
            self._seen[pair] = True
        image = self._image_of[ids]
        different, first = np.unique(image, return_index=True)
        new = np.sort(first[self._row[different] < 0])
        self._row[image[new]] = self.images + np.arange(len(new))
        self.images += len(new)
        self.pairs += len(ids)
        return self._row[image], new


def _check(images: np.ndarray, texts: np.ndarray, image_of: np.ndarray) -> None:
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1:] != texts.shape[1:] or 0 in images.shape:
        raise ValueError(
            f"embeddings of shapes {images.shape} and {texts.shape}: expected (N, D) and (M, D), none 0"
        )
    if image_of.shape != texts.shape[:1] or image_of.dtype.kind != "i":
        raise ValueError(
            f"image_of is {image_of.dtype}{list(image_of.shape)}: expected int64[{len(texts)}], one a text"
        )
    outside = np.flatnonzero((image_of < 0) | (image_of >= len(images)))
    if outside.size:
        raise ValueError(
            f"text {outside[0]} is of image {image_of[outside[0]]}: expected 0 to {len(images) - 1}"
        )
    alone = np.flatnonzero(np.bincount(image_of, minlength=len(images)) == 0)
    if alone.size:
        raise ValueError(f"image {alone[0]} has no text ({alone.size} such images)")
    embedding.check_finite("image", images)
    embedding.check_finite("text", texts)


def _ranks(
    images: np.ndarray, texts: np.ndarray, image_of: np.ndarray, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each image's best caption, int[N], and of each text's image, int[M], from 0."""
    tolerance = embedding.tie_tolerance(images, texts)
    text_floor = np.empty(len(texts))
    for start in range(0, len(texts), block):
        part = slice(start, start + block)
        pairs = images[image_of[part]], texts[part]
        text_floor[part] = np.einsum("md,md->m", *pairs, dtype=np.float64) - tolerance
    image_floor = np.full(len(images), -np.inf)
    np.maximum.at(image_floor, image_of, text_floor)

    image_blocks = _blocks(block, images, np.arange(len(images)), image_floor)
    text_blocks = _blocks(block, texts, image_of, text_floor)
    image_ranks = [jnp.zeros(block, jnp.int32) for _ in image_blocks]
    text_ranks = [jnp.zeros(block, jnp.int32) for _ in text_blocks]
    for i, image_block in enumerate(image_blocks):
        for j, text_block in enumerate(text_blocks):
            image_ranks[i], text_ranks[j] = _add_wrong(
                image_ranks[i], text_ranks[j], *image_block, *text_block
            )
    return np.concatenate(image_ranks)[: len(images)], np.concatenate(text_ranks)[: len(texts)]


def _blocks(
    block: int, embeddings: np.ndarray, index: np.ndarray, floor: np.ndarray
) -> list[tuple[jax.Array, jax.Array, jax.Array]]:
    """(embeddings float32[B, D], image index int32[B], floor float32[B]) on the device, the last padded."""
    blocks = []
    for start in range(0, len(embeddings), block):
        part = slice(start, start + block)
        pad = max(start + block - len(embeddings), 0)
        arrays = (
            np.pad(embeddings[part], ((0, pad), (0, 0))),
            np.pad(index[part].astype(np.int32), (0, pad), constant_values=_PADDING),
            np.pad(floor[part].astype(np.float32), (0, pad)),
        )
        blocks.append(jax.device_put(arrays))
    return blocks


@jax.jit
def _add_wrong(
    image_ranks: jax.Array,
    text_ranks: jax.Array,
    images: jax.Array,
    image_index: jax.Array,
    image_floor: jax.Array,
    texts: jax.Array,
    image_of: jax.Array,
    text_floor: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Adds to the ranks int32[B] the wrong candidates of one block that reach the query's floor."""
    # An accelerator's default is a product of fewer bits, which makes ties.
    similarity = jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)
    rows, columns = image_index[:, None], image_of[None, :]
    wrong = (rows != columns) & (rows != _PADDING) & (columns != _PADDING)
    return (
        image_ranks + jnp.sum(wrong & (similarity >= image_floor[:, None]), axis=1, dtype=jnp.int32),
        text_ranks + jnp.sum(wrong & (similarity >= text_floor[None, :]), axis=0, dtype=jnp.int32),
    )
