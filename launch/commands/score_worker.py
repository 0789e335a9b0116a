"""One process of `classact score`: computes the parts that it is given, and tells how far it is.

It reads one line of JSON, `{"out": folder, "parts": [numbers]}`, writes lines of JSON,
`{"examples": n}` for what it has scored and at last `{"error": …}` if it failed, and ends with
its standard input: so it does not outlive the command.
"""

import json
import os
import pathlib
import sys
import threading
from typing import Any

from classact import user_code


def main() -> int:
    """Computes the parts; see the module's docstring."""
    user_code.use_working_directory()
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, name="parent", daemon=True).start()
    from classact.data.source import DataError
    from classact.experiments.config import ConfigError

    try:
        _compute(pathlib.Path(asked["out"]), set(asked["parts"]))
    except (ConfigError, DataError) as error:
        _tell(error=str(error), status=2)
        return 1
    except OSError as error:
        _tell(error=str(error), status=1)
        return 1
    return 0


def _compute(folder: pathlib.Path, numbers: set[int]) -> None:
    from classact.data import score_files
    from classact.launch.assembly import joined_run
    from classact.launch.assembly.parts import score_pass

    description = score_files.description_in(folder) or {}
    config = joined_run.read_config(pathlib.Path(description["model"]["run"]))
    scoring = score_pass.again(config, description)
    opened, score = scoring.open(), score_pass.make_scorer(scoring)
    for part in scoring.parts:
        if part.number in numbers:
            score_pass.score_part(scoring, part, opened, score, folder, lambda n: _tell(examples=n))


def _tell(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
