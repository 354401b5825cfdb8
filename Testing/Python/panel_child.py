"""Stand-in for the child process of a run, which takes milliseconds instead of seconds: see ``panel_user.py``.

    python -I -S panel_child.py HOW COMMAND...

COMMAND is that of the real child: it names the job, and the work folder last. Results have the grid of the image; how
the child behaves is one of ``HOWS``. It uses the standard library only, so that it starts at once.
"""

import json
import os
import signal
import sys
import time

HOWS = ("finish", "slow", "empty", "renamed", "damaged", "missing", "error", "crash", "silent", "noisy", "hang", "deaf")
STRUCTURES = 7  # of which the last has no voxels
ORDINARY = ("finish", "slow", "empty", "renamed", "noisy")  # these write a result


def say(event, **facts):
    print(json.dumps({"event": event, "case": "image", **facts}), flush=True)


def grid_of(path):
    """Return the lines of an NRRD header that describe its grid, and its sizes along x, y, z."""
    with open(path, "rb") as file:
        lines = file.read(8192).split(b"\n\n")[0].decode("latin-1").splitlines()
    kept = [line for line in lines if line.startswith(("space", "sizes", "kinds", "dimension"))]
    sizes = next(line for line in kept if line.startswith("sizes:")).split()[1:]
    return kept, tuple(map(int, sizes))


def write_nrrd(path, kind, grid, more, voxels):
    lines = ["NRRD0004", f"type: {kind}", *grid, "endian: little", "encoding: raw", *more]
    with open(path, "wb") as file:
        file.write("\n".join(lines).encode() + b"\n\n" + voxels)


def segments(name):
    for index in range(STRUCTURES):
        for key, text in (
            ("ID", f"Segment_{index + 1}"),
            ("Name", f"{name} {index + 1}"),
            ("Color", f"{(index + 1) / STRUCTURES:.3g} 0.5 0.25"),
            ("Extent", "0 0 0 0 0 0"),
            ("Layer", "0"),
            ("LabelValue", str(index + 1)),
        ):
            yield f"Segment{index}_{key}:={text}"


def write_result(how, image, output, confidence):
    grid, (x, y, z) = grid_of(image)
    rows = (0 if how == "empty" else row % (STRUCTURES * y) // y for row in range(y * z))
    labels = b"".join(bytes([value]) * x for value in rows)
    if how == "damaged":
        labels = labels[: len(labels) // 2]
    write_nrrd(output, "uint8", grid, segments("other" if how == "renamed" else "cell"), labels)
    if confidence:
        write_nrrd(confidence, "float", grid, (), bytes(4 * x * y * z))


def segment(how, job):
    first, output = job["images"][0], job["output"]
    if not os.path.isdir(first):
        return write_result(how, first, output, job["confidence"])
    for name in sorted(os.listdir(first)):
        frame = name.split("_")[0]
        write_result(how, os.path.join(first, name), os.path.join(output, f"{frame}.seg.nrrd"), None)


def report(how, job):
    """Write a page, and return what the result says of it."""
    if not job["report"]:
        return {}
    if how == "noisy":
        return {"report_fault": "The disk is full."}
    os.makedirs(job["report"], exist_ok=True)
    page = os.path.join(job["report"], "index.html")
    with open(page, "w", encoding="utf-8") as file:
        file.write('<meta name="generator" content="ClassScaleSeg 0">' + ascii(job["reported"]["name"]))
    return {"report": page}


def hang(folder, deaf):
    end = time.monotonic() + 30
    while time.monotonic() < end and (deaf or not os.path.exists(os.path.join(folder, "cancel"))):
        time.sleep(0.01)


def main(how, command):
    with open(command[command.index("--job") + 1], encoding="utf-8") as file:
        job = json.load(file)
    say("progress", stage="load", done=0, total=1, remaining=None, part=1, parts=1)
    if how == "crash":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    if how == "silent":
        return 0
    if how == "error":
        say("error", message="The model cannot segment this image. Select another one.")
        return 3
    if how == "noisy":
        print("{not JSON", "[1, 2]", '{"event": "unknown"}', "\x1b[31m<b>é</b>", sep="\n", flush=True)
        print("UserWarning: something\n" * 50, file=sys.stderr, flush=True)
    if how in ("hang", "deaf"):
        hang(command[-1], how == "deaf")
        return 4
    say("begin", index=1, count=1)
    for done in range(4):
        say("progress", stage="segment", done=done, total=4, remaining=100.0 - done, part=1, parts=1)
        time.sleep(0.03 if how == "slow" else 0)
    if how != "missing":
        segment(how, job)
    say("result", output=job["output"], structures=STRUCTURES - 1, seconds=0.1, **report(how, job))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
