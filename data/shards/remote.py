"""Shards behind URLs: fetched whole into a cache on this machine, by whatever fsspec can open."""

import functools
import hashlib
import importlib
import logging
import os
import pathlib
import re
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from classact.data import announced
from classact.data.cache_folder import cache_folder
from classact.data.shards.cache import ShardCache
from classact.data.shown import shown
from classact.data.source import DataError

# One request asks for so many bytes: what is lost when a connection is cut.
CHUNK_BYTES = 8 << 20
# For how long one is tried again, with pauses drawn at random up to a bound that grows to the last.
# Less than `no_data_seconds`: who waits for a shard should say which, before it is taken to be silent.
RETRY_SECONDS = 240.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0
# A server that is silent for so long is asked again.
SILENT_SECONDS = 60.0
DEFAULT_CACHE_GB = 10
# Of HTTP: it is not there, or may not be read; no use to ask again.
_FINAL = (400, 401, 403, 404, 405, 410)
_QUERY = re.compile(r"\?[^\s'\"]*")
_USER = re.compile(r"(://)[^/@\s]*@")
# What a storage says of the state of a file, by whatever name.
_VERSIONS = ("ETag", "etag", "LastModified", "Last-Modified", "mtime", "updated", "last_commit", "blob_id")

_log = logging.getLogger(__name__)


class Fetches:
    """Counts what had to be asked for again for a source; any number of threads may add to it.

    Attributes:
        retries: how many requests had to be made again.
    """

    def __init__(self) -> None:
        self.retries = 0
        self._lock = threading.Lock()

    def add_retry(self) -> None:
        """Counts one more."""
        with self._lock:
            self.retries += 1


class RemoteShard:
    """See `storage.Shard`.

    Credentials are those that the storage's own library finds: in the environment, `~/.aws`,
    `~/.netrc`, or as whoever is logged in. A request that fails is tried again for `RETRY_SECONDS`,
    unless it will always fail.

    Args:
        path: the URL.
        cache: where it is kept.
        counts: of the source.
    """

    is_local = False

    def __init__(self, path: str, cache: ShardCache, counts: Fetches) -> None:
        self.path = path
        self._cache = cache
        self._counts = counts

    def stamp(self) -> list[Any]:
        """See `storage.Shard.stamp`: the size in bytes, and what the server says of its state."""
        return [*self._stamp]

    @functools.cached_property
    def _stamp(self) -> tuple[int, str]:
        with announced.waiting(f"the server of {self}"):
            found = self._retried(lambda: self._storage.info(self._inside))
        size = found.get("size")
        if not isinstance(size, int) or found.get("type") == "directory":
            raise DataError(f"{self}: its server does not say how large it is; expected a file")
        return size, next((str(found[name]) for name in _VERSIONS if found.get(name)), "")

    def open(self) -> BinaryIO:
        """See `storage.Shard.open`; blocks while it is fetched."""
        size, version = self._stamp
        key = hashlib.blake2b(f"{self.path}\0{size}\0{version}".encode(), digest_size=16).hexdigest()
        with announced.waiting(f"{self} to be fetched"):
            return self._cache.open(key, size, str(self), self._fetch)

    def expect(self) -> None:
        """See `storage.Shard.expect`; in a thread that ends with the process."""
        threading.Thread(target=self._ahead, name="shard", daemon=True).start()

    def _ahead(self) -> None:
        try:
            self.open().close()
        except DataError as error:
            _log.warning("%s was not fetched ahead: %s", self, error)

    def sibling(self, name: str) -> "RemoteShard":
        """See `storage.Shard.sibling`."""
        return RemoteShard(f"{self.path.rpartition('/')[0]}/{name}", self._cache, self._counts)

    def _fetch(self, file: BinaryIO) -> None:
        size = self._stamp[0]
        for start in range(0, size, CHUNK_BYTES):
            stop = min(start + CHUNK_BYTES, size)
            file.write(self._retried(functools.partial(self._chunk, start, stop)))
            announced.progressed()

    def _chunk(self, start: int, stop: int) -> bytes:
        content = bytes(self._storage.cat_file(self._inside, start=start, end=stop))
        # A server that knows no ranges gives all of it.
        if len(content) == self._stamp[0]:
            content = content[start:stop]
        if len(content) != stop - start:
            raise OSError(f"{len(content)} bytes came instead of {stop - start}")
        return content

    @property
    def _storage(self) -> Any:
        return self._found[0]

    @property
    def _inside(self) -> str:
        return str(self._found[1])

    @functools.cached_property
    def _found(self) -> tuple[Any, str]:
        """What opens the URL, and its name there; fsspec keeps one of each kind."""
        fsspec = _imported("fsspec.core", self.path)
        scheme = self.path.partition("://")[0]
        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            aiohttp = _imported("aiohttp", self.path)
            silent = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_SECONDS, sock_read=SILENT_SECONDS)
            # With it the environment's proxies and ~/.netrc count.
            options["client_kwargs"] = {"trust_env": True, "timeout": silent}
        try:
            storage, inside = fsspec.url_to_fs(self.path, **options)
        except ImportError as error:
            library = _library_of(scheme)
            raise DataError(f"{self}: to read {scheme}:// URLs, pip install {library} ({error})") from error
        except ValueError as error:
            said = _masked(str(error))
            raise DataError(f"{self}: {said}; expected s3://, gs://, https:// or hf://") from None
        return storage, str(inside)

    def _retried[Found](self, ask: Callable[[], Found]) -> Found:
        """What a request gives; DataError if it fails for good, or for too long."""
        tenacity = _imported("tenacity", self.path)
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS),
            stop=tenacity.stop_after_delay(RETRY_SECONDS),
            before_sleep=self._say,
            reraise=True,
        )
        try:
            found: Found = tries(ask)
        except DataError:
            raise
        # Each storage's library has errors of its own.
        except Exception as error:
            failed = tries.statistics.get("attempt_number", 1)
            times = f" after {failed} tries in {RETRY_SECONDS:.0f} s" if failed > 1 else ""
            # The cause would be printed too, with what signs a URL.
            raise DataError(f"{self}: cannot be fetched{times}: {_reason(error)}") from None
        return found

    def _say(self, state: Any) -> None:
        self._counts.add_retry()
        _log.warning(
            "%s: asked again (request %d of this kind, %d again so far): %s",
            self, state.attempt_number + 1, self._counts.retries, _reason(state.outcome.exception()),
        )  # fmt: skip

    def __str__(self) -> str:
        return shown(self.path)


