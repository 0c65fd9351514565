"""Formulas of docstrings, which are plain text for a terminal, as LaTeX for the pages.

    y_k = h_k(sum_i softmax(W_k x)_i f_i(x))

becomes `y_{k} = h_{k}(\\sum_{i} \\operatorname{softmax}(W_{k} x)_{i} f_{i}(x))`. Letters and Greek names are symbols,
names of functions stand upright, `_` and `^` lower and raise what follows, two or more spaces are a gap, and every
other word is text. What looks like code is left as it is: `latex` gives None.
"""

from __future__ import annotations

import re

GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega Lambda"
).split()
FUNCTIONS = (
    "softmax sigmoid relu tanh gelu swish logit logsumexp sin cos log ln exp det diag floor clip act dropout conv "
    "Dense BCE MHA LN MLP LSTM argmin argmax min max mean var std uniform sign sg link Block bottom"
).split()
ACCENTS = {"hat": r"\hat", "tilde": r"\tilde"}
SIGNS = {
    "<-": r"\leftarrow ", "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "||": r"\|", "..": r"\ldots ", "...": r"\ldots ",
    "#": r"\#", "%": r"\%", "~": r"\sim ", "<": "<", ">": ">", "{": r"\{", "}": r"\}", "&": r"\&", "$": r"\$",
}  # fmt: skip
TOKEN = re.compile(
    r"(?P<gap>\s{2,})|(?P<space>\s)|(?P<quoted>\"[^\"]*\"|`[^`]*`)|(?P<number>\d+(\.\d+)?(e[-+]?\d+)?)"
    r"|(?P<word>[A-Za-z]+\d*(@\w+)?)|(?P<raise>[_^])|(?P<sign><-|<=|>=|!=|\|\||\.\.\.|\.\.|.)"
)
CODE = re.compile(r"__|\b[a-z]\w+\.[a-z]\w*")  # an attribute is no product
# Two letters are a product of two symbols, or the two letters of an index, unless they are one of these.
SHORT_WORDS = "of or if in is at to by no so an on as it do".split()
SCRIPT = re.compile(r"-?(?:[A-Za-z0-9]+|#[A-Za-z])(?:,[A-Za-z0-9]+(?:_[A-Za-z0-9])?)?'?")


def latex(block: str, arguments: frozenset[str] = frozenset()) -> str | None:
    """A block of lines as one display formula, aligned at the first sign of equality of each line.

    Args:
        block: The lines, without their common indentation.
        arguments: Names that are set as such: a method's `learning_rate` is no product of letters.
    """
    lines = [line.rstrip() for line in block.splitlines() if line.strip()]
    if not lines or any(CODE.search(line) or line.strip() == "..." for line in lines):
        return None
    times = r"\cdot " if re.search(r"\bloss\b|\bpenalty\b|BCE", block) else r"\odot "
    rows = [_row(line, arguments, times) for line in lines]
    if len(rows) == 1:
        return rows[0].replace("&", "", 1)
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def symbol(text: str) -> str | None:
    """A name in running text, such as `W_k` or `f_1 .. f_n`, as LaTeX; None if it is a name of code."""
    term = rf"(?:[A-Za-z]|{'|'.join(GREEK)})(?:[_^](?:[a-z0-9]|[A-Z]\b|\([\w+-]+\))+)*"
    if not re.fullmatch(rf"{term}(?:\({term}\))?(?: \.\. {term})?", text) or text in ("a", "A"):
        return None
    return _Reader(text, frozenset(), r"\cdot ").all()


