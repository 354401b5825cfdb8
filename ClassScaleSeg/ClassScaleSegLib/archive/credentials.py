"""Who asks a DICOM archive: what users give for that, and by which names."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ArchiveError


@dataclass(frozen=True)
class Names:
    """How users give their credentials, for sentences and for the command.

    :ivar user: option with the user.
    :ivar password: environment variable with the password.
    :ivar token: environment variable with the token.
    """

    user: str = "--user"
    password: str = "CLASSSCALESEG_DICOM_PASSWORD"
    token: str = "CLASSSCALESEG_DICOM_TOKEN"

    def put_into(self, sentence: str) -> str:
        """Return a sentence with these names in the place of the usual ones. It is translated as a whole.

        >>> Names(token="TOKEN_OF_THE_OTHER").put_into("Correct CLASSSCALESEG_DICOM_TOKEN.")
        'Correct TOKEN_OF_THE_OTHER.'
        """
        for usual, name in (("--user", self.user), (Names.password, self.password), (Names.token, self.token)):
            sentence = sentence.replace(usual, name)
        return sentence


def check_token(token: str, names: Names) -> str:
    """Return a token without the white space around it, such as the end of a line.

    :raises ArchiveError: if it is none. The sentence does not show it.

    >>> check_token("a.b.c\\n", Names())
    'a.b.c'
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        sentence = (
            "The token is empty, or has letters that no token has, such as a space. Correct the environment variable "
            "CLASSSCALESEG_DICOM_TOKEN. It is the token alone, without the word Bearer."
        )
        raise ArchiveError(names.put_into(sentence))
    return token