def shard_cache(limit_gb: int) -> ShardCache:
    """Where shards are kept: `$CLASSACT_SHARDS`, else `cache_folder("shards")`."""
    named = os.environ.get("CLASSACT_SHARDS")
    folder = pathlib.Path(named).expanduser() if named else cache_folder("shards")
    return ShardCache(folder, limit_gb * 10**9)


def _imported(name: str, url: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"{shown(url)}: {_install(url.partition('://')[0])} ({error})") from error


def _library_of(scheme: str) -> str:
    """The package in which fsspec looks for what opens a scheme, such as gcsfs."""
    from fsspec.registry import known_implementations

    package = str(known_implementations.get(scheme, {}).get("class", "fsspec")).partition(".")[0]
    return "'classact[remote]'" if package == "fsspec" else package


def _install(scheme: str) -> str:
    return f"to read {scheme}:// URLs, pip install 'classact[remote]'"


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        # fsspec says so of whatever a server answers.
        return _may_pass(error.__cause__)
    final = (DataError, FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)
    broken = (ImportError, TypeError, AttributeError, LookupError, KeyboardInterrupt, SystemExit)
    if isinstance(error, (*final, *broken)) or "Credentials" in type(error).__name__:
        return False
    return getattr(error, "status", None) not in _FINAL


def _reason(error: BaseException) -> str:
    """What went wrong in one line, without what signs a URL."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    said = _masked(" ".join(str(error).split()))
    return f"{type(error).__name__}{': ' if said else ''}{shown(said)[:200]}"


def _masked(text: str) -> str:
    """A text without what signs the URLs in it, and who asks."""
    return _QUERY.sub("?…", _USER.sub(r"\1…@", text))
