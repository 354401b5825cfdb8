"""What a client shows and trusts: the token of a server, and a certificate that the system does not know."""

from __future__ import annotations

import os
import ssl

from ..errors import ServerError

TOKEN = "CLASSSCALESEG_TOKEN"  # environment variable with the token
TOKEN_HINT = (
    "Put it into the environment variable CLASSSCALESEG_TOKEN, or name a file that holds it (--server-token-file)."
)


def check_token(token: str) -> str:
    """Return a token without white space around it.

    :raises ServerError: if it cannot be sent. The sentence does not show it.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > 1000:
        raise ServerError(
            "The token of the server is not one: it must be a single word of ASCII letters. Copy it again from the "
            "person who runs the server."
        )
    return token


def check_certificate(file: str | os.PathLike[str], address: str) -> None:
    """Refuse a file without a certificate, with which a connection would only say that the server is not trusted.

    :raises ServerError: if it is none, or does not exist.
    """
    if not os.path.isfile(file):
        raise ServerError(f"{file} does not exist. Name the file with the certificate of {address}.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ServerError(
            f"{file} is not a certificate in PEM ({error}). Ask the person who runs {address} for its file."
        ) from error
