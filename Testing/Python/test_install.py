"""What is missing is installed from the network or a folder of wheels, and each failure names the next step."""

import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest
from ClassScaleSegLib import ClassScaleError
from slicer_application import slicer  # before the panel, which imports the modules that it imitates

from ClassScaleSegPanel.install import dialog, failures, missing, packages, wheels  # isort: skip


def write_wheel(folder, name, version="1.0", needs=(), tags="py3-none-any"):
    """Write a wheel of one empty module that pip can install."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    lines = [f"Requires-Dist: {one}" for one in needs]
    metadata = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""])
    files = {
        f"{module}.py": "",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tags}\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    file = folder / f"{module}-{version}-{tags}.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for entry, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(entry, text)
    return file


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Slicer's ``pip_install``, which here installs into a folder of the test; what it was given."""
    given, target = [], tmp_path / "site"
    target.mkdir()

    def pip_install(arguments):
        given.append(arguments)
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--target", str(target)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        print(done.stdout, done.stderr)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command)

    monkeypatch.setattr(slicer.util, "pip_install", pip_install, raising=False)
    monkeypatch.syspath_prepend(str(target))
    monkeypatch.setattr(missing, "PACKAGES", [*missing.PACKAGES, "cssfirst>=1"])
    monkeypatch.setattr(dialog, "show", lambda text, button: pytest.fail("a question"))
    return given


def test_a_package_whose_name_has_a_hyphen_is_found():
    assert missing.is_installed("typing-extensions>=3") and not missing.is_installed("typing-extensions>=999")
    assert not missing.is_installed("no-such-package")


def test_packages_are_installed_from_a_folder_with_all_that_they_need(pip, tmp_path):
    folder = tmp_path / "wheels with a space"
    folder.mkdir()
    needs = ["csssecond<3", "numpy<0.1", 'css-none; python_version < "3"', 'css-extra; extra == "all"']
    write_wheel(folder, "cssfirst", "1.1", needs)
    write_wheel(folder, "cssfirst", "0.9")
    for version in ("1.0", "2.0", "3.0"):
        write_wheel(folder, "csssecond", version, ["cssfirst"])  # in a circle
    packages.ensure_dependencies(wheels=str(folder))
    assert missing.missing_packages() == []
    (arguments,) = pip
    assert arguments[:2] == ["--no-index", "--no-deps"]  # so that Slicer's numpy is not replaced
    assert [file.rpartition("/")[2].rpartition("\\")[2] for file in arguments[2:]] == [
        "csssecond-2.0-py3-none-any.whl",
        "cssfirst-1.1-py3-none-any.whl",
    ]
    packages.ensure_dependencies(wheels=folder)
    assert len(pip) == 1  # nothing is missing any more


