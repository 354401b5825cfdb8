"""The documents are true: commands parse, files and links exist, Python code compiles, and the recipe runs."""

from __future__ import annotations

import argparse
import ast
import doctest
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib.commands.main import _parser as main_parser

markdown = pytest.importorskip("markdown_it")
ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "training" / "recipes" / "totalsegmentator.md"
FIXED = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *(ROOT / name for name in FIXED),
    *DOCS,
    *sorted((ROOT / "training" / "recipes").glob("*.md")),
    *sorted((ROOT / "Testing" / "Benchmarks").glob("*.md")),
]
CHANGES = ROOT / "CHANGELOG.md"  # may name commands that are gone
CHECKED = [page for page in PAGES if page != CHANGES]
SHELLS = {"", "sh", "bash", "shell", "console"}
PROGRAMS = {"classscaleseg", "classscaleseg-train", "python", "make", "pytest"}
PACKAGES = ("ClassScaleSegLib", "classscale_training", "ClassScaleSegPanel", "ClassScaleSeg")


@dataclass(frozen=True)
class Code:
    """One block or inline span of code.

    :ivar line: where it begins on its page, counted from 1; of an inline span, where its paragraph begins.
    """

    text: str
    language: str
    line: int
    inline: bool


@functools.cache
def tokens(page: Path) -> list:
    return markdown.MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def code(page: Path) -> Iterator[Code]:
    """Yield all code of a page, in order."""
    line = 1
    for token in tokens(page):
        line = token.map[0] + 1 if token.map else line  # cells of a table have no line of their own
        if token.type in ("fence", "code_block"):
            language = token.info.split()[0].lower() if token.info.strip() else ""
            yield Code(token.content, language, line, False)
        for child in token.children or ():
            if child.type == "code_inline":
                yield Code(child.content, "", line, True)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands in a block of shell code as lists of words, without comments, assignments and redirections.

    Brackets around optional words are removed, and ``<a placeholder>`` becomes ``PLACEHOLDER``.
    """
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines():
        line = re.sub(r"<[\w ./-]+>", "PLACEHOLDER", line.strip().removeprefix("$ "))
        line = re.sub(r"\s\d?>+\s*\S+", "", line)
        if not any(name in line for name in PROGRAMS):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        try:
            parts = list(lexer)
        except ValueError:  # prose with an apostrophe, or a string of several lines
            parts = line.split()
        words: list[str] = []
        for word in [*parts, ";"]:
            if word and set(word) <= set("|&;"):
                yield from (words,) if words else ()
                words = []
            elif words or not re.fullmatch(r"\w+=.*|export|time", word):
                words += [stripped] if (stripped := word.strip("[]")) else []


def program(words: list[str]) -> str:
    """The name of the program: ``.venv/bin/python``, ``python3`` and ``$PYTHON`` are all ``python``."""
    name = words[0].rpartition("/")[2]
    return "python" if name in ("python3", "$PYTHON", "${PYTHON}") else name


def documented(kind: str) -> list:
    """Return a test parameter for each command of all pages that begins with ``kind``, named after page and line."""
    found = []
    for page in CHECKED:
        for piece in code(page):
            if piece.language not in SHELLS:
                continue
            for words in commands(piece.text):
                if program(words) == kind:
                    where = f"{page.relative_to(ROOT).as_posix()}:{piece.line}: {' '.join(words)}"
                    found.append(pytest.param(words, piece.inline, id=where))
                if piece.inline:
                    break  # `classscaleseg models list | info` names alternatives
    return found


# --- commands and their arguments -------------------------------------------------------------------------------------


UNITS = {
    page: next(piece.text for piece in code(ROOT / "docs" / "how-to" / page) if piece.language == "ini")
    for page in ("archive.md", "serve.md")
}


@pytest.mark.parametrize("page", UNITS)
def test_the_unit_of_systemd_starts_the_command(page):
    (line,) = re.findall(r"^ExecStart=(.+)$", UNITS[page], re.MULTILINE)
    assert program(shlex.split(line)) == "classscaleseg"
    check_arguments(lenient(main_parser()), shlex.split(line)[1:], inline=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("page", UNITS)
def test_systemd_takes_the_unit(tmp_path, page):
    file = tmp_path / "classscaleseg.service"
    file.write_text(UNITS[page].replace("/opt/classscaleseg/bin/classscaleseg", "/bin/true"))
    answer = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")


def placeholder(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Z][A-Z0-9_]*|\.\.\.|.*\$.*", text))


class _Choices(list):
    def __contains__(self, value: object) -> bool:
        return placeholder(str(value)) or super().__contains__(value)


def lenient(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make the parser raise ``ValueError`` instead of exiting, and accept a placeholder for any value."""

    def error(message: str) -> None:
        raise ValueError(message)

    def kind(original, text: str):
        return text if placeholder(text) else original(text)

    parser.error = error
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                lenient(command)
        else:
            action.type = functools.partial(kind, action.type) if callable(action.type) else action.type
            action.choices = _Choices(action.choices) if action.choices is not None else None
    return parser


