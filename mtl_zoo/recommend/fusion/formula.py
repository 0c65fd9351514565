"""A formula of tasks' scores, as text: it is parsed, checked and compiled here, and never evaluated as code."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math as numbers
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from mtl_zoo.recommend.fusion._base import Fusion, checked_numbers, register_fusion
from mtl_zoo.recommend.fusion._math import Math

MAX_CHARACTERS, MAX_DEPTH, MAX_PARTS, MAX_POWER, MAX_CONSTANT = 1000, 30, 200, 100.0, 1e12
_Compiled = Callable[[Math, Mapping[str, Any]], Any]
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
# name: how many arguments
FUNCTIONS = {"log": 1, "exp": 1, "sqrt": 1, "min": 2, "max": 2, "clip": 3}


@register_fusion("formula")
@dataclasses.dataclass(frozen=True)
class Formula(Fusion):
    """A fusion written as a formula, such as `"click ** 0.5 * (0.1 + conversion)"`.

    The text may hold names of tasks and of `constants`, numbers, `+ - * / **`, parentheses, and `log(x)`, `exp(x)`,
    `sqrt(x)`, `min(x, y)`, `max(x, y)` and `clip(x, low, high)`. A power is a number or one of the constants, at most
    100. Anything else is refused: the text is parsed into a tree whose parts are checked one by one and compiled to
    array operations, so that it cannot run code, whoever wrote it. In a task's name, characters that a formula cannot
    hold are written as `_`.

    Args:
        text: The formula, at most 1,000 ASCII characters, 200 parts and 30 levels of nesting.
        constants: Numbers by the name that the formula has for them. Default: none.
        floors: A smallest score by task; candidates under it come behind. Default: none.

    Raises:
        ValueError: The text is no such formula; its message names the part. Scores lack a name of the formula, or
            fused scores are not finite (a logarithm of 0, a division by 0).

    Example:

    >>> from mtl_zoo.recommend import Formula
    >>> fusion = Formula("click * max(conversion, least) ** power", {"least": 0.01, "power": 0.5})
    >>> fusion.tasks(), fusion({"click": [0.5, 0.2], "conversion": [0.0, 0.25]}).round(3).tolist()
    (('click', 'conversion'), [0.05, 0.1])
    """

    text: str
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "constants", checked_numbers("constants", self.constants, allow_empty=True))
        if not self.tasks():
            raise ValueError(f"`text` must name a task. Received: text={self.text!r}")

    @functools.cached_property
    def _program(self) -> tuple[_Compiled, tuple[str, ...]]:
        """What the text does, and the names of tasks in it."""
        compiler = _Compiler(self.constants)
        return compiler.compiled(_parsed(self.text)), tuple(compiler.names)

    def tasks(self) -> tuple[str, ...]:
        return self._program[1]

    def __call__(self, scores: Mapping[str, Any], groups: Any = None) -> Any:
        return super().__call__(self._spelled(scores), groups)

    def in_graph(self, scores: Mapping[str, Any]) -> Any:
        return super().in_graph(self._spelled(scores))

    def _spelled(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """The scores, also under the names that the formula can spell."""
        spelled = dict(scores)
        for name in scores:
            other = re.sub(r"\W", "_", name, flags=re.ASCII)
            other = f"_{other}" if other[:1].isdigit() else other
            if other != name and other in spelled and other in self.tasks():
                raise ValueError(
                    f"`scores` must have one task that a formula spells {other!r}. Received: {sorted(scores)}"
                )
            spelled[other] = scores[name]
        return spelled

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        return self._program[0](math, scores)


def _parsed(text: Any) -> ast.expr:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"`text` must be a formula. Received: text={text!r}")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"`text` must have at most {MAX_CHARACTERS:,} characters. Received: {len(text):,}")
    # Python reads other scripts' letters as if they were ASCII ones (NFKC), so two names could look like one.
    if not text.isascii() or not text.isprintable():
        odd = sorted({c for c in text if not (c.isascii() and c.isprintable())})
        raise ValueError(f"`text` must hold printable ASCII characters. Received: {odd[:5]!a}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"`text` must be a formula. Received: text={text!r} ({type(error).__name__})") from None


class _Compiler:
    """From the parts of a formula to array operations; every part that is not named here is refused."""

    def __init__(self, constants: Mapping[str, float]):
        self.constants = constants
        self.names: dict[str, None] = {}
        self.parts = 0

    def compiled(self, node: ast.expr, depth: int = 0) -> _Compiled:
        self.parts += 1
        if depth > MAX_DEPTH or self.parts > MAX_PARTS:
            raise ValueError(f"`text` must have at most {MAX_PARTS} parts and {MAX_DEPTH} levels. Received: more")
        if isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in self.constants):
            number = self._number(node)
            return lambda math, scores: math.constant(number, next(iter(scores.values())))
        if isinstance(node, ast.Name):
            return self._task(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner, sign = self.compiled(node.operand, depth + 1), -1 if isinstance(node.op, ast.USub) else 1
            return lambda math, scores: sign * inner(math, scores)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return self._power(node, depth)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = self.compiled(node.left, depth + 1), self.compiled(node.right, depth + 1)
            operator = _OPERATORS[type(node.op)]
            return lambda math, scores: operator(left(math, scores), right(math, scores))
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        raise ValueError(
            f"`text` must be arithmetic of tasks' scores. Received: {_shown(node)}. Expected: names, numbers, "
            f"+ - * / **, and {', '.join(FUNCTIONS)}"
        )

    def _task(self, name: str) -> _Compiled:
        if name in FUNCTIONS or name.startswith("__"):
            raise ValueError(f"`text` must name tasks and constants. Received: {name!r}")
        self.names[name] = None
        return lambda math, scores: scores[name]

    def _number(self, node: ast.expr) -> float:
        value = self.constants[node.id] if isinstance(node, ast.Name) else getattr(node, "value", None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"`text` must hold numbers and no other constants. Received: {_shown(node)}")
        if (
            (isinstance(value, int) and value.bit_length() > 64)
            or not numbers.isfinite(value)
            or abs(value) > MAX_CONSTANT
        ):
            raise ValueError(f"`text` must hold numbers of at most {MAX_CONSTANT:g}. Received: {_shown(node)}")
        return float(value)

    def _power(self, node: ast.BinOp, depth: int) -> _Compiled:
        exponent, sign = node.right, 1.0
        while isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub | ast.UAdd):
            sign = -sign if isinstance(exponent.op, ast.USub) else sign
            exponent = exponent.operand
        constant = isinstance(exponent, ast.Constant) or (
            isinstance(exponent, ast.Name) and exponent.id in self.constants
        )
        power = sign * self._number(exponent) if constant else numbers.inf
        if abs(power) > MAX_POWER:
            raise ValueError(
                f"`text` must have powers that are numbers or constants of at most {MAX_POWER:g}. "
                f"Received: {_shown(node)}"
            )
        base = self.compiled(node.left, depth + 1)

        def raised(math: Math, scores: Mapping[str, Any]) -> Any:
            value = base(math, scores)
            return math.power(value, math.constant(power, value))

        return raised

    def _call(self, node: ast.Call, depth: int) -> _Compiled:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in FUNCTIONS or node.keywords:
            raise ValueError(f"`text` must call {', '.join(FUNCTIONS)} alone. Received: {_shown(node)}")
        if len(node.args) != FUNCTIONS[name]:
            raise ValueError(f"`text` must give {name} {FUNCTIONS[name]} arguments. Received: {_shown(node)}")
        parts = [self.compiled(argument, depth + 1) for argument in node.args]

        def called(math: Math, scores: Mapping[str, Any]) -> Any:
            values = [part(math, scores) for part in parts]
            if name in ("min", "max"):
                return (math.minimum if name == "min" else math.maximum)(*values)
            if name == "clip":
                return math.minimum(math.maximum(values[0], values[1]), values[2])
            return getattr(math, name)(values[0])

        return called


def _shown(node: ast.AST) -> str:
    """A part of the formula, short enough for a message."""
    try:
        text = ast.unparse(node)
    except RecursionError:
        return "a deeply nested part"
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
