"""Checkpoints and zips from anyone: nothing in them runs, is written anywhere, or grows beyond what it declares."""

import collections
import io
import itertools
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import logits, small_dataset, small_plans, stock_network, write_checkpoint

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.checkpoint import read_checkpoint  # noqa: E402
from ClassScaleSegLib.models.files import open_source  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.pickle_size import check_pickles, follow  # noqa: E402
from pickle_bombs import bombs  # noqa: E402

# --- checkpoints from anyone


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_does_not_run(write_model, tmp_path):
    folder = write_model()
    marker = tmp_path / "marker"
    file = folder / "fold_0" / "checkpoint_final.pth"
    for call in ((os.mkdir, (str(marker),)), (eval, (f"__import__('os').mkdir({str(marker)!r})",))):
        network = stock_network(small_plans(), small_dataset())
        write_checkpoint(file, network, logging=Evil(call))
        with pytest.raises(
            ModelError, match=r"more than weights and plain values .(posix.mkdir|nt.mkdir|(builtins.)?eval)"
        ):
            open_model(folder)
        plain = io.BytesIO(pickle.dumps({"network_weights": Evil(call)}, protocol=2))
        with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
            read_checkpoint(plain)
        assert not marker.exists()
        torch.load(file, weights_only=False)  # the very file would have run
        assert marker.exists()
        marker.rmdir()


def test_a_torchscript_program_is_refused_before_torch_sees_it():
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), stream)
    with pytest.raises(ModelError, match="TorchScript"):
        read_checkpoint(stream)


def test_a_checkpoint_that_unpacks_to_more_than_its_size_is_refused(write_model):
    file = write_model() / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with open(file, "rb") as stream, pytest.raises(ModelError, match="declares more bytes than it has"):
        read_checkpoint(stream)


