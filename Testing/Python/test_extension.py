"""The Slicer extension around the module: what its build installs, what its package holds, what the catalogue asks for.

CMake runs for real, against the stand-in for a Slicer build tree in ``Testing/Slicer/cmake``.
"""

from __future__ import annotations

import ast
import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.scene.request import Request

REPOSITORY = Path(__file__).resolve().parents[2]
SLICER = REPOSITORY / "Testing" / "Slicer"

import draw_icon  # noqa: E402
import sample_thumbnails  # noqa: E402
from extension_files import extension_metadata, installed_files  # noqa: E402
from package_extension import main as package  # noqa: E402

MODULES = Path("lib", "Slicer-5.12", "qt-scripted-modules")
DESCRIPTION = Path("share", "Slicer-5.12", "ClassScaleSeg.s4ext")
LICENSE = Path("share", "Slicer-5.12", "qt-scripted-modules", "ClassScaleSeg", "LICENSE")
USE_OF_THE_LIBRARY = """
import sys
from ClassScaleSegLib.resources import resource
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.catalog import Catalog
from ClassScaleSegLib.labels import LabelTable
import ClassScaleSegLib
print(ClassScaleSegLib.__file__)
print(len(LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv")).foreground))
print(summarize(resource("Models", "toy-120.zip")).classes)
print(Catalog().find("toy-120").id)
print(sorted({"torch", "nnunetv2", "SimpleITK"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build tree of the extension. No compiler runs: CMake is told to take one on trust."""
    build = tmp_path_factory.mktemp("build")
    forced = [f"-DCMAKE_{lang}_{what}" for lang in ("C", "CXX") for what in ("COMPILER_FORCED=ON", "COMPILER_ID_RUN=1")]
    compilers = [f"-DCMAKE_{lang}_COMPILER={sys.executable}" for lang in ("C", "CXX")]
    generator = "Ninja" if _program("ninja") else "Unix Makefiles"
    slicer = f"-DSlicer_DIR={SLICER / 'cmake'}"
    _cmake("-S", str(REPOSITORY), "-B", str(build), "-G", generator, slicer, *compilers, *forced)
    _cmake("--build", str(build))
    return build


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("installed")
    _cmake("--install", str(build), "--prefix", str(tree))
    return tree


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one top folder of the package, as Slicer extracts it."""
    folder = tmp_path_factory.mktemp("package")
    archive = package(["--revision", "99999", "--os", "linux", "-o", str(folder)])
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder / "extracted")
    (top,) = (folder / "extracted").iterdir()
    assert top.name == archive.stem
    return top


def test_the_build_installs_every_file_of_the_module_the_library_and_their_resources(installed: Path) -> None:
    expected = {(MODULES / path).as_posix() for path in installed_files()}
    expected |= {DESCRIPTION.as_posix(), LICENSE.as_posix()}
    found = _files(installed)
    assert not expected - found, f"not listed in ClassScaleSeg/CMakeLists.txt: {sorted(expected - found)}"
    assert not found - expected, f"installed, but not part of the extension: {sorted(found - expected)}"


def test_installed_files_are_those_of_the_source(installed: Path) -> None:
    different = [
        path
        for path, source in installed_files().items()
        if (installed / MODULES / path).read_bytes() != source.read_bytes()
    ]
    assert different == []


def test_the_build_tree_is_complete_too_since_slicer_runs_tests_from_it(build: Path) -> None:
    assert _files(build / MODULES) == set(installed_files())


def test_slicer_would_run_the_generic_test_and_those_of_module_scene_and_panel(build: Path) -> None:
    listed = _cmake("-E", "chdir", str(build), _program("ctest"), "-N")
    names = re.findall(r"Test\s+#\d+: (\S+)", listed)
    generic = "py_nomainwindow_qSlicerClassScaleSegModuleGenericTest"
    assert names == [generic, "py_ClassScaleSeg", "py_ClassScaleSegSceneTest", "py_ClassScaleSegPanelTest"]


@pytest.mark.parametrize("tree", ["installed", "extracted"])
def test_the_library_works_from_there_in_a_fresh_interpreter(tree: str, request: pytest.FixtureRequest) -> None:
    modules = request.getfixturevalue(tree) / MODULES
    where, labels, classes, entry, heavy = _python(modules, "-c", USE_OF_THE_LIBRARY).stdout.splitlines()
    assert Path(where) == modules / "ClassScaleSegLib" / "__init__.py"
    assert (labels, classes, entry, heavy) == ("117", "121", "toy-120", "[]")


def test_the_trainer_works_from_there_too(extracted: Path) -> None:
    pytest.importorskip("nnunetv2")
    modules = extracted / MODULES
    code = "from ClassScaleSegLib.process.training import trainer_folders; print(trainer_folders())"
    assert _python(modules, "-c", code).stdout.strip() == "[]"
    (folder,) = _python(modules, "-m", "classscale_training.commands", "trainers").stdout.splitlines()
    assert Path(folder) == modules / "classscale_training" / "nnunet_trainers"
    code = (
        "from classscale_training.nnunet.trainers import find_trainer; print(find_trainer('ClassScaleTrainer')); "
        "from classscale_training.nnunet.environment import make_torchvision_importable as make; make(); "
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as search; "
        "print(search('ClassScaleTrainer'))"
    )
    assert _python(modules, "-c", code).stdout.count("'classscale_training.nnunet.trainer.ClassScaleTrainer'") == 2


def test_the_test_for_inside_slicer_passes_with_the_package(extracted: Path) -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    report = _python(extracted / MODULES, "-m", "unittest", "-v", "ClassScaleSegSceneTest", cwd=SLICER).stderr
    assert report.count("... ok") == 2 and report.count("... skipped") == 1


def test_the_package_holds_what_the_build_installs(extracted: Path) -> None:
    expected = {(MODULES / path).as_posix() for path in installed_files()}
    assert _files(extracted) == expected | {DESCRIPTION.as_posix(), LICENSE.as_posix()}
    assert sum(file.stat().st_size for file in extracted.rglob("*")) < 100e6


def test_what_the_build_installs_is_what_the_package_holds_byte_by_byte(installed: Path, extracted: Path) -> None:
    names = [str(path) for path in installed_files()]
    assert filecmp.cmpfiles(installed / MODULES, extracted / MODULES, names, shallow=False) == (names, [], [])


def test_the_description_in_the_package_has_the_fields_slicer_reads(extracted: Path) -> None:
    lines = (extracted / DESCRIPTION).read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(" ", 1) for line in lines)
    metadata = extension_metadata()
    assert fields["depends"] == "PyTorch"
    assert fields["category"] == metadata["category"] == "Segmentation"
    assert fields["description"] == metadata["description"]
    assert fields["homepage"] == metadata["homepage"]
    assert fields["scmurl"] == json.loads((REPOSITORY / "ClassScaleSeg.json").read_text(encoding="utf-8"))["scm_url"]
    assert all(fields.values())


def test_packaging_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = package(["--revision", "99999", "--os", "win", "-o", str(tmp_path / "a")])
    second = package(["--revision", "99999", "--os", "win", "-o", str(tmp_path / "b")])
    assert first.name == second.name and first.name.startswith("99999-win-amd64-ClassScaleSeg-")
    assert first.read_bytes() == second.read_bytes()
    assert [file.name for file in (tmp_path / "a").iterdir()] == [first.name]


def test_the_package_for_macos_lies_in_the_bundle_of_the_application(tmp_path: Path) -> None:
    archive = package(["--revision", "99999", "--slicer-version", "5.10.1", "--os", "macosx", "-o", str(tmp_path)])
    inside = Path(archive.stem, "Slicer.app", "Contents", "Extensions-99999", "ClassScaleSeg")
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
    assert (inside / "share/Slicer-5.10/ClassScaleSeg.s4ext").as_posix() in names
    assert (inside / "lib/Slicer-5.10/qt-scripted-modules/ClassScaleSegLib/__init__.py").as_posix() in names
    assert all(name.startswith(inside.as_posix()) for name in names)


@pytest.mark.parametrize("wrong", [["--slicer-version", "five"], ["--revision", "r1"]])
def test_a_version_or_revision_that_is_none_is_refused(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        package(["--revision", "99999", "-o", str(tmp_path), *wrong])
    assert repr(wrong[1]) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- the entry for Slicer's Extensions Index --------------------------------------------------------------------------
# What follows is true of ExtensionsIndex at commit 07f1d1b (7 August 2026). Its checks are in scripts/
# check_description_files.py, the requests to authors in .github/PULL_REQUEST_TEMPLATE.md. docs/reference/
# extensions-index.md lists both, also what cannot be tested without a network.

# 240 of its 255 entries name this schema. Version 1.0.2 adds dicom_support_rule, which six entries need; we do not.
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
)
# 230 entries have these seven keys and no others; 241 have their keys in the order of the alphabet.
KEYS = ["$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier"]
CATEGORY = "Segmentation"  # on its list of accepted categories; 52 entries
LISTED = {"PyTorch"}  # the extensions among our dependencies that have an entry
LICENCES = ("LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
LIMIT = 100 * 2**20  # bytes of a full clone, with its .git
# Ours. Today's 72 MB leave room below the bar for one more version of the largest model, 5.4 MB in the history.
BAR = 80e6
MODELS = {"head-mr-312.zip", "toy-1000.zip", "toy-120.zip"}  # embedded, and no others: CONTRIBUTING.md says why
LARGE = 2e6  # bytes of a tracked file that is no embedded model


@pytest.fixture(scope="module")
def entry() -> dict[str, Any]:
    return json.loads((REPOSITORY / "ClassScaleSeg.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def checkout() -> Path:
    """The repository, if git knows it with its whole history."""
    if not _program("git"):
        pytest.skip("git is not installed")
    top = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    if top.returncode or not REPOSITORY.samefile(top.stdout.strip()):
        pytest.skip("this is no checkout of the repository")
    return REPOSITORY


def test_the_catalogue_entry_has_the_schema_the_keys_and_the_form_of_todays_entries(entry: dict[str, Any]) -> None:
    content = (REPOSITORY / "ClassScaleSeg.json").read_bytes()
    assert content == (json.dumps(entry, indent=2) + "\n").encode()  # LF, two spaces, one value a line
    assert list(entry) == KEYS == sorted(KEYS)
    assert entry["$schema"] == SCHEMA
    assert all(isinstance(entry[key], str) for key in set(KEYS) - {"build_dependencies", "tier"})
    assert entry["tier"] == 1  # experimental: 3 asks for builds on Windows, macOS and Linux, and people who answer
    assert entry["build_subdirectory"] == "." and entry["scm_revision"] == "main"


def test_the_extension_and_its_repository_have_names_that_the_index_accepts(entry: dict[str, Any]) -> None:
    address = urlsplit(entry["scm_url"])
    assert address.scheme == "https" and address.netloc == "github.com"
    assert address.path.split("/")[-1] == "SlicerClassScaleSeg"  # "Slicer" before the name of the extension only here
    assert entry["scm_url"] == extension_metadata()["homepage"]


def test_category_and_dependencies_exist_in_the_index_and_are_those_of_the_build(entry: dict[str, Any]) -> None:
    assert entry["category"] == extension_metadata()["category"] == CATEGORY
    assert set(entry["build_dependencies"]) <= LISTED
    assert " ".join(entry["build_dependencies"]) == extension_metadata()["depends"]


def test_the_project_has_the_name_of_the_catalogue_entry_and_its_pictures_exist(entry: dict[str, Any]) -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    # the first match counts, even in a comment
    assert re.findall(r"project\s*\(\s*([^\s)]+)", text, re.IGNORECASE) == ["ClassScaleSeg"]
    metadata = extension_metadata()
    for name in ("iconurl", "screenshoturls"):
        assert f'set(EXTENSION_{name.upper()} "{metadata[name]}")' in text  # one string on one line
    raw = metadata["homepage"].replace("//github.com/", "//raw.githubusercontent.com/") + f"/{entry['scm_revision']}/"
    addresses = [metadata["iconurl"], *metadata["screenshoturls"].split()]
    assert len(addresses) >= 2 and all(address.startswith(raw) for address in addresses)
    for address in addresses:
        picture = REPOSITORY / address.removeprefix(raw)
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
        assert picture.stat().st_size < 300e3, picture


def test_the_licence_is_where_the_index_looks_and_the_home_page_names_it() -> None:
    (licence,) = (REPOSITORY / name for name in LICENCES if name in os.listdir(REPOSITORY))
    text = " ".join(licence.read_text(encoding="utf-8").split())
    assert text.startswith("Apache License Version 2.0") and "Grant of Patent License" in text
    assert "[Apache-2.0](LICENSE)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_home_page_has_what_the_index_asks_for() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    flat = " ".join(text.split())
    assert text.startswith("# ClassScaleSeg\n\nClassScaleSeg segments ")  # name, then what it is for
    assert "it has one module, **ClassScaleSeg** (category *Segmentation*): choose a volume" in flat
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures and all((REPOSITORY / picture).is_file() for picture in pictures)
    assert "## Publication and licence" in text and "https://proceedings.mlr.press/" in text
    assert "no patent on the method, but have not searched for one" in flat
    assert "(docs/getting-started/tutorial.md)" in text and "There is no telemetry" in flat


def test_a_full_clone_stays_below_the_bar(checkout: Path, tmp_path: Path) -> None:
    """The Index clones the whole history and adds up all files, those of .git too."""
    if _run(["git", "-C", str(checkout), "rev-parse", "--is-shallow-repository"]).stdout.strip() != "false":
        pytest.skip("the clone is shallow: it lacks the history that is measured")
    clone = tmp_path / "clone"
    _run(["git", "clone", "--quiet", "--no-local", "--single-branch", checkout.as_uri(), str(clone)])
    size = sum(file.stat().st_size for file in clone.rglob("*") if file.is_file())
    assert size < BAR < LIMIT, f"a full clone has {size / 1e6:.1f} MB"


def test_no_large_file_is_tracked_but_the_embedded_models(checkout: Path) -> None:
    names = _run(["git", "-C", str(checkout), "ls-files", "-z"]).stdout.split("\0")
    sizes = {name: (checkout / name).stat().st_size for name in names if (checkout / name).is_file()}
    large = {name for name, size in sizes.items() if size > LARGE}
    assert large <= {f"Resources/Models/{name}" for name in MODELS}


def test_the_embedded_models_are_three_and_released_ones_state_size_and_checksum(entry: dict[str, Any]) -> None:
    assert {file.name for file in (REPOSITORY / "Resources" / "Models").iterdir()} == MODELS
    models = json.loads((REPOSITORY / "Resources" / "Catalog" / "models.json").read_text(encoding="utf-8"))["models"]
    parts = [part for model in models for part in model["parts"]]
    assert {part["file"] for part in parts if part["file"]} == MODELS
    released = [part for part in parts if (part["address"] or "").startswith(entry["scm_url"])]  # none so far
    assert all(part["size"] and part["sha256"] for part in released)


# --- the network ------------------------------------------------------------------------------------------------------
# Questions before a download are tested where they are asked: test_catalog.py, and test_module_model_list.py (panel).

NETWORK = {"aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "urllib.request", "urllib3", "xmlrpc"}
CLUSTER = {"dask", "dask_jobqueue", "distributed"}  # the network of a cluster, which segment --cluster names
SEGMENT_WITHOUT_NETWORK = """
import sys

