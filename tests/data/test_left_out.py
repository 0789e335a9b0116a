from classact.data.left_out import LeftOut


def test_reasons_are_counted_with_their_first_names():
    left_out = LeftOut()
    assert left_out.lines() == list(left_out) == left_out.remarks == []
    left_out.add("damaged", "x", 2)
    for number in range(4):
        left_out.add("without a caption", f"{number}.png")
    assert list(left_out) == [
        ("without a caption", 4, ("0.png", "1.png", "2.png")),
        ("damaged", 2, ("x",)),
    ]
    assert left_out.lines() == ["4 without a caption: 0.png, 1.png, 2.png, …", "2 damaged: x, …"]
    left_out.add("damaged", "y", 1_000)
    assert left_out.lines()[0] == "1,002 damaged: x, y, …"


def test_names_are_made_only_of_what_is_kept():
    class Name:
        made = 0

        def __str__(self):
            Name.made += 1
            return "x"

    left_out = LeftOut()
    for _ in range(10):
        left_out.add("damaged", Name())
    assert Name.made == 3


def test_many_reasons_are_few_lines():
    left_out = LeftOut()
    for number in range(20):
        left_out.add(f"reason {number}", "x", 100 - number)
    lines = left_out.lines()
    assert len(lines) == 9 and lines[0] == "100 reason 0: x, …" and lines[7] == "93 reason 7: x, …"
    assert lines[8] == "1,038 for 12 other reasons: reason 8, reason 9, reason 10, …"
