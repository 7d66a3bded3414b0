"""Figures of the source of a checkout: folders, imports, lengths, parameters.

    python tools/experiments/code_figures.py           # of this checkout
    python tools/experiments/code_figures.py ROOT      # of another

The source is only parsed, never imported. How things are counted:

- The body of a function is from its first statement after the docstring to its last
  line; blank lines and comments in it count, functions within it too, and these are
  counted by themselves as well.
- A class is from its `class` line to its last line without its docstring (those of its
  methods count); attributes are the names that its methods or its body assign.
- Parameters are all of the signature without `self` and `cls`; `*args` and `**kwargs`
  count as one each.
- A function is public if neither its name, its class's nor its module's begins with an
  underscore; it is annotated if all parameters and the result have annotations (the
  result of `__init__` needs none).
- Levels of imports: modules in the longest chain of imports within the package, with
  and without those inside functions. Modules that import each other in a ring are one
  level. What stands under `if TYPE_CHECKING` does not count.
"""

import argparse
import ast
from collections import Counter
from pathlib import Path
import statistics
from typing import NamedTuple

PACKAGE = "dipy_dl_reg"
#: What is listed: lines of a file, lines of a function's body, methods of a class.
LONG_FILE, LONG_FUNCTION, MANY_METHODS = 400, 60, 12
#: Bodies above this are counted.
BODY, PARAMETERS = 22, 8
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Function(NamedTuple):
    """What is counted of a function."""

    place: str
    lines: int
    parameters: int
    public: bool
    annotated: bool


class Class(NamedTuple):
    """What is counted of a class."""

    place: str
    lines: int
    methods: int
    attributes: int


def statements(node):
    """The statements of a body without its docstring."""
    has_docstring = ast.get_docstring(node, clean=False) is not None
    return node.body[1:] if has_docstring else node.body


def body_lines(function):
    """Lines of a function's body; 0 if it is only a docstring."""
    body = statements(function)
    first = min((first_line(node) for node in body), default=0)
    return function.end_lineno - first + 1 if body else 0


def first_line(node):
    """Line of a statement, or of its first decorator."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def class_lines(node):
    """Lines of a class without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