def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # not a socket file
        far = arguments[1][0] not in ("127.0.0.1", "::1")  # Windows makes pairs of sockets of its own from these
    else:
        far = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
    if far:
        print("network:", event, arguments, flush=True)
        sys.exit(99)

sys.addaudithook(refuse)
from ClassScaleSegLib.commands.main import main
assert main(["models", "list"]) == 0
sys.exit(main(["segment", sys.argv[1], "-m", "toy-120", "-o", sys.argv[2], "--device", "cpu"]))
"""


def test_few_files_of_the_extension_can_reach_the_network_or_a_cluster() -> None:
    users, of_clusters = set(), set()
    for path, file in installed_files().items():
        if path.endswith(".py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                if any(name in NETWORK or name.partition(".")[0] in NETWORK for name in names):
                    users.add(path)
                if any(name.partition(".")[0] in CLUSTER for name in names):
                    of_clusters.add(path)
    own = [
        f"ClassScaleSegLib/cohort/{name}.py"
        for name in ("dispatch", "fitting", "local_workers", "queue_jobs", "workers")
    ]
    assert of_clusters == {*own, "ClassScaleSegLib/commands/case_worker.py", "ClassScaleSegLib/server/on_cluster.py"}
    clients = [
        f"ClassScaleSegLib/{name}.py"
        for name in (
            *("archive/adapter", "archive/asking", "archive/connection"),
            *("catalog/download", "remote/exchange", "remote/faults"),
        )
    ]
    server = [f"ClassScaleSegLib/{name}.py" for name in ("commands/serve", "server/error_answers", "server/serving")]
    assert users == {*clients, *server}


def test_a_segmentation_and_a_look_at_the_catalogue_connect_to_nothing(extracted: Path, tmp_path: Path) -> None:
    sample = extracted / MODULES / "Resources" / "SampleData" / "toy-120.nrrd"
    result = tmp_path / "toy-120.seg.nrrd"
    _python(extracted / MODULES, "-c", SEGMENT_WITHOUT_NETWORK, str(sample), str(result))
    assert result.is_file()


def test_torch_is_left_to_the_extension_that_chooses_its_build() -> None:
    tree = ast.parse((REPOSITORY / "ClassScaleSeg/ClassScaleSegPanel/install/missing.py").read_text(encoding="utf-8"))
    lists = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    packages, kept = (ast.literal_eval(lists[name]) for name in ("PACKAGES", "KEPT"))
    assert not {re.split(r"\W", package)[0] for package in packages} & set(kept) and "torch" in kept


# --- description, recipes and pictures --------------------------------------------------------------------------------


def test_the_description_is_two_sentences_without_the_words_of_the_trade() -> None:
    description = extension_metadata()["description"]
    assert len(re.findall(r"\.(?:\s|$)", description)) == 2
    assert not re.search(r"logit|basis|nnU-Net|tensor|voxel|inference", description)


def test_recipes_of_the_module_use_only_what_the_logic_takes() -> None:
    text = (REPOSITORY / "docs" / "how-to" / "slicer-console.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 17  # the short example, thirteen recipes, two in two parts, and a run that does not block
    calls = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    calls = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "segment"]
    used = {keyword.arg for call in calls for keyword in call.keywords}
    taken = {field.name for kind in (Request, Options) for field in fields(kind)} | {"progress", "memory_limit"}
    assert len(calls) == 8 and len(used) > 5
    assert used <= taken
    listed = re.search(r"Optional arguments: (.*?)\.\n", text, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed[1])) <= taken


def test_every_point_of_the_checklist_that_is_met_names_tests_that_exist() -> None:
    text = (REPOSITORY / "docs" / "reference" / "extensions-index.md").read_text(encoding="utf-8")
    (met,) = re.findall(r"^## Met\n\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    rows = [line.strip("|").split("|") for line in met.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20 and all(len(row) == 3 for row in rows)
    tests = {
        file.name: set(re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
        for file in (REPOSITORY / "Testing" / "Python").glob("test_*.py")
    }
    for point, _, shown in rows:
        named = 0
        for group in shown.split(";"):
            (file,) = re.findall(r"`(test_\w+\.py)`", group) or ["test_extension.py"]
            names = re.findall(r"`(test_\w+)`", group)
            assert set(names) <= tests[file], point
            named += len(names)
        assert named, point


def test_the_tutorial_names_every_sample_with_its_checksum() -> None:
    text = (REPOSITORY / "docs" / "getting-started" / "tutorial.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (ClassScaleSeg\w+) \| `([\w-]+)\.nrrd` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    assert {name: file for name, file, _ in rows} == sample_thumbnails.THUMBNAILS
    for _, file, digest in rows:
        content = (REPOSITORY / "Resources" / "SampleData" / f"{file}.nrrd").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, file


def test_both_icons_are_what_the_script_draws() -> None:
    from matplotlib.image import imread

    first, second = (REPOSITORY / name for name in draw_icon.FILES)
    assert first.read_bytes() == second.read_bytes()
    picture = imread(first)
    assert picture.shape == (128, 128, 4)
    assert np.abs(picture - draw_icon.draw()).max() < 0.01


@pytest.mark.parametrize(("name", "sample"), sample_thumbnails.THUMBNAILS.items())
def test_thumbnails_are_what_the_script_draws(name: str, sample: str) -> None:
    from matplotlib.image import imread

    file = REPOSITORY / sample_thumbnails.FOLDER / f"{name}.png"
    picture = imread(file)
    assert picture.shape == (261, 288, 4) and (picture[..., 3] == 1).all()
    assert np.abs(picture[..., :3] - sample_thumbnails.draw(sample)).max() < 0.01
    assert file.stat().st_size < 80e3


def test_there_is_a_thumbnail_for_each_sample_under_its_name_in_sample_data() -> None:
    tree = ast.parse(
        (REPOSITORY / "ClassScaleSeg/ClassScaleSegPanel/inputs/sample_data.py").read_text(encoding="utf-8")
    )
    (samples,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and re.match(r"SAMPLES\b", ast.unparse(node))
    )
    assert sample_thumbnails.THUMBNAILS == {name: file for file, (name, *_) in samples.items()}


def test_a_thumbnail_shows_the_left_on_the_right_and_the_front_at_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import SimpleITK as sitk

    voxels = np.zeros((3, 20, 30), np.uint8)
    voxels[:, 12:18, 2:8] = 255  # stored from right to left, from back to front: the front of the patient's left side
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    image.SetSpacing((1.0, 3.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "corner.nrrd"))
    monkeypatch.setattr(sample_thumbnails, "SAMPLES", tmp_path)
    bright = sample_thumbnails.draw("corner")[..., 0] > 0.5
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    assert rows.max() < 261 / 2 and columns.min() > 288 / 2
    assert len(rows) / len(columns) == pytest.approx(3, rel=0.1)  # as in mm: 6 voxels of 3 mm by 6 of 1 mm


def _files(tree: Path) -> set[str]:
    return {file.relative_to(tree).as_posix() for file in tree.rglob("*") if file.is_file()}


def _python(modules: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(modules), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["CLASSSCALESEG_MODELS"] = str(modules / "none")  # not the catalogue of whoever runs the tests
    return _run([sys.executable, *arguments], env=environment, cwd=cwd or modules.parent)


def _cmake(*arguments: str) -> str:
    return _run([_program("cmake") or pytest.skip("cmake is not installed"), *arguments]).stdout


def _program(name: str) -> str | None:
    """The program of that name beside this Python, where pip puts it, or on the path."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done
