"""Finds and makes the objects that `python:` and `grain:` read."""

import inspect
from typing import Any

from classact import user_code
from classact.data.source import DataError


def call(kind: str, argument: str, split: str) -> tuple[Any, bool]:
    """Makes the object that `module:function` or `module:function:ARGUMENT` names.

    Args:
        kind: of the source, for errors.
        argument: what follows the kind in the spec.
        split: "train" or "eval"; given to a function that has such a parameter.

    Returns:
        The object, and whether the splits are different ones.

    Raises:
        DataError: if there is no such function, or it fails.
    """
    module, _, rest = argument.partition(":")
    function, _, given = rest.partition(":")
    name = f"{module}:{function}"
    if not user_code.is_name(name):
        raise DataError(f"data source '{kind}:{argument}': expected {kind}:package.module:function")
    try:
        made = user_code.find(f"data source {kind}", name)
    except user_code.UserCodeError as error:
        raise DataError(str(error)) from error
    if not callable(made):
        return made, False
    with user_code.reported_as(DataError, f"data source '{kind}:{argument}'"):
        signature = inspect.signature(made)
        has_splits = "split" in signature.parameters
        arguments, named = ([given] if given else []), ({"split": split} if has_splits else {})
        try:
            signature.bind(*arguments, **named)
        # Not the function's own, which comes when it is called.
        except TypeError as error:
            raise DataError(
                f"data source '{kind}:{argument}': {name} cannot be called so ({error}); expected a function "
                f"of no argument, or of one with {kind}:{name}:ARGUMENT"
            ) from None
        made = made(*arguments, **named)
    user_code.adopt(type(made))
    return made, has_splits


def check_grain(argument: str, items: Any) -> None:
    """DataError unless Grain is installed, and it is no data set that can only be iterated over."""
    try:
        import grain
    except ImportError as error:
        raise DataError(f"data source 'grain': {error}: pip install 'classact[grain]'") from None
    if isinstance(items, (grain.IterDataset, grain.DataLoader)):
        raise DataError(
            f"grain:{argument}: a {type(items).__name__}, expected a MapDataset, whose elements can be read "
            "in any order: leave out what makes iterators of it, such as to_iter_dataset()"
        )
