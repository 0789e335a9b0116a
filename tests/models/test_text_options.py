"""Options of text towers: what is refused, and that the size is the name's but for them."""

import math

import pytest

from classact.models import text_options, transformer


def test_the_defaults_are_the_paper_s_tower():
    options = text_options.from_options("text_mu_2_1", {})
    assert text_options.size("text_mu_2_1", options) == transformer.SIZES["mu_2_1"]
    assert options.style == transformer.PAPER and options.scale_bound == 100.0


def test_options_say_a_size_and_no_bound():
    said = {"width": 12, "depth": 3, "mlp": 20, "heads": 3, "max_scale": 0, "activation": "quick_gelu"}
    options = text_options.from_options("text", said)
    assert text_options.size("text", options) == transformer.Size(width=12, depth=3, mlp=20, heads=3)
    assert options.scale_bound == math.inf and options.style.activation == "quick_gelu"
    deeper = text_options.from_options("text_mu_1_1", {"depth": 4})
    assert text_options.size("text_mu_1_1", deeper).depth == 4


@pytest.mark.parametrize(
    ("name", "said", "match"),
    [
        ("text_b", {"pol": "end"}, "text model 'text_b' has no option 'pol': did you mean 'pool'"),
        ("text_b", {"pool": "first"}, r"pool='first': expected one of \('end', 'last'\)"),
        ("text_b", {"heads": 7}, "heads=7: it must divide width=768"),
        ("text_b", {"width": -1}, "width=-1: expected a whole number"),
        ("text_b", {"end_id": -2}, "end_id=-2"),
        ("text_b", {"max_scale": math.inf}, "max_scale=inf"),
        ("text_b", {"activation": "swish"}, "activation='swish'"),
        ("text", {"width": 12}, "text model 'text' needs the options depth, mlp, heads"),
        ("text_bb", {}, "unknown text model 'text_bb'"),
    ],
)
def test_values_that_are_none(name, said, match):
    with pytest.raises(ValueError, match=match):
        text_options.size(name, text_options.from_options(name, said))
