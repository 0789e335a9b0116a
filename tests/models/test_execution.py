"""How blocks are computed changes nothing of what is computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.models import cost, execution, registry, text, transformer, two_tower
from classact.models.execution import Execution

BATCH, TOKENS, HEADS, DEPTH = 3, 7, 2, 8
SHAPE, LENGTH = (8, 8, 3), 6


@functools.partial(jax.jit, static_argnames="causal")
def attended(q, k, v, up, causal, lengths):
    """What attention gives, and its gradients."""
    found, back = jax.vjp(lambda *inputs: Execution().attend(*inputs, causal, lengths), q, k, v)
    return found, *back(up)


@functools.partial(jax.jit, static_argnames="causal")
def written_out(q, k, v, up, causal, lengths):
    """The same as `models.transformer` computed it before: queries scaled, a softmax over what is seen."""

    def attend(q, k, v):
        places = jnp.arange(TOKENS)
        seen = (places[None] < lengths[:, None])[:, None, None]
        seen = seen & (places[:, None] >= places[None])[None, None] if causal else seen
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * DEPTH**-0.5, k)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, where=seen), v)

    found, back = jax.vjp(attend, q, k, v)
    return found, *back(up)


@settings(max_examples=25)
@given(
    causal=st.booleans(),
    lengths=st.none() | st.lists(st.integers(1, TOKENS), min_size=BATCH, max_size=BATCH),
    size=st.floats(0.01, 1.0),
    seed=st.integers(0, 99),
)
def test_attention_is_that_of_the_formula(causal, lengths, size, seed):
    rng = np.random.default_rng(seed)
    arrays = rng.uniform(-size, size, (4, BATCH, TOKENS, HEADS, DEPTH)).astype(np.float32)
    own = None if lengths is None else np.array(lengths, np.int32)
    full = np.full(BATCH, TOKENS, np.int32) if own is None else own
    found = attended(*arrays, causal, own)
    for a, b in zip(found, written_out(*arrays, causal, full), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def pair(**options):
    """Both towers, the images' of two blocks."""
    image = registry.create("vit_mu_2_1", num_classes=5, image_shape=SHAPE, patch_size=4, **options)
    how = execution.of_options(options)
    texts = text.TextTransformer(transformer.SIZES["mu_1_1"], 20, LENGTH, 19, 5, execution=how, causal=False)
    return two_tower.build(image, texts)


@pytest.fixture(scope="module")
def gradients():
    """A function of options that gives the gradients of a pair's parameters, and the function itself."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 19, (3, LENGTH)).astype(np.int32)
    tokens[:, 3] = 19
    batch = {"image": rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8), "text": tokens}
    shapes = jax.eval_shape(pair().init, jax.random.key(1))["params"]
    params = jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape).astype(np.float32), shapes)

    def of(**options):
        def loss(params):
            outputs, _ = pair(**options).apply({"params": params, "state": {}}, batch, train=True)
            return jnp.sum((outputs["image_embedding"] @ outputs["text_embedding"].T) ** 2)

        traced = jax.jit(jax.grad(loss)).trace(params)
        return traced.lower().compile()(params), str(traced.jaxpr)

    return of


@pytest.fixture(scope="module")
def plain(gradients):
    return gradients()


@pytest.mark.parametrize(
    "options",
    [{"remat": "attention"}, {"remat": "dots", "scan": True}, {"remat": True}],
    ids=str,
)
def test_no_way_to_compute_changes_a_gradient(gradients, plain, options):
    found, traced = gradients(**options)
    # The names too: a checkpoint is read however its model is computed.
    assert jax.tree.structure(found) == jax.tree.structure(plain[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, plain[0])
    assert ("remat" in traced) == ("remat" in options) and "remat" not in plain[1]
    assert ("scan[" in traced) == ("scan" in options) and "scan[" not in plain[1]


def test_what_is_kept_and_what_is_computed_again():
    kept, again = {}, {}
    image, tokens = (32, 32, 3), 17
    for remat in execution.REMAT:
        model = registry.create(
            "vit_mu_1_1", num_classes=10, image_shape=image, patch_size=8, remat=remat, scan=True
        )
        kept[remat] = cost.residual_bytes(model, image)
        again[remat] = cost.recomputed_macs(model, image)
    weights, mlp = tokens**2 * 64, 4 * 64
    per_token = 3 * 64**2 + 64**2 + 64 * mlp
    # Of a block: scores; scores and the mean by them; all but the last product.
    assert again == {
        "none": 0,
        "attention": weights,
        "dots": 2 * weights,
        "full": tokens * per_token + 2 * weights,
    }
    assert kept["full"] < kept["dots"] < kept["attention"] < kept["none"]
    # The block's input, float32, is among what is kept of any.
    assert kept["full"] > tokens * 64 * 4


def test_a_kernel_is_asked_for_where_there_is_one_and_never_where_costs_are_counted(monkeypatch):
    asked = []
    shape = (8, 8, 3)
    real = jax.nn.dot_product_attention

    def recorded(*arrays, implementation, **settings):
        asked.append(implementation)
        return real(*arrays, implementation=None, **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", recorded)

    def traced(**options):
        asked.clear()
        model = registry.create("vit_mu_1_1", num_classes=5, image_shape=shape, patch_size=4, **options)
        jax.eval_shape(model.init, jax.random.key(0))
        found, asked[:] = list(asked), []
        cost.forward_macs(model, shape)
        # To make parameters is no counting.
        return found, asked[-1:]

    fused = {"attention": "cudnn", "dtype": "bfloat16"}
    assert traced(**fused) == ([None], [None])
    backend = type("Backend", (), {"platform_version": "PJRT C API\ncuda 12090"})
    monkeypatch.setattr(execution.backend, "get_backend", lambda: backend)
    assert traced(**fused) == (["cudnn"], [None])
    assert traced() == ([None], [None])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"remat": "some"}, r"remat='some': expected one of \('none', 'attention', 'dots', 'full'\), true"),
        ({"scan": "yes"}, "scan='yes': expected true or false"),
        ({"attention": "flash"}, r"attention='flash': expected one of \('auto', 'cudnn'\)"),
        ({"attention": "cudnn"}, "with dtype='float32': its kernel takes bfloat16"),
        ({"attention": "cudnn", "dtype": "bfloat16", "heads": 16}, "heads of 4 channels"),
    ],
)
def test_what_is_none_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        registry.create("vit_mu_1_1", num_classes=5, image_shape=SHAPE, patch_size=4, **options)
