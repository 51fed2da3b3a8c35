"""The house: which part may import which, and how long the core, its proof and the README may be."""

import ast
import graphlib
import sys

import pytest
from helpers import HERE

SPANREL_AT_THE_TOP = {"torch", "jaxtyping"}
SPANREL_ANYWHERE = {*SPANREL_AT_THE_TOP, "beartype"}  # where the shape checks are on
MODEL = {"baselines", "spanrel", "support"}
PROGRAM = {*MODEL, "corpora", "data", "train"}
# What each part may import of the project, besides itself. A part is a file here, or a folder.
ALLOWED = {
    "spanrel": set(),
    "support": set(),
    "corpora": {"support"},
    "baselines": {"spanrel", "support"},
    "data": {"corpora", "support"},
    "train": {*MODEL, "data"},
    "tools": PROGRAM,
    **dict.fromkeys(("tools.checks", "tools.exercises"), {*PROGRAM, "test_spanrel"}),  # graded by the proof
    "test_spanrel": {*PROGRAM, "tests"},
    "tests": {*PROGRAM, "tools", "test_spanrel"},
    "conftest": set(),
}


def source_files():
    """The source of each Python file of the project, by the name of its module."""
    folders = [path.parent for path in HERE.glob("*/__init__.py")] + [HERE / "tests"]
    paths = list(HERE.glob("*.py"))
    for folder in folders:
        paths += folder.rglob("*.py")
    sources = {}
    for path in paths:
        parts = path.relative_to(HERE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources[name] = path.read_text(encoding="utf-8")
    return sources


def imports_of(source):
    """(the name that is imported, whether at the top) of each import, those inside of functions too.

    `from a import b` imports a.b, whether that is a module or not. A relative import begins with a dot."""
    tree, imports = ast.parse(source), []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names = [f"{origin}.{alias.name}" for alias in node.names]
        imports += [(name, node in tree.body) for name in names]
    return imports


def modules_behind(name, sources):
    """The modules of the project that importing this name runs: the packages around it, then itself."""
    if f"tests.{name.split('.')[0]}" in sources:  # pytest finds the files of tests/ by their own names
        name = f"tests.{name}"
    parts = name.split(".")
    prefixes = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return [prefix for prefix in prefixes if prefix in sources]


def violations(sources):
    """A line on each import that is wrong. `sources` is the text of each module, by name."""
    lines, graph = [], {}
    for module, source in sources.items():
        folder = module.split(".")[0]
        allowed = ALLOWED.get(module, ALLOWED.get(folder))
        if allowed is None:
            lines.append(f"{module}: nothing says what it may import")
            continue
        graph[module] = set()
        for name, is_at_the_top in imports_of(source):
            modules = modules_behind(name, sources)
            if name.startswith("."):
                lines.append(f"{module} imports {name}: the whole name is missing")
            elif modules:
                if modules[-1].split(".")[0] not in {folder, *allowed}:
                    lines.append(f"{module} imports {modules[-1]}")
                graph[module].add(modules[-1])
                # A package around both runs before either of them, whoever imports whom.
                graph[module] |= {package for package in modules[:-1] if package != folder}
            elif module == "spanrel":
                foreign = SPANREL_AT_THE_TOP if is_at_the_top else SPANREL_ANYWHERE
                if name.split(".")[0] not in {*foreign, *sys.stdlib_module_names}:
                    lines.append(f"{module} imports {name}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        lines.append(f"a cycle: {' > '.join(reversed(error.args[1]))}")
    return lines


def test_imports_point_one_way_and_never_in_a_circle():
    sources = source_files()
    assert {"spanrel", "data", "train", "conftest", "test_spanrel"} <= set(sources)
    assert {"corpora", "corpora.toy", "support.errors", "tools.report", "tests.helpers"} <= set(sources)
    assert violations(sources) == []
    late = f"{sources['spanrel']}\n\ndef late():\n    import tools.report\n"
    assert violations({**sources, "spanrel": late})[0] == "spanrel imports tools.report"


HOUSE = {  # a small one, in order
    "spanrel": "import os\nimport torch\nif os.name:\n    from beartype import beartype",
    "support": "",
    "support.errors": "import torch\nimport requests",
    "support.files": "from support.errors import InputError",
    "corpora": "from corpora import toy",
    "corpora.toy": "from support.files import fetch\nfrom corpora.records import check",
    "corpora.records": "import support.errors",
    "baselines": "",
    "baselines.spert": "from spanrel import SpanRel",
    "data": "from corpora import READERS, toy\nfrom corpora.records import check\nfrom support import errors",
    "train": "import data\nfrom baselines import spert\nimport spanrel",
    "tools": "",
    "tools.report": "import train",
    "tools.exercises": "from tools.report import table\nfrom test_spanrel import same",
    "test_spanrel": "from helpers import run",
    "tests.helpers": "def run():\n    import train",
    "tests.test_data": "from test_spanrel import same\nfrom helpers import run\nfrom tools import report",
}
WRONG = [  # module, a line more in it, what is wrong then
    ("spanrel", "def check():\n    from tools import report", "spanrel imports tools.report"),
    ("spanrel", "from support.errors import InputError", "spanrel imports support.errors"),
    ("spanrel", "import transformers", "spanrel imports transformers"),
    ("spanrel", "from beartype import beartype", "spanrel imports beartype.beartype"),  # at the top
    ("spanrel", "def load():\n    import numpy.linalg", "spanrel imports numpy.linalg"),
    ("support.files", "import data", "support.files imports data"),
    ("support.files", "class A:\n    def b(self):\n        import corpora", "support.files imports corpora"),
    ("corpora.toy", "from data import Sentence", "corpora.toy imports data"),
    ("baselines.spert", "import train", "baselines.spert imports train"),
    ("data", "import spanrel", "data imports spanrel"),
    ("data", "import baselines.spert as spert", "data imports baselines.spert"),
    ("train", "from corpora import toy", "train imports corpora.toy"),
    ("train", "try:\n    import tools.report\nexcept ImportError:\n    pass", "train imports tools.report"),
    ("tools.report", "from test_spanrel import same", "tools.report imports test_spanrel"),
    ("tools.report", "from helpers import run", "tools.report imports tests.helpers"),
    ("tools.exercises", "import test_data", "tools.exercises imports tests.test_data"),
    ("support.files", "from .errors import one_line", "support.files imports .errors.one_line: the whole"),
    ("newcomer", "import os", "newcomer: nothing says what it may import"),
    ("support.errors", "from support import files", "a cycle: "),
    ("support.errors", "def late():\n    import support.files", "a cycle: "),
    ("corpora.records", "from corpora import READERS", "a cycle: "),  # the package's __init__ is on its way
    ("support", "from support import A", "a cycle: support > support"),
    ("tests.helpers", "from test_data import one", "a cycle: "),
]


@pytest.mark.parametrize("module, line, violation", WRONG)
def test_a_wrong_import_is_named(module, line, violation):
    assert violations(HOUSE) == []
    lines = violations({**HOUSE, module: f"{HOUSE.get(module, '')}\n{line}"})
    assert any(text.startswith(violation) for text in lines), lines


@pytest.mark.parametrize("module, line", [("spanrel", "import os"), ("support", "from support import files")])
def test_a_right_import_is_not(module, line):
    assert violations({**HOUSE, module: f"{HOUSE[module]}\n{line}"}) == []


def test_a_cycle_is_printed_in_the_order_of_the_imports():
    letters = {"support.a": "import support.b", "support.b": "import support.c"}
    (line,) = violations({**letters, "support.c": "import support.a"})
    names = line.removeprefix("a cycle: ").replace("support.", "").split(" > ")
    assert "".join(names) in ("abca", "bcab", "cabc")


BARS = {"spanrel.py": 480, "test_spanrel.py": 1000}  # lines
MOST_WORDS = 2500  # of README.md


def test_what_is_read_in_one_sitting_stays_short():
    for name, most_lines in BARS.items():
        lines = (HERE / name).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= most_lines, name
    assert len((HERE / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS
