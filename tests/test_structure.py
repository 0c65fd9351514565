"""The house rules that a machine can check: imports point one way, names stay public, docstrings tell the truth."""

import ast
import configparser
import fnmatch
import functools
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

import mtl_zoo
from mtl_zoo.balancing import Balancing
from mtl_zoo.features.spec import FEATURES, Feature
from mtl_zoo.tasks import TASKS, Task

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mtl_zoo"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

# Who may import whom (besides itself). The longest prefix that fits a module is its rule.
_BASE = (
    *("_types", "_validation", "_registry", "_files", "_serialization", "_backend", "_distribute", "_keras_private"),
    "_gradients",
    "_halves",
    "_once",
    "_pages",
    "_pairs",
    "_reads",
    "_space",
    "_progress",
    "options",
)
_PARTS = ("tasks", "features", "layers", "losses", "metrics", "balancing", "optimizers")
_FEATURES = ("_types", "_validation", "_registry", "_files", "_serialization", "_allocator", "_progress", "tasks")
_MODELS = ("heads", "models", "steps")
_TOOLS = ("training", "datasets", "evaluation", "explanations", "export", "serving")
MAY_IMPORT = {
    "_types": (),
    "_validation": (),
    "_registry": ("_validation",),
    "_files": (),
    "_serialization": ("_validation",),
    "_backend": ("_validation", "_reads"),
    "_distribute": ("_backend", "_keras_private"),
    "_allocator": (),
    "_keras_private": (),
    "_gradients": ("_backend",),
    "_halves": (),
    "_once": (),
    "_pages": ("_backend",),
    "_pairs": (),
    "_reads": (),
    "_space": ("_validation",),
    "_progress": (),
    "options": ("_validation", "_serialization"),
    "tasks": ("_validation", "_registry", "_pairs", "metrics"),
    "tasks._retrieval_loss": ("_pairs", "_backend"),
    "features": _FEATURES,
    # A kind that brings a layer of its own imports it where it is asked for it.
    "features.vector": (*_FEATURES, "features", "layers.vector_encoder"),
    "features.image": (*_FEATURES, "features", "layers.image_cnn", "layers.image_encoder"),
    "features.numeric": (*_FEATURES, "features", "layers.piecewise_linear_encoder", "layers.periodic_encoder"),
    "features.datetime": (*_FEATURES, "features", "layers.vector_encoder", "layers.datetime_encoder"),
    "features.text": (*_FEATURES, "features", "layers.text"),
    "features.neighbours": (*_FEATURES, "features", "layers.neighbour_attention"),
    "features.sequence": (*_FEATURES, "features", "layers.history"),
    "features.entity_sequence": (*_FEATURES, "features", "layers.entity_list"),
    "language": (*_BASE, "features"),
    "layers": _BASE,
    "layers._places": (*_BASE, "features.base", "features.requests"),
    "layers._numbers": (*_BASE, "features.requests", "layers._places"),
    "layers.feature_embedding": (
        *_BASE,
        "layers._numbers",
        "layers._places",
        "layers._tables",
        "layers.feature_fusion",
        "features.base",
        "features.requests",
    ),
    "losses": (*_BASE, "tasks"),
    "metrics": _BASE,
    "balancing": (*_BASE, "tasks", "losses"),
    "steps": (*_BASE, "losses", "balancing"),
    "self_supervision": (*_BASE, "features", "layers"),
    "optimizers": _BASE,
    "serving": (*_BASE, "features"),
    "heads": (*_BASE, *_PARTS),
    "models": (*_BASE, "_allocator", *_PARTS, "heads", "serving", "steps", "self_supervision"),
    "datasets": (*_BASE, "tasks", "features"),
    "training": (*_BASE, "_allocator", *_PARTS, *_MODELS, *_TOOLS),
    "evaluation": (*_BASE, *_PARTS, *_MODELS, *_TOOLS),
    "explanations": (*_BASE, *_PARTS, *_MODELS, *_TOOLS),
    "continual": (*_BASE, *_PARTS, *_MODELS, *_TOOLS),
    "export": (*_BASE, *_PARTS, *_MODELS, *_TOOLS),
    "recommend": (*_BASE, *_PARTS, *_MODELS, *_TOOLS),
    "service": ("_validation", "_registry", "_backend", "features", "serving", "models", "recommend"),
    "benchmark": (*_BASE, *_PARTS, *_MODELS, *_TOOLS, "continual"),
    "search": (*_BASE, *_PARTS, *_MODELS, *_TOOLS, "benchmark"),
    "cli_data": (*_BASE, *_PARTS, *_MODELS, *_TOOLS),
    "cli": (*_BASE, *_PARTS, *_MODELS, *_TOOLS, "benchmark", "service"),
}
# Where TensorFlow may be imported at all; in the modules of a model, only inside a function.
_TOOLS_OF_TENSORFLOW = ("continual", "datasets", "training", "export", "optimizers", "benchmark", "recommend")
_SCORES = ("models._call_step", "models._first_batch", "serving", "service")
_STEPS = ("steps", "balancing.kinds", "balancing.engine")
_BACKENDS = ("_allocator", "_backend", "_gradients", "_distribute", "_pages")
TENSORFLOW = (*_BACKENDS, "features", "language", *_SCORES, *_STEPS, *_TOOLS_OF_TENSORFLOW)
INSIDE_FUNCTIONS = (
    *_BACKENDS,
    "balancing",
    "continual",
    "steps",
    "features",
    "language",
    "models",
    "serving",
    "recommend",
    "service",
)
# Where another backend may be, inside functions.
OTHER_BACKENDS = ("_backend", "_gradients", "steps._by_row")
NO_TENSORFLOW = ("features.inputs",)
_KINDS = (
    "tasks",
    *(f"features.{name}" for name in ("base", "requests", "spec", "categorical", "sequence", "numeric", "encoded")),
    *(f"features.{name}" for name in ("vector", "datetime", "image", "text", "neighbours", "entity_sequence")),
)
PURE_DATA = ("_types", "_validation", "_registry", *_KINDS)
PRIVATE = "_keras_private"
KIND_NAMES = {*FEATURES, *TASKS}


