"""A wrong command line of a newcomer: one line says what is wrong, another what to type instead."""

from __future__ import annotations

import argparse
import shlex

import pytest
from ClassScaleSegLib.commands.main import ExitCode, _parser, main
from ClassScaleSegLib.version import VERSION

SEGMENT = """For example: classscaleseg segment ct.nii.gz -m toy-120 -o ct.seg.nrrd
classscaleseg models list shows the models."""


def parsers(parser=None):
    """Yield the parser of each command."""
    parser = parser or _parser()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda parser: parser.prog)
def test_the_example_of_each_command_is_complete_and_in_its_help(parser):
    program, *words = shlex.split(parser.example)
    found = _parser().parse_args(words)
    assert program == "classscaleseg" and callable(found.run)
    shown = "".join(parser.format_help().split())  # lines are broken
    assert parser.prog == "classscaleseg" or parser.example.replace(" ", "") in shown


@pytest.mark.parametrize(
    ("given", "wrong", "advice"),
    [
        ("segment image.nii.gz", "the following arguments are required: -o/--output, -m/--model", SEGMENT),
        ("segment image.nii.gz toy-120 -o out", "arguments are required: -m/--model", SEGMENT),
        ("segment a -m toy-120 -o b --gpu", "classscaleseg segment: error: unrecognized arguments: --gpu", SEGMENT),
        ("serve toy-120", "invalid choice: 'toy-120'", "Do you mean classscaleseg serve --models toy-120?"),
        (
            "serve --gpu 0",
            "classscaleseg serve: error: unrecognized arguments: --gpu\n",
            "For example: classscaleseg serve",
        ),
        ("serve --port=1 toy-120", "invalid choice: 'toy-120'", "Do you mean classscaleseg serve --models toy-120?"),
        ("serve tokens anna", "invalid choice: 'tokens'", "Do you mean classscaleseg serve token?"),
        ("compare A", "required: OTHER", "For example: classscaleseg compare reference.seg.nrrd ct.seg.nrrd"),
        ("models toy-120", "'toy-120'", "Do you mean classscaleseg models info toy-120, or classscaleseg models list"),
        ("models list liver", "arguments: liver", "For example: classscaleseg models list --search left kidney"),
        ("servers http://lab", "'http://lab'", "Do you mean classscaleseg servers add NAME http://lab, or classscale"),
        ("servers add lab", "required: URL", "For example: classscaleseg servers add lab https://lab-gpu:8471"),
        ("dicom SEND", "invalid choice: 'SEND'", "Do you mean classscaleseg dicom send?"),
        ("dicom 'a b.dcm'", "'a b.dcm'", "Do you mean classscaleseg dicom send 'a b.dcm' --to URL?"),
        ("cohort out", "invalid choice: 'out'", "Do you mean classscaleseg cohort status out?"),
        ("inspect", "required: MODEL\n", "For example: classscaleseg inspect toy-120 ct.nii.gz"),
        ("image.nii.gz", "'image.nii.gz'", "Do you mean classscaleseg segment image.nii.gz -m MODEL -o OUT?"),
        ("segmnt a", "invalid choice: 'segmnt'", "Do you mean classscaleseg segment?"),
        ("help", "invalid choice: 'help'", "For example: classscaleseg demo"),
        ("", "required: COMMAND", "For example: classscaleseg demo"),
    ],
)
def test_a_wrong_command_line_says_what_to_type(given, wrong, advice, capsys):
    with pytest.raises(SystemExit) as left:
        main(shlex.split(given))
    said = capsys.readouterr().err
    assert left.value.code == ExitCode.USAGE
    assert wrong in said and f"\n{advice}" in said and said.endswith(" --help lists all options.\n")
    assert said.count("\n") <= 4


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert not left.value.code and capsys.readouterr().out == f"ClassScaleSeg {VERSION}\n"
