"""The npm packages that icons and the words for emoji come from."""

import json
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from typing import Any

from classact.data.source import DataError


def fetch_package(package: str, folder: pathlib.Path) -> pathlib.Path:
    """Fetches a package by `npm pack` and unpacks it, unless that is done; may take minutes.

    Args:
        package: its name and version, `NAME@VERSION`.
        folder: where to keep it.

    Returns:
        The unpacked package's folder.

    Raises:
        DataError: if there is no `npm`, or it fails.
    """
    unpacked = folder / package.strip("@").replace("/", "-").replace("@", "-")
    if unpacked.is_dir():
        return unpacked / "package"
    if shutil.which("npm") is None:
        raise DataError(f"{package} cannot be fetched, as there is no npm: give its unpacked folder")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", package, "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise DataError(f"{' '.join(command)} failed: {error.stderr.strip()[-500:]}") from error
    archive = folder / done.stdout.split()[-1]
    part = unpacked.with_name(f"{unpacked.name}.part")
    with tarfile.open(archive) as file:
        file.extractall(part, filter="data")
    part.rename(unpacked)
    archive.unlink()
    return unpacked / "package"


def emoji_captions(
    iconify: pathlib.Path, emojibase: pathlib.Path, prefixes: Iterable[str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The captions of emoji: an emoji's label, and its tags if it has some.

    Args:
        iconify: the unpacked package `@iconify/json`.
        emojibase: the unpacked package `emojibase-data`, whose words they are.
        prefixes: the sets whose emoji to join to the words, by their codepoints.

    Returns:
        The captions by set and by the icon's name there.

    Raises:
        DataError: if a file is missing or damaged.
    """
    captions = {}
    for emoji in read_json(emojibase / "en" / "data.json"):
        tags = ", ".join(emoji.get("tags", ()))
        captions[_codepoints(emoji["hexcode"])] = (emoji["label"], tags) if tags else (emoji["label"],)
    return {
        prefix: {
            name: captions[_codepoints(code)]
            for code, name in read_json(iconify / "json" / f"{prefix}.json")["chars"].items()
            if _codepoints(code) in captions
        }
        for prefix in prefixes
    }


def _codepoints(hexadecimal: str) -> str:
    """Codepoints in lower case, without the selector of the colourful form, which some sets leave out."""
    return "-".join(part for part in hexadecimal.lower().split("-") if part != "fe0f")


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file; DataError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
