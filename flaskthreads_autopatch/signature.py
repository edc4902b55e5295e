"""The signature of a carried message: over the message and the task that it is for.

The key is the app's ``SECRET_KEY``; a message that was signed with one of ``SECRET_KEY_FALLBACKS`` is accepted as well.
The signature is the last key of the message, so that a reader that does not ask for one finds plain JSON.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from flask import Flask
from itsdangerous import Signer

_HEAD, _TAIL = ',"sig":"', '"}'


class NoSecretKey(Exception):
    """The app has no ``SECRET_KEY``."""


def sign(app: Flask, context: tuple[str, ...], text: str) -> str:
    """Return *text*, which is a JSON object, with a signature for the task that *context* names."""
    signature = _signer(app).get_signature(_covered(context, text)).decode()
    return f"{text[:-1]}{_HEAD}{signature}{_TAIL}"


def verified(app: Flask, context: tuple[str, ...], signed: str) -> str | None:
    """Return the text that was signed for the task that *context* names; None if *signed* is not that."""
    # Inside of a JSON string each quote has a backslash in front: no value can hold the separator.
    text, found, signature = signed.rpartition(_HEAD)
    text += "}"
    if not found or not signature.endswith(_TAIL) or not signature.isascii():
        return None
    valid = _signer(app).verify_signature(_covered(context, text), signature.removesuffix(_TAIL))
    return text if valid else None


def _covered(context: tuple[str, ...], text: str) -> bytes:
    # As JSON, because joined strings can be cut at another place: "a" and "bc" as "ab" and "c".
    return json.dumps([*context, text]).encode()


def _signer(app: Flask) -> Signer:
    if not app.secret_key:
        raise NoSecretKey
    # The newest key comes last: it signs.
    keys: list[t.Any] = [*(app.config.get("SECRET_KEY_FALLBACKS") or ()), app.secret_key]
    return Signer(keys, salt="flaskthreads_autopatch.carrier", key_derivation="hmac", digest_method=hashlib.sha256)
