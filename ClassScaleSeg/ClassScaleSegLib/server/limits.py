"""What a client may ask of the server, and how long things are kept."""

from __future__ import annotations

from dataclasses import dataclass

PART_BYTES = 64 << 20  # of an upload, in one request
JSON_BYTES = 1 << 20  # of the body of any other request
SPARE_BYTES = 256 << 20  # of the disk, which no upload may take
CONNECTIONS = 1000  # at a time
CONNECTIONS_OF_ADDRESS = 200  # of another machine
SECONDS_FOR_REQUEST = 20.0  # in which the head of a request has to arrive
SECONDS_FOR_BYTES = 60.0  # without any of a body, after which it is given up
SECONDS_TO_READ = 120.0  # in which a client has to read something of an answer
STREAMS = 16  # of events, for one job
STREAM_SECONDS = 600.0  # after which the client has to ask for further events
UPLOADS = 64  # of one token, at a time
SENDING = 8  # of these, at the same moment: each takes some megabytes of memory
RESERVED_SECONDS = 900.0  # that the room for an image is kept while nothing of it arrives; clients give up after 600
REMOVED = 1000  # keys of jobs of one token that were removed, and are not taken again
KEPT = 200  # jobs of one token that have ended and are not removed yet
MESSAGES = 500  # of one job that are kept
MESSAGE_CHARACTERS = 2000
FETCHED_SECONDS = 300.0  # that a result is kept after it was sent


@dataclass(frozen=True)
class Limits:
    """What the person who runs the server can choose.

    :ivar upload_bytes: of one image.
    :ivar voxels: of one image.
    :ivar jobs: of one token that wait or run.
    :ivar job_seconds: after which a job is stopped.
    :ivar keep_seconds: after which images and results that nobody has fetched are removed.
    """

    upload_bytes: int = 8 << 30
    voxels: int = 1 << 30
    jobs: int = 20
    job_seconds: float = 2 * 3600.0
    keep_seconds: float = 3600.0
