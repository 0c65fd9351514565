"""The balancing methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry
from mtl_zoo.balancing._base import Balancing

BALANCING: Registry[type[Balancing]] = Registry("balancing")


def register_balancing(name: str) -> Callable[[type[Balancing]], type[Balancing]]:
    """Decorator that enters a method under a name for `compile(balancing=...)` and registers it for saving.

    Example:

    >>> from mtl_zoo.balancing import LossBalancing, register_balancing
    >>> @register_balancing("pcgrad")
    ... class Mine(LossBalancing):
    ...     pass
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'pcgrad', the name of PCGrad
    """
    check.check_name("name", name)

    def register(cls: type[Balancing]) -> type[Balancing]:
        BALANCING.add(name, cls)
        cls.method_name = name
        return keras.saving.register_keras_serializable(package="mtl_zoo")(cls)

    return register


def list_balancing() -> list[str]:
    """The names that `compile(balancing=...)` knows, sorted.

    Example:

    >>> import mtl_zoo
    >>> "pcgrad" in mtl_zoo.list_balancing()
    True
    """
    return BALANCING.names()


def create_balancing(method: str, /, **options: Any) -> Balancing:
    """A balancing method by name.

    Args:
        method: One of `list_balancing()`.
        options: Arguments of the method's class.

    Raises:
        ValueError: An unknown method (the known ones are listed), or what its class refuses.
        TypeError: An unknown option (the known ones are listed).

    Example:

    >>> from mtl_zoo.balancing import create_balancing
    >>> create_balancing("mgda", include_tables=True).include_tables
    True
    """
    cls = BALANCING[method]
    known = [p for p in inspect.signature(cls).parameters if p != "name"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(f"`{unknown[0]}` is not an argument of {method!r}. Expected: one of {known}")
    return cls(**options)


def as_balancing(given: Any) -> Balancing | None:
    """What `compile(balancing=...)` takes: None, a name, or a method, of which a fresh copy is made.

    Raises:
        ValueError: An unknown name.
        TypeError: Something else.

    Example:

    >>> from mtl_zoo.balancing import as_balancing
    >>> as_balancing("pcgrad").method_name, as_balancing(None)
    ('pcgrad', None)
    """
    if given is None:
        return None
    if isinstance(given, str):
        return create_balancing(given)
    if not isinstance(given, Balancing):
        raise TypeError(
            f"`balancing` must be a name or a Balancing. Received: balancing={given!r}. "
            f"Expected: one of {list_balancing()}"
        )
    # A copy: its state belongs to one model and one compile.
    return type(given).from_config(given.get_config())


def label_of(method: Balancing) -> str:
    """A method's name, with the options that are not its defaults; of `Static` its weights.

    Example:

    >>> from mtl_zoo.balancing import DWA, Static, label_of
    >>> label_of(DWA(steps=50)), label_of(Static({"click": 1.0, "like": 0.5}))
    ('dwa(steps=50)', 'static(click=1, like=0.5)')
    """
    config = method.get_config()
    defaults = {name: p.default for name, p in inspect.signature(type(method)).parameters.items() if name != "name"}
    return label(method.method_name, {n: config[n] for n, default in defaults.items() if config[n] != default})


def label(name: str, options: Mapping[str, Any]) -> str:
    """The label of a method with these options."""
    if name == "static" and list(options) == ["weights"]:
        options = options["weights"]
    text = ", ".join(f"{option}={_short(value)}" for option, value in options.items())
    return f"{name}({text})" if text else name


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_short(item)}" for name, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
