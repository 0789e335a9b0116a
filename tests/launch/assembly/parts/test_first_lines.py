import numpy as np

from classact.data.source import ArraySource, Source
from classact.launch.assembly.parts.first_lines import FirstLines, describe_source


class Pairs(Source):
    """Two captions of each of five images."""

    name = "some:pairs"
    num_examples = 10
    image_shape = (4, 6, 3)
    num_classes = 0
    captioned = True
    image_of = np.arange(10) // 2

    def batch(self, indices):
        raise NotImplementedError


def test_a_line_is_said_once_in_the_order_of_the_first_time():
    said = FirstLines()
    for line in ("one", "two", "one"):
        said.say(line)
    said.warn("look")
    assert said.lines() == ("one", "two", "warning: look")


def test_indented_lines_stay_with_the_line_that_they_belong_to():
    said = FirstLines()
    for line in ("one", "  same", "two", "  same", "  other", "one", "  same", "  more"):
        said.say(line)
    assert said.lines() == ("one", "  same", "  more", "two", "  same", "  other")


def test_a_source_is_described_with_what_was_left_out():
    images = ArraySource("npz:x", np.zeros((1200, 4, 6, 1), np.uint8), np.zeros(1200, int), 7)
    assert describe_source(images) == [
        "trains on npz:x: 1,200 images, 7 classes, 4×6×1",
        "  images a class: 0 to 1,200, median 0; 6 classes have none",
    ]
    images = ArraySource("npz:x", np.zeros((1, 4, 6, 1), np.uint8), np.zeros(1, int), 1)
    assert describe_source(images) == ["trains on npz:x: 1 image, 1 class, 4×6×1"]
    pairs = Pairs()
    pairs.left_out.add("without a caption", "x.png", 5)
    pairs.left_out.remarks.append("something else")
    assert describe_source(pairs, "measures on") == [
        "measures on some:pairs: 10 pairs of 5 images, 4×6×3",
        "  left out: 5 without a caption: x.png, …",
        "  something else",
    ]
    pairs.image_of = np.arange(10)
    assert describe_source(pairs)[0] == "trains on some:pairs: 10 pairs, 4×6×3"