def module_name(path: Path) -> str:
    """`layers.mlp` for mtl_zoo/layers/mlp.py, `layers` for mtl_zoo/layers/__init__.py, "" for the package itself."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {module_name(path): path for path in FILES}
IDS = {"argvalues": sorted(MODULES), "ids": lambda name: name or "__init__"}


@functools.cache
def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def within(name: str, prefixes) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def imported(name: str) -> list[tuple[str, int, bool]]:
    """All imports of a module: (full dotted name, line, whether inside a function)."""
    found = []

    def visit(node, inside):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"mtl_zoo.{name}, line {node.lineno}: write the import in full, not relative"
            found.extend((f"{node.module}.{alias.name}", node.lineno, inside) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, ast.FunctionDef))

    visit(parse(name), False)
    return found


def own_module(dotted: str) -> str | None:
    """The module of ours that an import reaches (`mtl_zoo.tasks.BinaryTask` -> `tasks`); None for others' modules."""
    parts = dotted.split(".")
    if parts[0] != "mtl_zoo":
        return None
    inner = parts[1:]
    while inner and ".".join(inner) not in MODULES:
        inner.pop()
    return ".".join(inner)


@pytest.mark.parametrize("name", **IDS)
def test_imports_point_one_way(name):
    if name in ("", "__main__"):
        return
    rules = [prefix for prefix in MAY_IMPORT if within(name, [prefix])]
    assert rules, f"mtl_zoo.{name} has no place in the table of imports: give it one in {Path(__file__).name}"
    rule = max(rules, key=len)
    for dotted, line, _ in imported(name):
        target = own_module(dotted)
        if target is None or dotted == "mtl_zoo.__version__":
            continue
        # A package may import within itself, save that a module with a rule of its own stays below its package.
        itself = (name.split(".")[0],) if "." not in rule else (rule,)
        assert target and within(target, (*MAY_IMPORT[rule], *itself)), (
            f"mtl_zoo.{name}, line {line} imports {dotted}; mtl_zoo.{rule} may import itself and {MAY_IMPORT[rule]}"
        )