def rewrite_pickle(file, old, new):
    """The checkpoint with other names in its pickle, as another NumPy would have written them."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
    return stream


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("context_manager", [True, False])
def test_numpy_numbers_of_either_generation_are_read(write_model, monkeypatch, package, context_manager):
    file = write_model() / "fold_0" / "checkpoint_final.pth"
    mine = b"numpy.core" if int(np.__version__.split(".")[0]) < 2 else b"numpy._core"
    stream = rewrite_pickle(file, mine + b".multiarray", package + b".multiarray")
    assert package + b".multiarray\nscalar" in stream.getvalue()
    if not context_manager:  # torch 2.4
        monkeypatch.delattr(torch.serialization, "safe_globals")
    assert read_checkpoint(stream).configuration == "3d_fullres"
    torch.serialization.clear_safe_globals()


def test_torch_below_2_4_gets_a_sentence_that_says_what_to_do(write_model, monkeypatch):
    for name in ("safe_globals", "add_safe_globals"):
        monkeypatch.delattr(torch.serialization, name)
    with pytest.raises(ModelError, match="update torch to 2.4 or later, or use the model as a bundle"):
        open_model(write_model())


@pytest.mark.parametrize(
    "content, sentence",
    [
        ([1, 2], "has no 'network_weights'"),
        ({"network_weights": {"a": 1}}, "has no 'network_weights'"),
        ({"network_weights": {}, "init_args": {"configuration": "3d_fullres"}}, "conv.weight is missing"),
    ],
)
def test_a_file_that_torch_reads_but_nnunet_did_not_write_is_refused(write_model, content, sentence):
    folder = write_model()
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match=sentence):
        open_model(folder)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t: torch.full_like(t, torch.nan), "values that are not finite"),
        (lambda t: t.to(torch.int32), "not a plain array of floating-point numbers"),
        (lambda t: t.flatten()[:1].expand(t.numel()).view(1, 1, -1)[0, 0].expand(t.shape[0], -1), "has shape"),
        (lambda t: torch.zeros(1, 1, 1, 1, 1).expand(t.shape), "fewer numbers than its shape"),
        (lambda t: t.to_sparse(), "not a plain array"),
    ],
)
def test_weights_that_are_no_weights_are_named(write_model, change, sentence):
    folder = write_model()
    network = stock_network(small_plans(), small_dataset())
    state = network.state_dict()
    name = "encoder.stages.0.0.convs.0.conv.weight"
    for alias in [key for key, value in state.items() if value.data_ptr() == state[name].data_ptr()]:
        state[alias] = change(state[name])
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", state)
    with pytest.raises(ModelError, match=f"encoder.stages.0.0.convs.0.*{sentence}|{sentence}"):
        open_model(folder)


def test_mirroring_of_an_axis_that_is_not_there_is_refused(write_model):
    folder = write_model()
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(small_plans(), small_dataset()), (0, 3))
    with pytest.raises(ModelError, match="mirroring axes"):
        open_model(folder)


NEVER_ENDING = [name for name in bombs() if name not in ("hex of hex",)]  # that one is too long for nothing


@pytest.mark.parametrize("bomb", NEVER_ENDING)
def test_a_pickle_that_never_ends_is_refused_unread(bomb):
    content = pickle.PROTO + b"\x02" + bombs()[bomb] + pickle.STOP
    with pytest.raises(ModelError, match="would take for ever to read: .*. It was not opened"):
        check_pickles(content, 1)


def test_checkpoints_that_never_end_are_refused_in_either_form(tmp_path):
    """In a process of its own: with such a key, torch hangs, or ends the process."""
    files = []
    for bomb, form in zip(NEVER_ENDING, itertools.cycle(("data.pkl", "DATA.PKL", "old"))):
        content = pickle.PROTO + b"\x02" + bombs()[bomb] + pickle.STOP
        files.append(tmp_path / f"{bomb} {form}.pth")
        if form == "old":
            start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
            files[-1].write_bytes(b"".join((*start, content, pickle.dumps([], 2))))
            continue
        with zipfile.ZipFile(files[-1], "w") as archive:
            archive.writestr(f"archive/{form}", content)
            archive.writestr("archive/version", "3\n")
    script = (
        "import sys\n"
        "from ClassScaleSegLib.errors import ModelError\n"
        "from ClassScaleSegLib.models.checkpoint import read_checkpoint\n"
        "for file in sys.argv[1:]:\n"
        "    try: read_checkpoint(open(file, 'rb'))\n"
        "    except ModelError as error: assert 'take for ever' in str(error), (file, error)\n"
        "    else: raise AssertionError(file)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, *files], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-500:]


def test_what_a_checkpoint_may_contain_is_followed_to_its_end():
    shared = (1, 2, (3, "x"))
    content = {
        "network_weights": {f"w{n}": torch.zeros(2, 3, requires_grad=n == 0) for n in range(3)},
        "logging": {"dice": [[0.5, np.float32(0.25)], (shared, shared)], 5: {(1, "a"): None}, "many": {1.5, "b"}},
        "random": [2**70, -(2**70), b"bytes" * 100, True, None, "\u00e9"],
        "empty": [(), [], {}, set()],
        "ordered": collections.OrderedDict(a=collections.OrderedDict(b=[1]), c=collections.OrderedDict()),
    }
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        if zipped:
            with zipfile.ZipFile(stream) as archive:
                [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                whole = archive.read(name)
            assert follow(whole, 0) == len(whole)
        else:
            place = 0
            for _ in range(5):
                place = follow(stream.getvalue(), place)
            assert place is not None and stream.getvalue()[place - 1 : place] == pickle.STOP
    assert follow(pickle.dumps(content["empty"], 2)[:-1], 0) is None
    assert follow(b"\x80\x02(", 0) is None and follow(b"\x80\x02t.", 0) is None and follow(b"\xff.", 0) is None


def test_a_truncated_or_altered_checkpoint_is_an_error_or_harmless(write_model):
    folder = write_model()
    file = folder / "fold_0" / "checkpoint_final.pth"
    whole = file.read_bytes()
    expected = logits(open_model(folder), torch.ones(1, 1, 16, 16, 16))
    for length in (0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="checkpoint_final.pth cannot be read as a checkpoint"):
            open_model(folder)
    random = np.random.default_rng(0)
    for _ in range(120):
        damaged = bytearray(whole)
        # half of the changes in the pickle and the directory, where they hurt most
        start = 0 if random.random() < 0.5 else max(0, len(whole) - 8000)
        for position in random.integers(start, len(whole), random.integers(1, 4)):
            damaged[position] ^= 1 << random.integers(8)
        file.write_bytes(damaged)
        try:
            found = logits(open_model(folder), torch.ones(1, 1, 16, 16, 16))
        except ModelError:
            continue
        assert found.shape == expected.shape


# --- zips from anyone


def zipped(path, members):
    """A zip with these ``(ZipInfo or name, content)`` members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def member(name, mode=None, **more):
    info = zipfile.ZipInfo(name)
    if mode is not None:
        info.create_system, info.external_attr = 3, mode << 16
    for key, value in more.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "name, mode, sentence",
    [
        ("../evil", None, "leads out of the zip"),
        ("a/../../evil", None, "leads out of the zip"),
        ("/etc/evil", None, "an absolute path"),
        ("C:/evil", None, "a drive"),
        ("a\\..\\evil", None, "a backslash|leads out"),
        ("link", stat.S_IFLNK | 0o777, "is a link"),
        ("device", stat.S_IFCHR | 0o600, "a device"),
    ],
)
def test_one_unsafe_member_refuses_the_whole_zip(tmp_path, name, mode, sentence):
    path = zipped(tmp_path / "x.zip", [("m/plans.json", "{}"), (member(name, mode), "target")])
    with pytest.raises(ModelError, match=f"({sentence}).*. The zip was not opened"):
        open_model(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_duplicate_and_encrypted_members_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "x.zip", [("plans.json", "{}"), ("plans.json", "{ }")])
    with pytest.raises(ModelError, match="appears twice"):
        open_model(path)
    content = bytearray(zipped(tmp_path / "y.zip", [("plans.json", "{}")]).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "y.zip").write_bytes(content)
    with pytest.raises(ModelError, match="is encrypted"):
        open_model(tmp_path / "y.zip")