def check_arguments(parser: argparse.ArgumentParser, words: list[str], inline: bool) -> None:
    """Parse the arguments.

    :param inline: required arguments may be left out, as in "`classscaleseg pack` makes a bundle".
    :raises ValueError: if the parser refuses the arguments.
    """
    if not words or not {"-h", "--help", "--version"}.isdisjoint(words):
        return
    try:
        lenient(parser).parse_args(words)
    except ValueError as error:
        choice = re.search(r"invalid choice: '([^']*)'", str(error))
        if choice and placeholder(choice[1]):  # a placeholder for the subcommand
            return
        if not inline or "arguments are required" not in str(error):
            raise
        for word in words:
            parsers = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
            if parsers and word in parsers[0]:
                parser = parsers[0][word]
            elif word.startswith("-") and word.partition("=")[0] not in parser._option_string_actions:
                raise ValueError(f"unrecognized arguments: {word}") from error


def module_parser(module: str) -> argparse.ArgumentParser | None:
    """Return the parser of ``python -m MODULE``, or ``None`` if the module has no function that makes it."""
    file = source_file(f"{module}.__main__") or source_file(module)
    assert file and "__main__" in file.stem + file.read_text(encoding="utf-8"), f"python -m {module} cannot run"
    if module == "ClassScaleSegLib":
        return main_parser()
    if module == "classscale_training.loop":
        module = "classscale_training.loop.options"
    found = importlib.import_module(module)
    if hasattr(found, "_parser"):
        return found._parser()
    if not hasattr(found, "add_arguments"):
        return None
    parser = argparse.ArgumentParser()
    found.add_arguments(parser)
    return parser


def check_test_files(words: list[str]) -> None:
    for word in words:
        if ".py" in word and not placeholder(word):
            assert (ROOT / word.partition("::")[0]).exists(), f"there is no test file {word}"


@pytest.mark.parametrize(("words", "inline"), documented("classscaleseg"))
def test_classscaleseg_takes_the_arguments(words, inline):
    check_arguments(main_parser(), words[1:], inline)


@pytest.mark.parametrize(("words", "inline"), documented("classscaleseg-train"))
def test_classscaleseg_train_takes_the_arguments(words, inline):
    pytest.importorskip("nnunetv2")
    check_arguments(module_parser("classscale_training.commands"), words[1:], inline)


@pytest.mark.parametrize(("words", "inline"), documented("python"))
def test_modules_and_scripts_that_python_is_to_run_exist(words, inline):
    rest = words[1:]
    if rest[:2] == ["-m", "pytest"]:
        check_test_files(rest[2:])
    elif rest[:1] == ["-m"] and rest[1].split(".")[0] in PACKAGES:
        parser = module_parser(rest[1])
        if parser is not None:
            check_arguments(parser, rest[2:], inline)
    elif rest and rest[0].endswith(".py") and not placeholder(rest[0]):
        assert (ROOT / rest[0]).is_file(), f"there is no script {rest[0]}"
        source = (ROOT / rest[0]).read_text(encoding="utf-8")
        if "add_argument(" in source and "measure" not in source:  # Testing/Benchmarks/measure.py adds more
            unknown = [
                word for word in rest[1:] if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source
            ]
            assert not unknown, f"{rest[0]} has no option {unknown}"


