"""Hooks of the documentation site: pages from other files, links out of docs/, names of the API.

MkDocs calls the functions that begin with `on_`; tests/test_documents.py calls the others.
"""

import ast
import itertools
import json
import os.path
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).parent.parent
REPOSITORY = "https://quantal.example/quantal/"  # No public home yet, as in pyproject.toml.

# Pages that stand elsewhere in the repository, and are not copied by hand.
SOURCES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "benchmarks/learning.md": "benchmarks/learning/README.md",
    "benchmarks/rivals.md": "benchmarks/learning/rivals/README.md",
    "benchmarks/peers.md": "benchmarks/peers/README.md",
    **{
        f"notebooks/{path.stem}.md": f"notebooks/{path.name}"
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    },
}
_PAGES = {source: page for page, source in SOURCES.items()}

_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def source_of(page):
    """Return the path in the repository of a page of the site."""
    return SOURCES.get(page, f"docs/{page}")


def with_links(markdown, page):
    """Return a page with its links, which are those of its source, as the site needs them.

    A link to another page goes to that page, a link to any other file to the repository.

    Raises:
        ValueError: A link names a file that is not in the repository.
    """
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda match: _link(match[1], page), part) for part in parts[::2]]
    return "".join(parts)


def _link(link, page):
    if re.match(r"[a-z]+:|#|/", link):
        return link
    path, _, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source_of(page)), path))
    if not (ROOT / target).exists():
        raise ValueError(
            f"{source_of(page)} links to {link}. Expected a file of the repository; "
            f"{target} does not exist."
        )
    anchor = f"#{anchor}" if anchor else ""
    if target in _PAGES or target.startswith("docs/"):
        to = _PAGES.get(target) or target.removeprefix("docs/")
        return os.path.relpath(to, posixpath.dirname(page) or ".") + anchor
    return REPOSITORY + target + anchor


def text_of(source):
    """Return a file of the repository as Markdown; a notebook as its cells."""
    text = (ROOT / source).read_text()
    if not source.endswith(".ipynb"):
        return text
    cells = []
    for cell in json.loads(text)["cells"]:
        content = "".join(cell["source"])
        code = cell["cell_type"] == "code"
        cells.append(f"```python\n{content}\n```" if code else content)
    return "\n\n".join(cells) + "\n"


_ENTRY = re.compile(r"^::: (\S+)", re.MULTILINE)
_MEASURED = re.compile(r"^<!-- measured: (\w+) -->$", re.MULTILINE)


def with_tables(markdown):
    """Return a page with the tables that comments stand for.

    `<!-- measured: NAME -->` stands for what benchmarks say of an estimator, and
    `<!-- pages of the API -->` for the names on each page.
    """
    markdown = markdown.replace("<!-- pages of the API -->", _pages_of_the_api())
    return _MEASURED.sub(lambda match: _figures_of(match[1]), markdown)


def _pages_of_the_api():
    rows = ["| page | names |", "|---|---|"]
    for path in sorted((ROOT / "docs" / "api").glob("*.md")):
        text = path.read_text()
        public = [name for name in _ENTRY.findall(text) if "._" not in name]
        names = ", ".join(f"[`{n.removeprefix('quantal.')}`]({path.name}#{n})" for n in public)
        if public:
            rows.append(f"| [{text.splitlines()[0].removeprefix('# ')}]({path.name}) | {names} |")
    return "\n".join(rows)


def _figures_of(estimator):
    """Return the rows of an estimator in the results of benchmarks/learning, as tables."""
    text = (ROOT / "benchmarks" / "learning" / "README.md").read_text()
    tables = []
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *rows = (
            [cell.strip() for cell in row[1:-2].split("|")] for row in _lines(lines)
        )
        if header[:2] not in (["case", "estimator"], ["network", "estimator"]):
            continue
        for above, row in itertools.pairwise(rows):
            row[0] = row[0] or above[0]
        best = {row[0]: f"{row[1]} {row[2]}" for row in reversed(rows)}
        chosen = [
            [*row[:1], *row[2:], *([best[row[0]]] if header[0] == "case" else [])]
            for row in rows
            if row[1] == estimator
        ]
        if chosen:
            titles = [header[0], *header[2:], *(["first there"] if header[0] == "case" else [])]
            written = [titles, ["---"] * len(titles), *chosen]
            tables.append("\n".join("| " + " | ".join(cells) + " |" for cells in written))
    if not tables:
        raise ValueError(
            f"benchmarks/learning/README.md has no row of {estimator!r}. Expected an estimator "
            "of its tables."
        )
    return "\n\n".join(tables)


def _lines(table):
    return [f"{line}\n" for line in table.splitlines()]


def public_names():
    """Return the definition of each public name, by the public name: both are dotted paths."""
    package = ROOT / "src" / "quantal"
    names = {}
    for name, origin in _imported(package / "__init__.pyi").items():
        if not origin.startswith("."):
            names[f"quantal.{name}"] = origin
            continue
        for module in (f"quantal.{name}", f"quantal.{name}.contrib"):
            path = package.parent.joinpath(*module.split("."))
            if (path / "__init__.py").exists():
                exported = _imported(path / "__init__.py")
                names |= {f"{module}.{word}": of for word, of in exported.items() if "." in of}
            elif path.with_suffix(".py").exists():
                names |= {f"{module}.{word}": f"{module}.{word}" for word in _defined(path)}
    return {name: origin for name, origin in names.items() if not origin.startswith(".")}


def _imported(path):
    """Return what a file imports under the same name; a module of the package with a dot first."""
    names = {}
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if alias.asname == alias.name:
                    module = (statement.module or "").removeprefix("quantal.")
                    is_module = alias.name == alias.name.lower() and (
                        statement.module is None or _is_module(module, alias.name)
                    )
                    origin = f".{alias.name}" if is_module else f"quantal.{module}.{alias.name}"
                    names[alias.name] = origin
    return names


def _is_module(module, name):
    path = ROOT.joinpath("src", "quantal", *module.split("."), name)
    return path.is_dir() or path.with_suffix(".py").exists()


def _defined(path):
    public = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(path.with_suffix(".py").read_text()).body
    return [s.name for s in body if isinstance(s, public) and not s.name.startswith("_")]


def documented_names():
    """Return the names that have an entry in the pages of the API."""
    pages = (ROOT / "docs" / "api").glob("*.md")
    return {name for page in pages for name in _ENTRY.findall(page.read_text())}


def missing_names():
    """Return the public names whose definition has no entry in the API, and entries of no name.

    What a public function returns may have an entry under its private path.
    """
    names, documented = public_names(), documented_names()
    covered = {names[name] for name in documented if name in names}
    missing = sorted(name for name, origin in names.items() if origin not in covered)
    return missing, sorted(name for name in documented - set(names) if "._" not in name)


def on_config(config):
    """Stop the build where a public name has no page, or a page names what is not public."""
    from mkdocs.exceptions import PluginError

    missing, unknown = missing_names()
    if missing or unknown:
        raise PluginError(
            f"public names without an entry '::: name' in docs/api: {missing}; "
            f"entries that are no public names: {unknown}"
        )
    return config


def on_files(files, config):
    """Add the pages whose source stands elsewhere."""
    from mkdocs.structure.files import File

    for page, source in SOURCES.items():
        files.append(File.generated(config, page, content=text_of(source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in the figures of a page, and rewrite its links."""
    from mkdocs.exceptions import PluginError

    try:
        return with_links(with_tables(markdown), page.file.src_uri)
    except ValueError as error:
        raise PluginError(str(error)) from error