def _row(line: str, arguments: frozenset[str], times: str) -> str:
    indent = len(line) - len(line.lstrip())
    line = line.strip()
    for sign in (" = ", " <- ", " >= "):
        left, found, right = line.partition(sign)
        if found and not any(left.count(a) > left.count(b) for a, b in ("()", "[]", "{}")) and "  " not in left.strip():
            parts = (_Reader(part.strip(), arguments, times).all() for part in (left, right))
            return (r"\quad " * (indent // 4)) + f" & {SIGNS.get(sign.strip(), '=')} ".join(parts)
    return "& " + r"\quad " * (indent // 4) + _Reader(line, arguments, times).all()


class _Reader:
    """Reads tokens from left to right; words that stand beside each other become one piece of text."""

    def __init__(self, text: str, arguments: frozenset[str], times: str) -> None:
        self.text, self.arguments, self.times = text, arguments, times
        self.at = 0
        self.done: list[str] = []
        self.angles = 0

    def all(self) -> str:
        return self.until("")

    def until(self, closing: str) -> str:
        """What stands before the sign that closes a bracket, which is taken too."""
        outer, self.done = self.done, []
        while self.at < len(self.text):
            if closing and self.text[self.at] == closing:
                self.at += 1
                break
            self.token()
        inner, self.done = self.done, outer
        return _join(inner)

    def token(self) -> None:
        for name in self.arguments:
            told = (len(name) > 2 or name[-1].isdigit()) and not re.fullmatch(rf"(?:{'|'.join(GREEK)})(?:_\w)?", name)
            if told and re.match(rf"{name}(?![A-Za-z0-9(])", self.text[self.at :]):
                if not self.text[self.at - 1 : self.at].isalpha():
                    self.at += len(name)
                    self.done.append(rf"\mathtt{{{_escaped(name)}}}")
                    return
        match = TOKEN.match(self.text, self.at)
        assert match is not None  # the last alternative takes any sign
        self.at = match.end()
        getattr(self, f"_{match.lastgroup}")(match.group(match.lastgroup or 0))

    def _gap(self, token: str) -> None:
        self.done.append(r"\quad ")

    def _space(self, token: str) -> None:
        self.done.append(" ")

    def _quoted(self, token: str) -> None:
        self.done.append(rf"\text{{{_escaped(token.strip('`'))}}}")

    def _number(self, token: str) -> None:
        number = re.fullmatch(r"(.*?)e([-+]?)0*(\d+)", token)
        if number:
            self.done.append(rf"{number[1]} \cdot 10^{{{number[2]}{number[3]}}}".replace(r"1 \cdot ", ""))
        else:
            self.done.append(token)

    def _word(self, token: str) -> None:
        following, rest = self.text[self.at : self.at + 1], self.text[self.at :]
        name = re.match(r"(?:_[a-z]{3,})+(?![A-Za-z0-9^])", rest)
        if token == "log" and rest.startswith("_alpha"):
            self.at += len("_alpha")
            self.done.append(r"\log\alpha")
        elif name and len(token) > 2 and token + name.group() != "lambda_min":
            self.at = self.at + name.end()
            self.done.append(rf"\mathtt{{{_escaped(token + name.group())}}}")
        elif (token == "a" and re.match(r" [a-z]{3,}", rest)) or (token == "sum" and rest.startswith(" of")):
            self.done.append(rf"\text{{{token}}}")
        elif len(token) > 2 and token not in GREEK and re.match(r"'(?:s\b| )", rest):
            self.at += 1 + rest.startswith("'s")
            self.done.append(rf"\text{{{token}{rest[: 1 + rest.startswith(chr(39) + 's')]}}}")
        elif token == "sqrt" and following == "(":
            self.at += 1
            self.done.append(rf"\sqrt{{{self.until(')')}}}")
        elif token in GREEK:
            self.done.append(f"\\{token}" if following in "_^(" else f"\\{token} ")
        elif token in ("sum", "prod"):
            self.done.append(rf"\{token}" if following in ("_", "^") else rf"\{token} ")
        elif token == "in" and re.match(r" (?:[A-Z]\b|[A-Z][_(])", self.text[self.at :]):
            self.done.append(r"\in ")
        elif token in FUNCTIONS and (
            following in ("_", "(", "^") or token in ("log", "ln", "exp", "min", "max", "det")
        ):
            star = "*" if token.startswith(("arg", "mean", "min", "max")) else ""
            self.done.append(rf"\operatorname{star}{{{token}}}")
        elif len(token) == 1 or re.fullmatch(r"[A-Za-z]\d", token):
            index = token[1:]
            if index and following == "_" and (match := SCRIPT.match(self.text, self.at + 1)):  # w0_i: one index, 0,i
                self.at += 1 + len(match.group())
                index = f"{index},{_script(match.group())}"
            self.done.append(token[0] + (f"_{{{index}}}" if index else ""))
        elif len(token) == 2 and token not in SHORT_WORDS and token.isalpha():
            self.done.append(" ".join(token))
        else:
            self.done.append(rf"\text{{{_escaped(token)}}}")

    def _raise(self, token: str) -> None:
        if token == "^" and re.match(r"[_^ ]|$", self.text[self.at :]):
            self.done.append(r"\wedge ")
            return
        opening = self.text[self.at : self.at + 1]
        if opening in ("(", "{"):
            self.at += 1
            inner = self.until(")" if opening == "(" else "}")
        else:
            match = SCRIPT.match(self.text, self.at)
            raw = match.group() if match else opening if opening in ("+", "-") else ""
            self.at += len(raw)
            if token == "_" and raw in ACCENTS and self.done:
                self.done[-1] = f"{ACCENTS[raw]}{{{self.done[-1].strip()}}}"
                return
            inner = _script(raw)
        self.done.append(f"{token}{{{inner}}}")

    def _sign(self, token: str) -> None:
        before, after = self.text[: self.at - len(token)], self.text[self.at :]
        if token == "<" and re.match(r"[A-Za-z]", after) and not before[-1:].isalnum():
            self.angles += 1
            self.done.append(r"\langle ")
        elif token == ">" and self.angles and not before.endswith(" "):
            self.angles -= 1
            self.done.append(r"\rangle ")
        elif token == "*" and re.search(r"\w$", before) and re.match(r"[\s,;)]|$", after):
            self.done.append("^{*}")
        elif token == "*":
            self.done.append(r"\cdot " if re.search(r"\}\s*$", "".join(self.done[-2:])) and
                             "mathtt" in "".join(self.done[-2:]) else self.times)  # fmt: skip
        elif token == "." and before.endswith(" ") and after.startswith(" "):
            self.done.append(r"\cdot ")
        elif token == "~" and before[-1:].isalpha():
            self.done[-1] = rf"\tilde{{{self.done[-1]}}}"
        else:
            self.done.append(SIGNS.get(token, token))


def _script(raw: str) -> str:
    """An index or exponent: one or two letters are symbols each, more are a word."""
    parts = []
    for part in re.findall(r"[A-Za-z]+|\d+|.", raw):
        if part in GREEK:
            parts.append(f"\\{part} ")
        elif part in ("min", "max"):
            parts.append(f"\\{part}")
        elif part.isalpha() and len(part) > 2:
            parts.append(rf"\text{{{part}}}")
        else:
            parts.append(part)
    return "".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([_#%&$])", r"\\\1", text)


def _join(parts: list[str]) -> str:
    """The pieces in a row; words beside each other, and the blanks between and around them, in one text."""
    joined = "".join(parts)
    for _ in range(2):  # every second border is found at a time
        joined = re.sub(r"\\text\{([^{}]*)\} \\text\{", r"\\text{\1 ", joined)
        while re.search(r"\\text\{([^{}]*)\} \\text\{", joined):
            joined = re.sub(r"\\text\{([^{}]*)\} \\text\{", r"\\text{\1 ", joined)
    joined = re.sub(r"\\text\{([^{}]*)\} ", r"\\text{\1 }", joined)
    return re.sub(r" \\text\{([^{}]*)\}", r"\\text{ \1}", joined)