@pytest.mark.parametrize(("words", "inline"), documented("pytest"))
def test_files_that_pytest_is_to_run_exist(words, inline):
    check_test_files(words[1:])


@pytest.mark.parametrize(("words", "inline"), documented("make"))
def test_targets_of_make_exist(words, inline):
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for word in words[1:] if "=" not in word and not word.startswith("-") and not placeholder(word)}
    assert named <= targets, f"the Makefile has no target {named - targets}"


# --- Python code ------------------------------------------------------------------------------------------------------


def python_blocks() -> list:
    return [
        pytest.param(piece.text, id=f"{page.relative_to(ROOT).as_posix()}:{piece.line}")
        for page in CHECKED
        for piece in code(page)
        if piece.language in ("python", "py", "pycon")
    ]


def source_file(module: str) -> Path | None:
    """Return the file of a module of this project without importing it, because the panel needs Slicer."""
    base = (ROOT / ("training" if module.startswith("classscale_training") else "ClassScaleSeg")).joinpath(
        *module.split(".")
    )
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def has_name(module: str, name: str) -> bool:
    if source_file(f"{module}.{name}"):
        return True
    if module.startswith(("ClassScaleSegPanel", "ClassScaleSegLib.scene")) or module == "ClassScaleSeg":
        tree = ast.parse(source_file(module).read_text(encoding="utf-8"))
        imported = {alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names}
        return name in imported | {node.name for node in tree.body if hasattr(node, "name")}
    return hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("text", python_blocks())
def test_python_code_compiles_and_imports_what_is_there(text):
    if ">>>" in text:
        text = doctest.script_from_examples(text)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    assert source_file(alias.name), f"there is no module {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            assert source_file(node.module), f"there is no module {node.module}"
            missing = [alias.name for alias in node.names if not has_name(node.module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["segment", "inspect", "pack", "models", "servers", "dicom", "serve", "demo"])
def test_the_reference_names_every_option(command):
    page = (ROOT / "docs" / "reference" / "command.md").read_text(encoding="utf-8")
    parser = lenient(main_parser())
    (subcommands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    parsers, options = [subcommands.choices[command]], set()
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            options.update(option for option in action.option_strings if option.startswith("--"))
    assert len(options) > 2
    assert sorted(option for option in options - {"--help"} if f"`{option}" not in page) == []


def links(page: Path) -> Iterator[str]:
    """Yield the targets of links and pictures of a page, except web addresses."""
    found = []
    for token in tokens(page):
        for child in (token, *(token.children or ())):
            if child.type in ("link_open", "image"):
                found.append(child.attrGet("href") or child.attrGet("src"))
            elif child.type in ("html_inline", "html_block"):
                found += re.findall(r'(?:href|src)="([^"]+)"', child.content)
    return (str(target) for target in found if not re.match(r"[a-z]+:", str(target)))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    every = tokens(page)
    for token, heading in zip(every, every[1:], strict=False):
        if token.type == "heading_open":
            text = "".join(child.content for child in heading.children if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 99))) if name not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_of_a_page_exist(page):
    faults = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            faults.append(f"{target}: there is no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            faults.append(f"{target}: there is no such heading")
    assert not faults


@pytest.mark.skipif(not DOCS, reason="there is no folder docs")
def test_every_page_of_docs_is_two_clicks_from_the_readme_at_most():
    reached, edge = {ROOT / "README.md"}, {ROOT / "README.md"}
    for _ in range(2):
        files = {(page.parent / link.partition("#")[0]).resolve() for page in edge for link in links(page)}
        pages = {file / "README.md" if file.is_dir() else file for file in files}
        edge = {page for page in pages if page.suffix == ".md" and page.is_file()} - reached
        reached |= edge
    far = sorted(page.relative_to(ROOT).as_posix() for page in set(DOCS) - reached)
    assert not far, f"not within two clicks of README.md: {far}"


# --- the recipe -------------------------------------------------------------------------------------------------------

SHIM = """
from classscale_training.nnunet.trainer import ClassScaleTrainer

class ClassScaleTrainer_test(ClassScaleTrainer):
    epochs = 1

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
        self.logger.plot_progress_png = lambda folder: None  # takes longer than the epoch
"""
NOT_RUN = {"nnUNetv2_predict_from_modelfolder"}  # another process; test_trainer.py compares it with our engine
VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder for the maker of datasets: a label map with eight blocks, and no CT."""
    nibabel = pytest.importorskip("nibabel")
    labels = np.zeros((48, 40, 24), np.uint8)
    for value, corner in enumerate(np.ndindex(2, 2, 2), 1):
        x, y, z = np.multiply(corner, (24, 20, 12)) + 2
        labels[x : x + 20, y : y + 16, z : z + 8] = value
    folder = tmp_path / "source"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([3.0, 3.0, 3.0, 1.0])), folder / "example_seg.nii.gz")
    return folder


class Shell:
    """Runs lines of the recipe in this process as a POSIX shell would.

    :ivar given: values that replace those of the page, so that the run is short.
    :ivar done: the commands that ran, without their options.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]):
        self.given, self.variables, self.monkeypatch, self.done = given, dict(given), monkeypatch, []

    def run(self, line: str) -> None:
        words = [VARIABLE.sub(self._value, word) for word in shlex.split(line, comments=True)]
        export = words[:1] == ["export"]
        if words and all(re.match(r"\w+=", word) for word in words[export:]):
            for name, _, value in (word.partition("=") for word in words[export:]):
                self.variables[name] = self.given.get(name, value)
                if export:
                    self.monkeypatch.setenv(name, self.variables[name])
        elif words and words[0] not in NOT_RUN:
            self._run(words[0], [self.given.get(word, word) for word in words[1:]])

    def _value(self, match: re.Match) -> str:
        return self.variables.get(match[1]) or os.environ[match[1]]

    def _run(self, name: str, arguments: list[str]) -> None:
        if name == "cp":
            shutil.copy(*arguments)
        elif name == "python":
            module = importlib.import_module(Path(arguments[0]).stem)
            assert (ROOT / arguments[0]).samefile(module.__file__)
            module.main([*arguments[1:], "--cases", "3", "--size", "24"])  # the last ones count
        else:
            modules = {"classscaleseg": "ClassScaleSegLib", "classscaleseg-train": "classscale_training"}
            place = ".commands.main" if name == "classscaleseg" else ".commands"
            assert importlib.import_module(modules[name] + place).main(arguments) == 0, (name, arguments)
        self.done.append(" ".join([name, *arguments[:1]] if name.startswith("classscaleseg") else [name]))


