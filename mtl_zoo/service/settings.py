"""Every limit and default of the service."""

from __future__ import annotations

import dataclasses
import re

from mtl_zoo import _validation as check

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}\Z")
# One host that a page of another site cannot pretend to be.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits and places of a service.

    Args:
        host: The address to listen on. Default: "127.0.0.1", which other machines do not reach.
        port: The port; 0 takes a free one. Default: 8501, as TensorFlow Serving has for REST.
        name: The model's name in URLs. Default: the folder's name.
        deadline: Seconds from a request's first byte to its answer; then 504 (408 if its body is not there).
            Default: 5.0.
        max_body: Bytes of a body; a larger one is 413. Default: 8388608.
        max_buffered: Bytes of all bodies that are held at once; beyond it 503. Default: 268435456.
        max_rows: Rows of a request. Default: 10000.
        max_values: Values of a request, and of a batch, padding included. Default: 2000000.
        queue_requests: Requests that wait; the next one is 429. Default: 128.
        queue_values: Values of all requests that wait. Default: 16000000.
        batch_rows: Waiting requests are scored together up to this number of rows. Default: 2048.
        max_connections: Connections at once; beyond it 503. Default: 1000.
        keep: Versions that stay loaded, the one that answers by default included. Default: 1.
        poll: Seconds between two looks at the folder. Default: 1.0.
        settle: A version counts as written when nothing in its folder has changed for this many seconds. Default: 2.0.
        drain: Seconds that open requests have left once the service is told to end. Default: 30.0.
        stall: Seconds after which a call of the model that does not end makes `/health` fail. Default: 60.0.
        api_key: What requests must show as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Default: no key.
        hosts: Values of the header Host that are answered; `"*"` is any. Default: those of this machine if `host` is
            one of them, else any.
        demo: Whether `GET /` is the demo page. Default: False.

    Raises:
        ValueError: A number out of its range, a name or key that a URL or header cannot hold.

    Example:

    >>> from mtl_zoo.service import Settings
    >>> Settings(deadline=0.5).allowed_hosts
    ('localhost', '127.0.0.1', '[::1]')
    """

    host: str = "127.0.0.1"
    port: int = 8501
    name: str | None = None
    deadline: float = 5.0
    max_body: int = 8 * 2**20
    max_buffered: int = 256 * 2**20
    max_rows: int = 10_000
    max_values: int = 2_000_000
    queue_requests: int = 128
    queue_values: int = 16_000_000
    batch_rows: int = 2048
    max_connections: int = 1000
    keep: int = 1
    poll: float = 1.0
    settle: float = 2.0
    drain: float = 30.0
    stall: float = 60.0
    api_key: str | None = dataclasses.field(default=None, repr=False)
    hosts: tuple[str, ...] | None = None
    demo: bool = False

    def __post_init__(self) -> None:
        check.check_int("port", self.port, 0, 65535)
        for name in ("max_body", "max_buffered", "max_rows", "max_values", "queue_requests", "queue_values"):
            check.check_int(name, getattr(self, name))
        for name in ("batch_rows", "max_connections", "keep"):
            check.check_int(name, getattr(self, name))
        for name in ("deadline", "poll", "stall"):
            check.check_number(name, getattr(self, name), above=0)
        for name in ("settle", "drain"):
            check.check_number(name, getattr(self, name), minimum=0)
        if self.name is not None and not _NAME.match(self.name):
            raise ValueError(
                "`name` must be 1 to 100 letters, digits, '_', '-' and '.', since it is part of a URL. "
                f"Received: name={self.name!r}"
            )
        if self.api_key is not None and not re.fullmatch(r"[\x21-\x7e]{8,}", self.api_key):
            raise ValueError(
                "`api_key` must be at least 8 printable ASCII characters without spaces, since it travels in a header. "
                f"Received: {len(self.api_key)} characters"
            )

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Values of the header Host, without the port, that are answered."""
        if self.hosts is not None:
            return tuple(host.lower() for host in self.hosts)
        return LOCAL_HOSTS if self.host in (*LOCAL_HOSTS, "::1") else ("*",)


def name_of(folder_name: str) -> str:
    """The model's name, from the name of its folder or file."""
    return folder_name if _NAME.match(folder_name) else check.suggest_name(folder_name)[:100]