def test_what_the_folder_lacks_is_named_before_anything_is_installed(pip, tmp_path):
    write_wheel(tmp_path, "cssfirst", "1.1", ["csssecond>=2", "css-third"])
    write_wheel(tmp_path, "csssecond", "1.0")
    write_wheel(tmp_path, "css-third", tags="cp27-cp27m-win32")
    (tmp_path / "css_third-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(ClassScaleError) as caught:
        packages.ensure_dependencies(wheels=tmp_path)
    sentence = str(caught.value)
    assert "csssecond>=2, css-third. Nothing was installed." in sentence and pip == []
    assert 'pip wheel -w FOLDER "cssfirst>=1"' in sentence and "Source archives, as of css-third" in sentence
    (tmp_path / "cssfirst-1.1-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(ClassScaleError, match=r"cssfirst-1.1-py3-none-any.whl is damaged .*Copy this wheel"):
        packages.ensure_dependencies(wheels=tmp_path)
    write_wheel(tmp_path, "cssfirst", "1.1", ['x; os_name >= "a b" and sys_platform ~= "linux"'])
    (tmp_path / "cssfirst-one-py3-none-any.whl").touch()  # its name has no version
    with pytest.raises(ClassScaleError, match=r"cssfirst-1.1-py3-none-any.whl is damaged \(Undefined"):
        packages.ensure_dependencies(wheels=tmp_path)
    with pytest.raises(ClassScaleError, match="no-folder cannot be read .*Choose a folder with wheels"):
        packages.ensure_dependencies(wheels=tmp_path / "no-folder")


def test_an_installation_that_was_ended_halfway_is_seen_and_completed(pip, tmp_path):
    first = write_wheel(tmp_path, "cssfirst", "1.1", ["csssecond"])
    slicer.util.pip_install(["--no-index", "--no-deps", str(first)])
    assert missing.missing_packages() == ["csssecond"]
    write_wheel(tmp_path, "csssecond")
    packages.ensure_dependencies(wheels=tmp_path)
    assert missing.missing_packages() == []


def test_after_a_failure_the_same_question_says_why_and_what_to_do(pip, tmp_path, monkeypatch):
    asked, pressed = [], iter(["network", "network", "folder"])
    monkeypatch.setattr(dialog, "show", lambda text, button: asked.append((text, button)) or next(pressed))
    dialogs = SimpleNamespace(getExistingDirectory=lambda *more: str(tmp_path))
    monkeypatch.setattr(dialog.qt, "QFileDialog", dialogs)
    said = iter(["ProxyError: 407 Proxy Authentication Required", "[Errno 28] No space left on device"])

    def fails(arguments):
        print(next(said))
        raise subprocess.CalledProcessError(1, "pip")

    write_wheel(tmp_path, "cssfirst", "1.1")
    works = slicer.util.pip_install
    monkeypatch.setattr(
        slicer.util, "pip_install", lambda given: (works if "--no-index" in given else fails)(given), raising=False
    )
    packages.ensure_dependencies()
    assert [button for _text, button in asked] == ["Install", "Try again", "Try again"]
    assert asked[0][0].startswith("This module needs") and "cssfirst>=1" in asked[0][0]
    assert "set the environment variable HTTPS_PROXY" in asked[1][0] and "The disk is full" in asked[2][0]


def test_giving_up_after_a_failure_tells_the_failure(pip, monkeypatch):
    pressed = iter(["network", ""])
    monkeypatch.setattr(dialog, "show", lambda text, button: next(pressed))
    monkeypatch.setattr(packages, "refuse_full_disk", lambda missing: None)

    def fails(arguments):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(slicer.util, "pip_install", fails, raising=False)
    with pytest.raises(ClassScaleError, match="There is no network: connect this computer"):
        packages.ensure_dependencies()


def test_a_full_disk_is_told_before_the_download(monkeypatch):
    monkeypatch.setattr(packages.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**8))
    with pytest.raises(ClassScaleError, match="has 0.1 GB free, and the packages need about 1.2 GB. Make room"):
        packages.refuse_full_disk(["torch>=2.2", "nnunetv2>=2.7"])


@pytest.mark.parametrize(
    "said, step",
    [
        (
            "NewConnectionError: Failed to establish a new connection\nNo matching distribution found for x",
            "no network",
        ),
        ("[Errno 11001] getaddrinfo failed", "no network"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Tunnel connection failed: 407 Proxy Authentication Required", "HTTPS_PROXY"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("ERROR: No matching distribution found for nnunetv2", "no build for this Python"),
        ("x.whl is not a supported wheel on this platform.", "no build for this Python"),
        ("OSError: [Errno 30] Read-only file system: '/opt/Slicer'", "folder of Slicer cannot be written"),
        ("[WinError 5] Access is denied: 'C:\\\\Program Files", "folder of Slicer cannot be written"),
        ("segmentation fault", ""),
    ],
)
def test_each_failure_has_its_next_step(said, step):
    found = failures.next_step(said)
    assert step in found and bool(step) == bool(found)


def test_the_question_says_what_is_missing_and_what_it_takes():
    text = dialog.question(["torch>=2.2", *missing.PACKAGES])
    assert "- nnunetv2>=2.7\n" in text and "370 to 3170 MB" in text and "min" in text
    assert "the extension PyTorch, which is missing too" in text and "Save your scene" in text
    assert "torch" not in dialog.question(["psutil"])


def test_nothing_is_missing_here():
    assert wheels.unmet(missing.PACKAGES, missing.NOT_NEEDED) == []