@pytest.mark.parametrize("name", **IDS)
def test_backends_are_imported_where_they_may_be(name):
    for dotted, line, inside in imported(name):
        top = dotted.split(".")[0]
        where = f"mtl_zoo.{name}, line {line}: "
        if not inside or name not in OTHER_BACKENDS:
            said = f"{top} is imported in functions of {', '.join(OTHER_BACKENDS)} only"
            assert top not in ("torch", "jax", "flax"), where + said
        assert top != "tf_keras" and not dotted.startswith("tensorflow.keras"), where + "Keras 3 is `import keras`"
        if within(name, PURE_DATA):
            pure = top not in ("keras", "tensorflow") or (inside and within(name, _KINDS))
            assert pure, where + "this module must be importable without Keras"
        if top == "tensorflow":
            assert within(name, TENSORFLOW) and not within(name, NO_TENSORFLOW), where + "not a place for TensorFlow"
            assert inside or not within(name, INSIDE_FUNCTIONS), where + "import TensorFlow inside the function"


def attribute_chain(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("name", **IDS)
def test_private_modules_are_used_in_one_file(name):
    if name == PRIVATE:
        return
    used = [dotted for dotted, _, _ in imported(name)]
    used += [attribute_chain(node) for node in ast.walk(parse(name)) if isinstance(node, ast.Attribute)]
    private = [u for u in used if re.match(r"keras\.src\b|(tf|tensorflow)\.python\b|keras(\.\w+)*\._\w", u)]
    assert not private, f"mtl_zoo.{name} uses {sorted(set(private))}: private names belong in mtl_zoo/{PRIVATE}.py"


@functools.cache
def private_keras_attributes() -> frozenset[str]:
    """Underscore names that Keras gives to its models, layers, losses, metrics and optimizers."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    objects = (model, model.layers[0], keras.losses.MeanSquaredError(), keras.metrics.Mean(), model.optimizer)
    return frozenset(n for o in objects for n in dir(o) if n.startswith("_") and not n.startswith("__"))


@pytest.mark.parametrize("name", **IDS)
def test_private_keras_attributes_are_used_in_one_file(name):
    if not within(
        name, ("layers", "heads", "backbones", "models", "losses", "metrics", "training", "optimizers", "balancing")
    ):
        return
    attributes = {node.attr for node in ast.walk(parse(name)) if isinstance(node, ast.Attribute)}
    methods = {node.name for node in ast.walk(parse(name)) if isinstance(node, ast.FunctionDef)}
    private = sorted((attributes | methods) & private_keras_attributes())
    assert not private, (
        f"mtl_zoo.{name} uses or hides Keras' own {private}: put it in mtl_zoo/{PRIVATE}.py, or rename it"
    )


@pytest.mark.parametrize("name", **IDS)
def test_no_print_no_lambda_layer_no_swallowed_keyword(name):
    for node in ast.walk(parse(name)):
        where = f"mtl_zoo.{name}, line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, ast.Call):
            called = attribute_chain(node.func) or getattr(node.func, "id", "")
            assert called != "print", where + "use logging, or a rich Console in the command line"
            assert called.split(".")[-1] != "Lambda", where + "a saved Lambda layer does not load by default"
        if isinstance(node, ast.FunctionDef) and node.args.kwarg:
            inside = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            assert node.args.kwarg.arg in inside, where + f"`**{node.args.kwarg.arg}` of {node.name} swallows keywords"


def local_names(name: str) -> dict[str, object]:
    """What the names that a module imports from the package stand for."""
    found = {}
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mtl_zoo"):
            module = importlib.import_module(node.module)
            found |= {alias.asname or alias.name: getattr(module, alias.name, None) for alias in node.names}
    return found


@pytest.mark.parametrize("name", **IDS)
def test_no_module_asks_what_kind_a_thing_is(name):
    """A kind of feature, task or balancing method owns its whole life: the house asks the object, not its class."""
    bases = (Feature, Task, Balancing)
    names = local_names(name)
    asked = []
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            classes = [names.get(inner.id) for inner in ast.walk(node.args[1]) if isinstance(inner, ast.Name)]
            kinds = [c for c in classes if inspect.isclass(c) and issubclass(c, bases) and c not in bases]
            asked += [(node.lineno, c.__name__) for c in kinds if c.__module__ != f"mtl_zoo.{name}"]
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            literal = any(isinstance(side, ast.Constant) and side.value in KIND_NAMES for side in sides)
            if literal and any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides):
                asked.append((node.lineno, ast.unparse(node)))
    assert not asked, f"mtl_zoo.{name} asks for kinds: {asked}. Let the kind answer."


def test_every_folder_and_file_is_packaged():
    folders = {path.parent for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    code = {folder for folder in folders if list(folder.glob("*.py"))}
    assert not [str(folder) for folder in code if not (folder / "__init__.py").exists()]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["mtl_zoo"].split()
    others = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".so")]
    names = [path.relative_to(PACKAGE).as_posix() for path in others]
    left_out = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    assert not left_out, f"setup.cfg's package_data leaves out {left_out}: a plain `pip install .` would miss them"


def test_a_model_is_two_files_and_one_line():
    """CONTRIBUTING.md's recipe for a model, read off the tree."""
    files = {path.stem for path in (PACKAGE / "models").glob("*.py") if not path.stem.startswith("_")}
    assert files == set(mtl_zoo.list_models())
    lines = (PACKAGE / "models" / "__init__.py").read_text(encoding="utf-8").splitlines()
    for name in files:
        assert (ROOT / "tests" / "models" / f"test_{name}.py").exists(), f"tests/models/test_{name}.py is missing"
        assert sum(line.startswith(f"from mtl_zoo.models.{name} import ") for line in lines) == 1
    recipe = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in ("mtl_zoo/models/<name>.py", "tests/models/test_<name>.py", "mtl_zoo/models/__init__.py"):
        assert path in recipe


def test_a_format_is_two_files_and_one_line():
    from mtl_zoo.export import list_formats

    room = PACKAGE / "serving" / "formats"
    files = {path.stem for path in room.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(list_formats())
    lines = (room / "__init__.py").read_text(encoding="utf-8").splitlines()
    for name in files:
        assert (ROOT / "tests" / "serving" / f"test_{name}.py").exists(), f"tests/serving/test_{name}.py is missing"
        assert sum(line.startswith(f"from mtl_zoo.serving.formats.{name} import ") for line in lines) == 1
    recipe = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in ("mtl_zoo/serving/formats/<name>.py", "tests/serving/test_<name>.py"):
        assert path in recipe


def test_a_balancing_method_is_two_files_and_one_line():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "balancing").glob("test_*.py")]

    def tested(name):  # in a file of its own, or of its family
        own = (ROOT / "tests" / "balancing" / f"test_{name}.py").exists()
        return own or any(f"test_{name}_" in text for text in texts)

    files = {path.stem for path in (PACKAGE / "balancing").glob("*.py") if not path.stem.startswith("_")}
    assert files == set(mtl_zoo.list_balancing())
    lines = (PACKAGE / "balancing" / "__init__.py").read_text(encoding="utf-8").splitlines()
    for name in files:
        assert tested(name), f"no test in tests/balancing names {name}"
        assert sum(line.startswith(f"from mtl_zoo.balancing.{name} import ") for line in lines) == 1
    recipe = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in ("mtl_zoo/balancing/<name>.py", "tests/balancing/test_<name>.py", "mtl_zoo/balancing/__init__.py"):
        assert path in recipe