def declare(path, size):
    """Change the uncompressed size in the central directory of a zip with one member."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + 24
    content[start : start + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [10, 1000])
def test_another_number_of_bytes_than_declared_is_refused(tmp_path, compression, size):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("plans.json", '{"a": 1}' + " " * 92)
    declare(path, size)
    with pytest.raises(ModelError, match="a different size than|is damaged|is shorter"):
        open_model(path)


@pytest.mark.parametrize("comment", [b"", b"a comment"])
@pytest.mark.parametrize("of_4_gib", [False, True])
def test_millions_of_members_are_refused_before_they_are_read(tmp_path, comment, of_4_gib):
    # the end of a zip whose list of members would be 33 MiB long; the list itself is missing
    size, none = 33 << 20, b""
    if of_4_gib:
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, size, 0)
        none, size = end64 + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1), 0xFFFFFFFF
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, 0, len(comment)) + comment
    file = tmp_path / "many.zip"
    file.write_bytes(b"PK" * 100_000 + none + end)
    with pytest.raises(ModelError, match=r"many\.zip lists more members than any model has. It was not opened"):
        open_model(file)
    with pytest.raises(ModelError, match="lists more members than any model has"):
        read_checkpoint(io.BytesIO(file.read_bytes()))


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("plans.json", "w") as plans:
        for _ in range(80):
            plans.write(b" " * (1 << 20))
    with pytest.raises(ModelError, match="would unpack to 83886080 bytes"):
        open_model(path)
    monkeypatch.setattr("ClassScaleSegLib.models.files.MAX_TOTAL", 1 << 20)
    with pytest.raises(ModelError, match="larger than any model"):
        open_model(path)
    monkeypatch.setattr("ClassScaleSegLib.models.files.MAX_MEMBERS", 0)
    with pytest.raises(ModelError, match="declares 1 members"):
        open_model(path)


def test_a_damaged_zip_is_always_a_model_error(write_model, tmp_path):
    folder = write_model()
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path, folder.parent.name)
    whole = open(archive, "rb").read()
    random = np.random.default_rng(1)
    damaged = [whole[:length] for length in random.integers(0, len(whole), 20)]
    for _ in range(80):
        content = bytearray(whole)
        start = 0 if random.random() < 0.3 else len(whole) - 1200
        for position in random.integers(start, len(whole), 2):
            content[position] ^= 1 << random.integers(8)
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        (tmp_path / "y.zip").write_bytes(content)
        try:
            open_model(tmp_path / "y.zip")
        except ModelError:
            refused += 1
    assert refused >= 50


def test_a_search_below_a_huge_folder_ends(tmp_path, monkeypatch):
    for index in range(30):
        (tmp_path / str(index)).mkdir()
    monkeypatch.setattr("ClassScaleSegLib.models.files.MAX_FOLDERS", 20)
    with pytest.raises(ModelError, match="more than 20 folders"):
        open_model(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ModelError, match="contains no model"), open_source(tmp_path):
        pass
