"""A command that counts says how far it is, and how long it will take."""

import io

import rich.console

from classact.launch.commands.counting import Counting


def test_a_line_a_tenth_with_the_time_left():
    seconds = [0.0]
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=False, width=200)
    with Counting("examples", 1000, done=200, console=console, clock=lambda: seconds[0]) as counting:
        for _ in range(4):
            seconds[0] += 1.0
            counting.add(50)
        seconds[0] += 40.0
        counting.add(1)
    assert out.getvalue().splitlines() == [
        "300/1,000 examples (30%) | 50/s | 14 s left",
        "400/1,000 examples (40%) | 50/s | 12 s left",
        "401/1,000 examples (40%) | 5/s | 131 s left",
    ]


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=True, width=80)
    with Counting("examples", 10, console=console) as counting:
        counting.add(10)
    assert "10/10" in out.getvalue()
