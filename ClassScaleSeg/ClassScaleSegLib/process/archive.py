"""Ask a DICOM archive in a child process: ``classscaleseg dicom find``, ``fetch``, ``send`` and ``watch``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .child import ChildProcess
from .job import Event

PASSWORD, TOKEN = "CLASSSCALESEG_DICOM_PASSWORD", "CLASSSCALESEG_DICOM_TOKEN"  # environment variables
_CERTIFICATE = "REQUESTS_CA_BUNDLE"


@dataclass(frozen=True)
class Access:
    """An archive, and who asks it. Neither is checked here: the child does that.

    :ivar address: the root of its DICOMweb service.
    :ivar user: with ``secret`` as the password; empty: ``secret`` is a token, if it is not empty.
    :ivar certificate: file with the certificate of the archive, or of who has signed it; empty: the system trusts it.
    :ivar insecure: the user allows that others could read on the way what is sent.
    """

    address: str
    user: str = ""
    secret: str = field(default="", repr=False)
    certificate: str = ""
    insecure: bool = False


class ArchiveProcess(ChildProcess):
    """A question to an archive, or a transfer, in a child process.

    What others must not see is not on its command line, which all users of a computer can read: the secret is in its
    environment, and what is searched for, such as a name, in a file of the work folder. Images that have arrived when
    it is cancelled are kept, and the next fetch goes on with the others.

    The file also has the series to fetch: a command line of Windows ends after 32,767 letters, so after about 250 of
    them with their studies.

    :ivar results: what the command says of each study (find), each series (fetch) or each file (send), as its option
        ``--json`` prints it. Those that have come are there also if the process has failed or was cancelled. It has
        finished if the command has said something of each, also if some series or files did not pass.
    :param action: "find", "fetch" or "send".
    :param words: further arguments. Paths must be absolute. They can be set until :meth:`start`, so that files to send
        can be in ``work_folder``.
    :param criteria: what is searched for: patient, name, date, modality, description, study. With "fetch", lists:
        series, study.
    :param python: path of an interpreter; by default that of :func:`.child.default_python`.
    :raises OutputError: if the work folder cannot be made.
    :raises ClassScaleError: if psutil is not installed.
    """

    memory = "Close other programs."

    def __init__(
        self,
        action: str,
        access: Access,
        words: Sequence[str] = (),
        criteria: Mapping[str, str | Sequence[str]] | None = None,
        python: str | None = None,
    ) -> None:
        # both, so that no secret of the environment reaches an archive for which it was not meant
        secrets = {PASSWORD: access.secret if access.user else "", TOKEN: "" if access.user else access.secret}
        trusted = {_CERTIFICATE: access.certificate} if access.certificate else {}
        super().__init__(python, {**secrets, **trusted})
        self.results: list[dict[str, Any]] = []
        self._action, self._access, self.words, self._criteria = action, access, tuple(words), criteria

    def __str__(self) -> str:
        return " ".join(("classscaleseg", "dicom", self._action, self._access.address))

    def _command(self) -> list[str]:
        words = ["--to" if self._action == "send" else "--from", self._access.address, *self.words]
        words += ["--user", self._access.user] * bool(self._access.user) + ["--insecure"] * self._access.insecure
        if self._criteria is not None:
            file = self.work_folder / "criteria.json"
            file.write_text(json.dumps(dict(self._criteria)), encoding="utf-8")
            words += ["--criteria", str(file)]
        return ["-m", "ClassScaleSegLib", "dicom", self._action, *words, "--json-progress"]

    def _note(self, event: Event) -> None:
        super()._note(event)
        if event.kind == "result":
            self.results.append(event.facts)

    def _conclude(self, code: int) -> None:
        if self._reported is None and (code == 0 or self.results):  # 1 and 5: some or all did not pass, as they say
            self.state = "finished"
        else:
            super()._conclude(code)


class WatchProcess(ArchiveProcess):
    """An archive that is watched in a child process until it is cancelled, as by Ctrl-C.

    What is unfinished then is done when the same folder is watched again.

    :ivar result: what there was at the last look, as ``classscaleseg dicom watch --json-progress`` prints it.
    """

    def __init__(self, access: Access, words: Sequence[str] = (), python: str | None = None) -> None:
        super().__init__("watch", access, words, python=python)

    def _child_environment(self) -> dict[str, str]:
        # whatever the segmentations have there goes with the work folder, even if all processes are killed
        folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.work_folder))
        return {**super()._child_environment(), **folders}

    def _note(self, event: Event) -> None:
        super()._note(event)
        self.results = []  # weeks of them

    def _conclude(self, code: int) -> None:
        ChildProcess._conclude(self, code)  # it never ends by itself