def list_parameters(function, method):
    """The parameters of a function, without `self` and `cls`."""
    given = function.args
    named = given.posonlyargs + given.args
    static = any(
        getattr(d, "id", "") == "staticmethod" for d in function.decorator_list
    )
    named = named[1:] if method and not static else named
    extra = [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    return named + given.kwonlyargs + extra


def list_attributes(node):
    """Names that a class's body or its methods assign."""
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            if getattr(inner.value, "id", None) == "self":
                names.add(inner.attr)
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        else:
            targets = [statement.target] if isinstance(statement, ast.AnnAssign) else []
        for target in targets:
            names.update(n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    return names


def read_function(node, place, public, method):
    parameters = list_parameters(node, method)
    result = node.returns is not None or node.name == "__init__"
    return Function(
        f"{place}{node.name}",
        body_lines(node),
        len(parameters),
        public and not (node.name.startswith("_") and node.name != "__init__"),
        result and all(p.annotation is not None for p in parameters),
    )


def read_class(node, place):
    methods = [inner for inner in node.body if isinstance(inner, FUNCTIONS)]
    attributes = len(list_attributes(node))
    return Class(f"{place}{node.name}", class_lines(node), len(methods), attributes)


def read_tree(node, place, public=True):
    """All functions and classes below a node of the tree, also nested ones."""
    functions, classes = [], []
    for inner in ast.iter_child_nodes(node):
        inside, shown = place, public
        if isinstance(inner, FUNCTIONS):
            method = isinstance(node, ast.ClassDef)
            functions.append(read_function(inner, place, public, method))
            inside, shown = f"{place}{inner.name}.", False
        elif isinstance(inner, ast.ClassDef):
            classes.append(read_class(inner, place))
            inside = f"{place}{inner.name}."
            shown = public and not inner.name.startswith("_")
        below = read_tree(inner, inside, shown)
        functions += below[0]
        classes += below[1]
    return functions, classes


def source_files(root, folder):
    """The Python files of a part of the checkout, sorted."""
    return sorted(
        path
        for path in (root / folder).rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def read_files(root, folder):
    """Lines of all files, all functions and all classes of a part."""
    lengths, functions, classes = {}, [], []
    for path in source_files(root, folder):
        text, name = path.read_text(), path.relative_to(root).as_posix()
        lengths[name] = len(text.splitlines())
        hidden = any(
            part.startswith("_") and part != "__init__.py" for part in name.split("/")
        )
        found = read_tree(ast.parse(text), f"{name}: ", not hidden)
        functions += found[0]
        classes += found[1]
    return lengths, functions, classes


def checks_types(node):
    """Whether a statement is ``if TYPE_CHECKING``."""
    name = getattr(node.test, "attr", getattr(node.test, "id", ""))
    return name == "TYPE_CHECKING"


def import_statements(tree, in_functions):
    """Imports of a module, not those under ``if TYPE_CHECKING``."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        if isinstance(node, ast.If) and checks_types(node):
            waiting += node.orelse
        elif in_functions or not isinstance(node, FUNCTIONS):
            waiting += ast.iter_child_nodes(node)


def imported_names(statement, module, is_package, modules):
    """Dotted names that a statement imports: modules where they are modules."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    parts = module.split(".")
    parts = parts[: len(parts) - statement.level + is_package]
    base = ".".join(parts if statement.level else [])
    base = ".".join(filter(None, [base, statement.module]))
    names = [f"{base}.{alias.name}" for alias in statement.names]
    return [name if name in modules else base for name in names]


def import_graph(root, in_functions=True):
    """For each module of the package, those that it imports."""
    paths = {}
    for path in source_files(root, PACKAGE):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        paths[".".join(parts[:-1] if is_package else parts)] = path, is_package
    graph = {}
    for module, (path, is_package) in paths.items():
        graph[module] = set()
        for statement in import_statements(ast.parse(path.read_text()), in_functions):
            names = imported_names(statement, module, is_package, paths)
            graph[module].update(n for n in names if n in paths and n != module)
    return graph


def find_imported(graph, start):
    """All modules that one imports, directly or not."""
    found, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def longest_chain(graph):
    """The longest chain of imports; of modules in a ring only the first by name."""
    below = {name: find_imported(graph, name) for name in graph}
    rings = {
        name: min({other for other in below[name] if name in below[other]} | {name})
        for name in graph
    }
    chains = {}

    def chain_from(name):
        if name not in chains:
            ring = [member for member in graph if rings[member] == name]
            lower = {rings[other] for member in ring for other in graph[member]}
            after = [chain_from(other) for other in sorted(lower - {name})]
            chains[name] = [name, *max(after, key=len, default=[])]
        return chains[name]

    return max((chain_from(name) for name in sorted(set(rings.values()))), key=len)


def percentile_90(values):
    """The value that 90 % do not exceed."""
    return sorted(values)[max(0, -(-9 * len(values) // 10) - 1)]


def package_figures(root):
    """Lines of text about the package."""
    lengths, functions, classes = read_files(root, PACKAGE)
    yield from layout_figures(lengths)
    for title, in_functions in (("", True), (" outside functions", False)):
        chain = longest_chain(import_graph(root, in_functions))
        yield f"levels of imports{title}: {len(chain)}"
        yield "  " + " > ".join(n.removeprefix(f"{PACKAGE}.") for n in chain)
    yield "longest files:"
    for name, lines in Counter(lengths).most_common(5):
        yield f"  {lines:5}  {name}"
    for title, key in (("lines", 1), ("methods", 2), ("attributes", 3)):
        worst = max(classes, key=lambda c, key=key: c[key])
        yield f"class with most {title}: {worst[key]}  {worst.place}"
    yield from function_figures(functions)


def layout_figures(lengths):
    """Lines of text about folders and modules."""
    modules = [name for name in lengths if not name.endswith("__init__.py")]
    folders = Counter(name.rpartition("/")[0] for name in lengths)
    own = Counter(name.rpartition("/")[0] for name in modules)
    yield f"folders: {len(folders)}; modules: {len(modules)}; lines: " + str(
        sum(lengths.values())
    )
    yield "modules per folder (__init__.py not counted):"
    for name in sorted(folders):
        yield f"  {own[name]:5}  {name}"


def function_figures(functions):
    """Lines of text about the lengths and signatures of functions."""
    lines = [f.lines for f in functions]
    counts = [f.parameters for f in functions]
    longest = max(functions, key=lambda f: f.lines)
    widest = max(functions, key=lambda f: f.parameters)
    public = [f for f in functions if f.public]
    typed = sum(f.annotated for f in public)
    yield f"functions: {len(functions)}, public {len(public)}"
    yield f"function bodies of more than {BODY} lines: {sum(n > BODY for n in lines)}"
    yield (
        f"lines of a body: median {statistics.median(lines):g}, "
        f"90th percentile {percentile_90(lines)}"
    )
    yield f"longest body: {longest.lines}  {longest.place}"
    yield (
        f"parameters: median {statistics.median(counts):g}, "
        f"90th percentile {percentile_90(counts)}"
    )
    yield f"most parameters: {widest.parameters}  {widest.place}"
    over = sum(n > PARAMETERS for n in counts)
    yield f"functions of more than {PARAMETERS} parameters: {over}"
    yield (
        f"public functions with all annotations: {typed} of {len(public)} "
        f"({100 * typed / max(len(public), 1):.0f} %)"
    )


def list_exceptions(root):
    """Lines of text about all that is too long, in package, tests and tools."""
    parts = [read_files(root, folder) for folder in (PACKAGE, "tests", "tools")]
    files = [(n, name) for lengths, _, _ in parts for name, n in lengths.items()]
    bodies = [(f.lines, f.place) for _, functions, _ in parts for f in functions]
    methods = [(c.methods, c.place) for _, _, classes in parts for c in classes]
    for title, limit, found in (
        ("files of more than {} lines", LONG_FILE, files),
        ("functions of more than {} lines of body", LONG_FUNCTION, bodies),
        ("classes of more than {} methods", MANY_METHODS, methods),
    ):
        listed = sorted((pair for pair in found if pair[0] > limit), reverse=True)
        yield f"{title.format(limit)}: {len(listed)}"
        yield from (f"  {number:5}  {name}" for number, name in listed)


def main(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = Path(__file__).resolve().parents[2]
    parser.add_argument("root", type=Path, nargs="?", default=own)
    root = parser.parse_args(words).root
    if not (root / PACKAGE).is_dir():
        parser.error(f"root: there is no folder {root / PACKAGE}")
    print(*package_figures(root), *list_exceptions(root), sep="\n")


if __name__ == "__main__":
    main()
