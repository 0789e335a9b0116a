import subprocess
import sys

import pytest

from classact.launch.engines.crash_report import crash_text, describe_exit
from classact.launch.engines.outcome import Outcome, TaskEnd

PRINTED = """Traceback (most recent call last):
  File "retry.py", line 1, in <module>
ValueError: printed and survived
"""
REMOTE = """Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "process_entry.py", line 126, in <module>
    app.run(main)
StatusNotOk: remote error:
Traceback (most recent call last):
  File "server.py", line 3, in score
KeyError: 'image'
"""
CAUSE = """Traceback (most recent call last):
  File "node.py", line 7, in run
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

"""


def text_of(tmp_path, log, offset=0):
    path = tmp_path / "task.log"
    path.write_text(log)
    return crash_text(path, offset)


def test_the_last_traceback_is_found(tmp_path):
    second = PRINTED.replace("survived", "died")
    assert (
        text_of(tmp_path, "hello\n" + PRINTED + "more\n" + second + "last words\n") == second + "last words"
    )


def test_a_fatal_traceback_goes_before_others_and_keeps_the_remote_one(tmp_path):
    assert text_of(tmp_path, PRINTED + REMOTE) == REMOTE.rstrip()


@pytest.mark.parametrize(
    "link",
    [
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    ],
)
def test_causes_belong_to_the_traceback(tmp_path, link):
    cause = CAUSE.replace("The above exception was the direct cause of the following exception:", link)
    assert (
        text_of(tmp_path, PRINTED + "hello\n" + cause + cause + REMOTE) == (cause + cause + REMOTE).rstrip()
    )


def test_what_earlier_lives_wrote_is_left_out(tmp_path):
    assert text_of(tmp_path, PRINTED + "second life\n", offset=len(PRINTED)) == "second life"


def test_without_a_traceback_the_end_of_the_log_remains(tmp_path):
    log = "".join(f"line {i}\n" for i in range(100))
    assert text_of(tmp_path, log) == "\n".join(f"line {i}" for i in range(80, 100))


def test_of_a_very_long_log_the_end_is_read(tmp_path):
    assert text_of(tmp_path, PRINTED + "x" * 300_000 + "\nend\n").endswith("\nend")


def test_of_a_very_long_traceback_the_middle_is_left_out(tmp_path):
    text = text_of(tmp_path, PRINTED + "x" * 100_000 + "\nend\n")
    assert len(text) < 17_000
    assert text.startswith("Traceback")
    assert "characters left out" in text
    assert text.endswith("\nend")


def test_a_missing_or_empty_log_says_nothing(tmp_path):
    assert crash_text(tmp_path / "none.log") == ""
    assert text_of(tmp_path, "") == ""


def test_an_abort_in_cpp_comes_with_its_reason_and_pythons_place(tmp_path):
    path = tmp_path / "task.log"
    script = "import os\nprint('\\n'.join(map(str, range(30))), 'Check failed', flush=True)\nos.abort()"
    with path.open("w") as log:
        ended = subprocess.run([sys.executable, "-X", "faulthandler", "-c", script], stdout=log, stderr=log)
    text = crash_text(path)

    assert ended.returncode == -6
    assert text.startswith("25\n26\n")
    assert "29 Check failed\nFatal Python error: Aborted" in text
    assert "line 3" in text


def test_exits_are_told_in_words():
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(-11) == "killed by signal 11 (SIGSEGV)"
    assert "memory" in describe_exit(-9)
    assert describe_exit(-64) == "killed by signal 64 (SIGRTMAX)"
    assert describe_exit(-40) == "killed by signal 40 (unknown)"


def test_the_launchers_exit_status_follows_from_the_outcome():
    assert Outcome("completed").exit_status == 0
    assert Outcome("failed").exit_status == 1
    assert Outcome("interrupted", signal=2).exit_status == 130
    assert Outcome("interrupted", signal=15).exit_status == 143


def test_the_end_of_a_task_has_what_all_its_lives_used():
    first, last = TaskEnd(-9, 1.0, 70, True), TaskEnd(0, 2.0, 50, False)
    assert last.after(None) == last
    assert last.after(first) == TaskEnd(0, 3.0, 70, False)


def test_killed_tasks_are_listed():
    ends = {"a": TaskEnd(0, 1.0, 1, False), "b": TaskEnd(-9, 1.0, 1, True), "c": TaskEnd(-9, 1.0, 1, False)}
    assert Outcome("completed", tasks=ends).killed == ("b",)