def test_the_recipe_for_totalsegmentator_runs_as_it_stands_on_the_page(source, tmp_path, monkeypatch):
    pytest.importorskip("nnunetv2")
    from tiny_nnunet import use_this_process

    use_this_process(monkeypatch)
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "shim.py").write_text(SHIM)
    for name, value in {"nnUNet_extTrainer": str(tmp_path / "shim"), "nnUNet_compile": "f"}.items():
        monkeypatch.setenv(name, value)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    short = {"TRAINER": "ClassScaleTrainer_test", "DEVICE": "cpu", "WORKERS": "1"}
    shell = Shell(monkeypatch, {**short, "WORK": str(tmp_path), "SOURCE": str(source), "PWD": str(tmp_path)})
    for block in code(RECIPE):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                shell.run(line)
    names = ["convert", "plan", "preprocess", "train", "validate", "export", "evaluate"]
    ran = [command.split()[-1] for command in shell.done if command.startswith("classscaleseg-train")]
    assert list(dict.fromkeys(ran)) == names and "classscaleseg segment" in shell.done
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["cases"] == 1 and summary["classes_in_references"] == 8 and 0 <= summary["dice"] <= 1
    results = [*(tmp_path / "evaluation").iterdir(), *(tmp_path / "stock" / "fold_0").iterdir()]
    expected = {"per_class.csv", "per_case.csv", "summary.json", "dice.png", "checkpoint_final.pth"}
    assert {file.name for file in results} == expected
    model = tmp_path / "results" / "Dataset117_TotalSegmentator" / "ClassScaleTrainer_test__ClassScalePlans__3d_fullres"
    assert (model / "fold_0" / "validation" / "summary.json").is_file()
