"""Images that clients send, in parts; each is a file named by a random id, never by the client."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import threading
import time
from pathlib import Path

from ..images.suffixes import UPLOAD_SUFFIXES
from .image_header import check_image
from .limits import RESERVED_SECONDS, SENDING, SPARE_BYTES, UPLOADS, Limits
from .problems import Problem, disk_full, unknown, unwritable
from .upload import Upload

log = logging.getLogger("classscaleseg.serve")


class Uploads:
    """All images that are here.

    Its methods are called from many threads. Those that write files may block; the others do not.

    :param folder: for the files; it is empty.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._lock = threading.RLock()
        self._all: dict[str, Upload] = {}

    def begin(self, owner: str, key: str, kind: str, size: int, sha256: str) -> tuple[Upload, bool]:
        """Announce an image.

        :returns: the upload, and whether it is new; it is not if the client has announced it before.
        :raises Problem: if it is too large, of an unknown kind, its key is taken, there is no room, or this token has
            announced too much.
        """
        with self._lock:
            before = next((each for each in self._all.values() if (each.owner, each.key) == (owner, key)), None)
            if before is not None:
                if (before.kind, before.size, before.sha256) != (kind, size, sha256):
                    raise Problem(409, "key_taken", "Another image was announced with this key. Choose a new key.")
                before.used = time.monotonic()
                return before, False
            if kind not in UPLOAD_SUFFIXES:
                kinds = ", ".join(UPLOAD_SUFFIXES)
                raise Problem(415, "kind", f"Images of the kind {kind!a} are not taken. Send {kinds}.")
            if size > self._limits.upload_bytes:
                most = self._limits.upload_bytes / 2**30
                said = f"The image has {size / 2**30:.1f} GiB; this server takes up to {most:.1f} GiB. Crop it first."
                raise Problem(413, "too_large", said)
            if sum(each.owner == owner for each in self._all.values()) >= UPLOADS:
                said = f"{UPLOADS} images of this token are here already. Remove some, or wait until jobs have ended."
                raise Problem(429, "too_many", said)
            self._refuse_without_room(owner, size)
            name = secrets.token_hex(16)
            upload = Upload(name, owner, key, kind, size, sha256, self._folder / f"{name}{kind}")
            self._all[name] = upload
        return upload, True

    def _refuse_without_room(self, owner: str, size: int) -> None:
        """Refuse an image for which there is no room, beside what is awaited of others.

        A token that awaits an image already may reserve half of the room only, so that it never keeps out the others.
        """
        awaited = {True: 0, False: 0}  # bytes, of this owner and of others
        for each in self._all.values():
            awaited[each.owner == owner] += each.size - each.offset
        try:
            room = shutil.disk_usage(self._folder).free - SPARE_BYTES - awaited[False]
        except OSError as error:
            raise unwritable() from error
        if awaited[True] + size > room:
            raise disk_full()
        if awaited[True] and awaited[True] + size > room / 2:
            raise Problem(
                429,
                "too_many",
                "Images of this token that are announced, but not sent, reserve half of the room. Send or remove one.",
            )

    def find(self, owner: str, name: str) -> Upload:
        """Return an upload.

        :raises Problem: if this token has none of this id.
        """
        with self._lock:
            upload = self._all.get(name)
            if upload is None or upload.owner != owner:
                raise unknown("upload")
            return upload

    def claim(self, owner: str, name: str, offset: int) -> Upload:
        """Begin to write a part, which ends with :meth:`release`.

        :param offset: where the client thinks that the part begins.
        :raises Problem: if another request writes it, the part would begin elsewhere, or too many are being sent.
        """
        with self._lock:
            upload = self.find(owner, name)
            if upload.busy:
                raise Problem(409, "upload_busy", "Another request sends this image at this moment. Wait for its end.")
            if upload.complete or upload.offset != offset:
                said = f"{upload.offset} bytes of this image are here, so the next part begins there, not at {offset}."
                raise Problem(409, "offset", said, offset=upload.offset)
            if sum(each.busy and each.owner == owner for each in self._all.values()) >= SENDING:
                raise Problem(429, "too_many", f"{SENDING} images of this token are being sent. Wait for one of them.")
            upload.busy, upload.used = True, time.monotonic()
            return upload

    def write(self, upload: Upload, parts: list[bytes]) -> None:
        """Append bytes to the file of an upload that was claimed. This may block.

        :raises Problem: if there are more bytes than announced, or they cannot be written; the upload is removed. If it
            was removed meanwhile.
        """
        if upload.removed:
            raise unknown("upload")
        count = sum(map(len, parts))
        if upload.offset + count > upload.size:
            self._drop(upload)
            said = f"The image has more than the {upload.size} bytes that were announced, so it was removed."
            raise Problem(413, "too_large", said)
        try:
            if upload.stream is None:
                upload.stream = upload.path.open("r+b" if upload.offset else "xb", buffering=0)
                if upload.stream.seek(0, os.SEEK_END) != upload.offset:
                    raise OSError(errno.EIO, "another program has changed it")
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[upload.stream.write(view) :]
                upload.digest.update(part)
                upload.offset += len(part)
                upload.arrived = time.monotonic()
        except OSError as error:
            self._drop(upload)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise (disk_full() if full else unwritable()) from error

    def release(self, upload: Upload) -> None:
        """End a part. If it was the last one, look at the image. This may block.

        :raises Problem: if another image has arrived than was announced, or none that can be read; it is removed.
        """
        fault = self._fault(upload) if upload.offset == upload.size and not upload.removed else None
        with self._lock:
            upload.busy, upload.used = False, time.monotonic()
            if upload.removed or fault is not None:
                self._forget(upload)
            else:
                upload.complete = upload.offset == upload.size
                self._close(upload)  # those that wait for further parts hold no file open
        if upload.removed:
            self._delete([upload])
        if fault is not None:
            raise fault

    def _fault(self, upload: Upload) -> Problem | None:
        """Return what is wrong with an image that has arrived."""
        if upload.digest.hexdigest() != upload.sha256:
            said = "The image that has arrived is not the one that was announced (its SHA-256 differs). Send it again."
            return Problem(422, "upload_damaged", said)
        try:
            check_image(upload.path, upload.kind, self._limits.voxels)
        except Problem as problem:
            return problem
        except OSError:
            return unwritable()
        return None

    def use(self, owner: str, names: list[str], job: str) -> list[Upload]:
        """Return the uploads that a job needs, which are kept until it has ended.

        :raises Problem: if one is unknown, or has not arrived completely.
        """
        with self._lock:
            found = [self.find(owner, name) for name in names]
            for upload in found:
                if not upload.complete:
                    said = f"Of an image, {upload.offset} of {upload.size} bytes have arrived. Send the rest first."
                    raise Problem(409, "upload_incomplete", said)
            for upload in found:
                upload.jobs.add(job)
            return found

    def leave(self, owner: str, names: tuple[str, ...], job: str, keep: bool) -> None:
        """Note that a job has ended, and remove its images, unless they are to be kept or another job needs them.

        This may block.
        """
        with self._lock:
            gone = []
            for upload in filter(None, map(self._all.get, names)):
                if upload.owner == owner:
                    upload.jobs.discard(job)
                    upload.used = time.monotonic()
                    if not keep and not upload.jobs:
                        gone.append(self._forget(upload))
        self._delete(gone)

    def remove(self, owner: str, name: str) -> None:
        """Remove an image. This may block.

        :raises Problem: if it is unknown, or a job needs it.
        """
        with self._lock:
            upload = self.find(owner, name)
            if upload.jobs:
                said = "A job that waits or runs needs this image. Cancel the job, or wait for its end."
                raise Problem(409, "upload_busy", said)
            self._forget(upload)
        self._delete([upload])

    def remove_old(self) -> None:
        """Remove images that nobody has used for too long, and those of which nothing arrives any more.

        These would keep others from the room on the disk that was reserved for them.
        """
        with self._lock:
            now = time.monotonic()
            unused = [
                each
                for each in self._all.values()
                if not each.jobs
                and not each.busy
                and (
                    now - each.used > self._limits.keep_seconds
                    or (not each.complete and now - each.arrived > RESERVED_SECONDS)
                )
            ]
            gone = [self._forget(upload) for upload in unused]
        self._delete(gone)

    def close(self) -> None:
        """Remove all images."""
        with self._lock:
            gone = [self._forget(upload) for upload in list(self._all.values())]
            for upload in gone:
                upload.busy = False
        self._delete(gone)

    def _drop(self, upload: Upload) -> None:
        """Remove an upload while a part of it arrives."""
        with self._lock:
            upload.busy = False
            self._forget(upload)
        self._delete([upload])

    def _forget(self, upload: Upload) -> Upload:
        upload.removed = True
        self._all.pop(upload.id, None)
        return upload

    def _delete(self, uploads: list[Upload]) -> None:
        """Delete the files of uploads that are forgotten, without the lock: with large ones this takes a while."""
        for upload in uploads:
            if not upload.busy:  # else the request that writes it deletes the file at its end
                self._close(upload)
                try:
                    upload.path.unlink(missing_ok=True)
                except OSError as error:
                    log.warning("an image cannot be removed (%s)", error.strerror or error)

    def _close(self, upload: Upload) -> None:
        if upload.stream is not None:
            upload.stream.close()
            upload.stream = None