def test_the_version_stands_in_one_file():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", changelog, flags=re.MULTILINE)
    released = [heading for heading in headings if heading[0] != "Unreleased"]
    assert released[0][0] == mtl_zoo.__version__, "CHANGELOG.md's newest version is not mtl_zoo.__version__"
    assert all(date for _, date in released), "a released version has its date"
    assert "version = attr: mtl_zoo.__version__" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "version" not in re.findall(r"^(\w+) =", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


PUBLIC = sorted(n for n in mtl_zoo.__all__ if callable(getattr(mtl_zoo, n)))


def arguments(function) -> dict[str, inspect.Parameter]:
    """What a user passes by name: without self and `**`."""
    parameters = inspect.signature(function).parameters
    return {n: p for n, p in parameters.items() if n != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def documented(thing, seen: tuple[str, ...] = ()) -> dict[str, str]:
    """Argument -> its text in `Args:`, in those of the classes it extends and of one it names ("See `X`")."""
    texts: dict[str, str] = {}
    for owner in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else [thing]:
        doc = inspect.cleandoc(owner.__doc__ or "")  # a class without one of its own has None
        for other in re.findall(r"(?:those of|[Ss]ee) `(\w+)`", doc):
            if hasattr(mtl_zoo, other) and other not in seen:
                texts.update(documented(getattr(mtl_zoo, other), (*seen, other)))
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", doc, flags=re.MULTILINE)
        body = textwrap.dedent(section.group(1)) if section else ""
        for names, text in re.findall(r"^([\w*`, ]+):((?:.*\n?)(?:[ ]+.*\n?)*)", body, flags=re.MULTILINE):
            texts.update({name.strip(" *`"): " ".join(text.split()) for name in names.split(",")})
    return texts


def docstring_lines(node):
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) or ast.get_docstring(node) is None:
        return 0
    return node.body[0].end_lineno - node.body[0].lineno + 1


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_read_at_once(path):
    """At most 400 lines a file and 50 the body of a function, docstrings not counted."""
    text = path.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    assert text.count("\n") - sum(map(docstring_lines, nodes)) <= 400
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.body[0].lineno + 1 - docstring_lines(node)
            assert lines <= 50, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings(name):
    thing = getattr(mtl_zoo, name)
    doc = inspect.cleandoc(thing.__doc__ or "")
    first, _, rest = doc.partition("\n")
    assert first.endswith((".", ":")) and len(first) <= 120, (
        f"{name}: the docstring opens with one line. Received: {first!r}"
    )
    assert not rest or rest.startswith("\n"), f"{name}: an empty line follows the docstring's first line"
    assert ">>> " in doc, f"{name}: the docstring has no example"
    missing = sorted(set(arguments(thing)) - set(documented(thing)) - {"name"})
    assert not missing, f"{name}: `Args:` leaves out {missing}"


@pytest.mark.parametrize("name", PUBLIC)
def test_documented_defaults_are_the_defaults(name):
    thing = getattr(mtl_zoo, name)
    texts = documented(thing)
    for argument, parameter in arguments(thing).items():
        for text in re.findall(r"\b[Dd]efault(?:s to|:)? +`*([^`\s;]+?)`*(?:[.,;)]*)(?=\s|$)", texts.get(argument, "")):
            try:
                value = ast.literal_eval(text)
            except (SyntaxError, ValueError):
                continue  # prose, such as "Default: the usual one"
            if parameter.default is not None:  # None stands for a default that is worked out later
                assert value == parameter.default, (
                    f"{name}: `{argument}` is {parameter.default!r}, documented as {text}"
                )


def run_python(code: str, **env: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.extended
def test_import_does_nothing():
    code = """
        import os, socket, threading
        import keras, tensorflow

        def refuse(*args):
            raise AssertionError("importing mtl_zoo opened a connection")

        socket.socket.connect = refuse
        environment, threads = dict(os.environ), threading.active_count()
        import mtl_zoo
        assert dict(os.environ) == environment, "importing mtl_zoo changed the environment"
        assert threading.active_count() == threads, "importing mtl_zoo started a thread"
        print("nothing")
    """
    assert "nothing" in run_python(code)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_recommender_libraries_live_in_one_process():
    """TFRS refuses Keras 3 unless TensorFlow is told to use the old Keras; `import keras` is still Keras 3 then."""
    code = """
        import mtl_zoo
        import keras, keras_rs, tensorflow_text
        import tensorflow_recommenders as tfrs

        assert keras.__version__.startswith("3.")
        index = tfrs.layers.factorized_top_k.BruteForce(k=2).index(keras.ops.eye(3))
        _, ids = index(keras.ops.convert_to_tensor([[0.0, 1.0, 0.5]]))
        print("nearest", ids.numpy().tolist())
    """
    assert "nearest [[1, 2]]" in run_python(code, TF_USE_LEGACY_KERAS="1")


def test_versions_are_those_that_we_support():
    versions = {
        name: tuple(map(int, re.findall(r"\d+", metadata.version(name))[:2]))
        for name in ("keras", "tensorflow", "pandas")
    }
    assert (3, 15) <= versions["keras"] < (4, 0)
    assert (2, 20) <= versions["tensorflow"] < (2, 22)
    assert versions["pandas"] >= (2, 2)
