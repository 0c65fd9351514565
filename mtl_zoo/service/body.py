"""Bodies of requests: read up to a limit and a deadline, and parsed strictly."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mtl_zoo import _validation as check
from mtl_zoo.service.errors import RequestError, bad_input, busy

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
# A client that sends too much reads the refusal only once it has sent: as much more is read, and thrown away.
_DRAINED = 2
_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')
# What may stand before a number as a space, and all digits as 0: a whole number of more than 64 bits is found by its
# length, faster than by an expression.
_LENGTHS = bytes.maketrans(b"[,:\t\r\n123456789", b" " * 6 + b"0" * 9)
_BEYOND_64_BITS = (b" " + b"0" * 20, b"-" + b"0" * 19)


class Disconnected(Exception):
    """The client is gone."""


class Bodies:
    """Reads bodies, and knows how many bytes of them are held.

    Args:
        max_body: Bytes of one.
        max_buffered: Bytes of all that are held at once.
    """

    def __init__(self, max_body: int, max_buffered: int):
        self.max_body, self.max_buffered = max_body, max_buffered
        self.held = 0

    async def read(self, headers: Mapping[str, str], receive: Receive, deadline: float) -> bytearray:
        """The whole body. Whoever reads it gives `release` its length in the end.

        Args:
            headers: Of the request.
            receive: Gives ASGI messages.
            deadline: Of the loop's clock.

        Raises:
            RequestError: 408, 413, 415, 503.
            Disconnected: The client is gone.
        """
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise RequestError(
                415, "The body must be plain JSON. Received: a Content-Encoding", "encoding", {"Connection": "close"}
            )
        body, size, more = bytearray(), 0, True
        announced = int(length) if (length := headers.get("content-length", "0")).isascii() and length.isdigit() else 0
        if announced > (1 + _DRAINED) * self.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(deadline):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    size += len(chunk)
                    if size > (1 + _DRAINED) * self.max_body:
                        raise self._too_large()
                    if size <= self.max_body and announced <= self.max_body:
                        self._hold(len(chunk))
                        body += chunk
        except TimeoutError:
            self.release(len(body))
            text = "The body must arrive before the deadline."
            raise RequestError(408, text, "slow_body", {"Connection": "close"}) from None
        except BaseException:
            self.release(len(body))
            raise
        if size > self.max_body or announced > self.max_body:
            self.release(len(body))
            raise self._too_large()
        return body

    def _hold(self, size: int) -> None:
        if self.held + size > self.max_buffered:
            raise busy(503, "The service holds as many bytes of other requests as it may.", "memory")
        self.held += size

    def release(self, size: int) -> None:
        self.held -= size

    def _too_large(self) -> RequestError:
        text = f"The body must have at most {self.max_body} bytes."
        return RequestError(413, text, "body_size", {"Connection": "close"})


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        RequestError: 400: it is not UTF-8, not JSON, not an object; a key stands in it twice; it is nested too deeply.
    """
    quickly = _parse_plain(body)
    if quickly is not None:
        return quickly
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise bad_input(f"The body must be UTF-8. Received: a wrong byte at place {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise bad_input(f"The body must be JSON. Received: {error.msg}, at {place}") from None
    except RecursionError:
        raise bad_input("The body must not be nested that deeply.") from None
    except ValueError:  # whole numbers of more than 4,300 digits
        raise bad_input("The body must hold numbers of a sensible length.") from None
    if not isinstance(found, dict):
        raise bad_input(f"The body must be a JSON object. Received: {kind_of(found)}")
    return found


def _parse_plain(body: bytes | bytearray) -> dict[str, Any] | None:
    """What `parse` gives, in a fifth of its time, if that is certain: else None, and errors are told by `parse`.

    orjson keeps the last of several equal keys. Where no key has a space before its colon, `":` stands in the body as
    often as there are keys, or more often (in strings); so if as many keys were found, none was twice. It reads whole
    numbers of more than 64 bits as floats.
    """
    import orjson

    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:  # NaN and halves of surrogate pairs as well, which `parse` takes
        return None
    if not isinstance(found, dict) or _SPACED_KEY.search(body) is not None:
        return None
    lengths = body.translate(_LENGTHS)
    if any(beyond in lengths for beyond in _BEYOND_64_BITS):
        return None
    keys = len(found)
    for part in found.values():
        rows = part if isinstance(part, list) else [part]
        keys += sum(len(row) for row in rows if isinstance(row, dict))
    return found if body.count(b'":') == keys else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = check.sample_values(check.duplicates([key for key, _ in pairs]))
        raise bad_input(f"An object must hold each key once. Received twice: {twice}")
    return made


def kind_of(value: Any) -> str:
    """A value as an error shows it: scalars as they are, and of lists and objects what they are."""
    if isinstance(value, str):
        return check.shown(value[:101])
    if isinstance(value, list | dict):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return check.shown(value)
