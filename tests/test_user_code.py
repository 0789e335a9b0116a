"""How code of a user's own is found, and what an error in it is."""

import os
import sys

import pytest

from classact import user_code

MODULE = """
import json

def fail(error):
    raise error

def ask(call):
    return call()

def parse():
    return json.loads("{")

class Thing:
    pass
"""


@pytest.fixture
def own(users_place):
    (users_place / "own_code.py").write_text(MODULE)
    (users_place / "own_package").mkdir()
    (users_place / "own_package" / "__init__.py").write_text("from own_package.inner import fail\n")
    (users_place / "own_package" / "inner.py").write_text("def fail():\n    raise KeyError('inner')\n")
    (users_place / "own_broken.py").write_text("x = 1\nundefined\n")
    return users_place


def raised(call, *arguments):
    with pytest.raises(BaseException) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_code", "policy 'own_code': expected package.module:name"),
        ("no_such:fail", "there is no module no_such, .* nor on PYTHONPATH"),
        ("own_package.nothing:fail", "there is no module own_package.nothing"),
        ("own_code:fial", "own_code has no 'fial', did you mean fail"),
        ("own_broken:x", r"own_broken cannot be imported: NameError: .* \(own_broken.py, line 2\)"),
    ],
)
def test_what_cannot_be_found_is_one_line(own, name, said):
    with pytest.raises(user_code.UserCodeError, match=said) as caught:
        user_code.find("policy", name)
    assert "\n" not in str(caught.value)


def test_an_error_that_passed_through_a_user_s_code_is_blamed_on_it(own):
    fail, ask, parse = (user_code.find("policy", f"own_code:{name}") for name in ("fail", "ask", "parse"))
    assert user_code.blamed(raised(fail, KeyError("x"))) == "KeyError: 'x' (own_code.py, line 5)"
    # Raised in a library that it has called.
    assert user_code.blamed(raised(parse)).endswith("(own_code.py, line 11)")

    def wrapped():
        try:
            ask(lambda: {}["x"])
        except KeyError as error:
            raise RuntimeError("the inference server failed") from error

    assert user_code.blamed(raised(wrapped)) == "KeyError: 'x' (own_code.py, line 8)"
    assert user_code.blamed(raised(lambda: {}["x"])) is None


def test_a_function_of_a_package_is_its_own_wherever_it_is_written(own):
    fail = user_code.find("policy", "own_package:fail")
    assert user_code.blamed(raised(fail)) == "KeyError: 'inner' (inner.py, line 2)"


@pytest.mark.parametrize("error", [ConnectionError("lost"), OSError(5, "I/O error"), MemoryError()])
def test_errors_of_the_machine_may_pass(own, error):
    fail = user_code.find("policy", "own_code:fail")
    assert user_code.blamed(raised(fail, error)) is None
    # Not while a run is prepared: then nothing is tried again.
    assert user_code.blamed(error, of_the_machine=True)
    with pytest.raises(ValueError, match="field"), user_code.reported_as(ValueError, "field"):
        fail(error)


def test_what_is_registered_is_named_as_other_processes_find_it(own):
    thing = user_code.find("thing", "own_code:Thing")
    assert user_code.importable_name(thing) == "own_code:Thing"
    with pytest.raises(user_code.UserCodeError, match=r"policy 'mine'.*module of its own"):
        user_code.require_importable("policy", "mine", lambda: None)


def test_modules_are_looked_for_where_the_process_was_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    user_code.use_working_directory()
    user_code.use_working_directory()
    # Last, so that it hides nothing that is installed.
    assert sys.path[-1] == os.getcwd() and sys.path.count(os.getcwd()) == 1
