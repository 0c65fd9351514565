"""One registry for every kind of thing that has names: models, balancing methods, data sets, kinds, steps, formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from mtl_zoo import _validation as check

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries by name. Names are taken once, and an unknown one is an error that lists those that exist.

    Args:
        what: What an entry is, as an argument's name in errors: `"model"`, `"balancing"`, `"format"`.

    Example:

    >>> from mtl_zoo._registry import Registry
    >>> formats = Registry("format")
    >>> formats.add("csv", "comma-separated values")
    >>> formats["csv"], formats.names()
    ('comma-separated values', ['csv'])
    """

    def __init__(self, what: str):
        self.what = what
        self._entries: dict[str, Entry] = {}
        self._owners: dict[str, str] = {}

    def add(self, name: str, entry: Entry, owner: Any = None) -> None:
        """Enters `entry`; `owner` (default: the entry) is the class or function that has the name.

        The same class may come again, since a module may be loaded anew; another one may not.

        Raises:
            ValueError: An illegal name, or one that something else has.
        """
        check.check_name("name", name)
        owner = entry if owner is None else owner
        qualified = getattr(owner, "__qualname__", repr(owner))
        before = self._owners.get(name)
        if before is not None and before != qualified:
            raise ValueError(f"`name` must not be taken. Received: {name!r}, the name of {before}")
        self._entries[name] = entry
        self._owners[name] = qualified

    def register(self, name: str, keep_as: str | None = None) -> Callable[[Any], Any]:
        """`add` as a decorator of a class or function, which keeps its name in the attribute `keep_as`, if given."""
        check.check_name("name", name)

        def enter(entry: Any) -> Any:
            self.add(name, entry)
            if keep_as is not None:
                setattr(entry, keep_as, name)
            return entry

        return enter

    def __getitem__(self, name: str) -> Entry:
        check.check_choice(self.what, name, self.names())
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._entries)

    def in_order(self) -> list[Entry]:
        """The entries in the order in which they were entered."""
        return list(self._entries.values())
