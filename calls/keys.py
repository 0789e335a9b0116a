"""Keys of a run: who has them may call its servers, and nobody else.

Two pairs of CURVE keys: the servers' and the callers'. A server takes callers of the second
public key alone, a caller talks to a server of the first alone, and what they say is encrypted.
"""

import dataclasses
import json
import os
import pathlib
import stat

import zmq
import zmq.utils.z85 as z85

from classact.calls import addresses

VARIABLE = "CLASSACT_KEYS"
"""Environment variable with the path of the keys' file, of a process that calls or is called over TCP."""
FILE_NAME = "keys.json"
"""The keys' file in a run directory."""


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of one run, in ZeroMQ's text form (Z85, 40 characters).

    Attributes:
        server: public key of the servers.
        server_secret: its secret.
        caller: public key of the callers.
        caller_secret: its secret.
    """

    server: str
    server_secret: str = dataclasses.field(repr=False)
    caller: str
    caller_secret: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) or len(value) != 40:
                raise ValueError(f"key {field.name}: must be text of 40 characters")

    @classmethod
    def make(cls) -> "Keys":
        """Makes new keys."""
        made = [text.decode() for _ in range(2) for text in zmq.curve_keypair()]
        return cls(*made)

    def save(self, path: pathlib.Path) -> None:
        """Writes them for this user alone (mode 0600), in the place of any that were there."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        # With this mode from the beginning: nobody may read them in between.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(dataclasses.asdict(self), file)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Keys":
        """Reads what `save` wrote.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it holds no keys, or others could have read or written them.
        """
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ValueError(f"{path} is open to others: chmod 600, and start the run again for new keys")
            try:
                return cls(**json.load(file))
            except (TypeError, RecursionError, json.JSONDecodeError) as error:
                raise ValueError(f"{path} holds no keys: {error}") from None


def of_this_process() -> Keys | None:
    """The keys whose file the environment names; None if it names none.

    Raises:
        OSError, ValueError: as `Keys.load`.
    """
    path = os.environ.get(VARIABLE)
    return Keys.load(pathlib.Path(path)) if path else None


def for_address(address: str, workdir: pathlib.Path) -> Keys | None:
    """The keys that it takes to call an address of the run in `workdir`; None on this machine.

    Raises:
        OSError, ValueError: as `Keys.load`.
    """
    return None if addresses.unix_path(address) is not None else Keys.load(workdir / FILE_NAME)


def ask_for(socket: "zmq.Socket[bytes]", keys: Keys) -> None:
    """Makes a socket a server's: who connects must have the keys; see `is_caller`."""
    socket.curve_server = True
    socket.curve_publickey = keys.server.encode()
    socket.curve_secretkey = keys.server_secret.encode()
    socket.zap_domain = b"classact"


def show(socket: "zmq.Socket[bytes]", keys: Keys) -> None:
    """Makes a socket a caller's."""
    socket.curve_serverkey = keys.server.encode()
    socket.curve_publickey = keys.caller.encode()
    socket.curve_secretkey = keys.caller_secret.encode()


def is_caller(public: bytes, keys: Keys) -> bool:
    """Whether the 32 bytes of a public key are the callers'."""
    return bytes(z85.decode(keys.caller.encode())) == public
