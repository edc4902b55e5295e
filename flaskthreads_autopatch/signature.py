"""The signature of a carried message: over the message and the task that it is for.

The key is the app's ``SECRET_KEY``; a message that was signed with one of ``SECRET_KEY_FALLBACKS`` is accepted as well.
The signature is the last key of the message, so that a reader that does not ask for one finds plain JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import typing as t
import weakref

from flask import Flask
from itsdangerous import Signer
from itsdangerous.encoding import base64_encode
from itsdangerous.signer import HMACAlgorithm

from .wire import quote

_HEAD, _TAIL = ',"sig":"', '"}'

LENGTH = len(_HEAD) + 43 + len(_TAIL) - 1
"""By so much a signature makes a message longer."""


class NoSecretKey(Exception):
    """The app has no ``SECRET_KEY``."""


def sign(app: Flask, context: tuple[str, ...], text: str) -> str:
    """Return *text*, which is a JSON object, with a signature for the task that *context* names."""
    signature = _signature(_derived(app)[0], _covered(context, text))
    return f"{text[:-1]}{_HEAD}{signature.decode()}{_TAIL}"


def verified(app: Flask, context: tuple[str, ...], signed: str) -> str | None:
    """Return the text that was signed for the task that *context* names; None if *signed* is not that."""
    # Inside of a JSON string each quote has a backslash in front: no value can hold the separator.
    text, _, end = signed.rpartition(_HEAD)
    text += "}"
    covered, given = _covered(context, text), end.removesuffix(_TAIL).encode("utf-8", "surrogatepass")
    valid = any(hmac.compare_digest(_signature(key, covered), given) for key in _derived(app))
    return text if valid and end.endswith(_TAIL) else None


def _signature(key: bytes, covered: bytes) -> bytes:
    return base64_encode(_ALGORITHM.get_signature(key, covered))


def _covered(context: tuple[str, ...], text: str) -> bytes:
    # As JSON, because joined strings can be cut at another place: "a" and "bc" as "ab" and "c". The end of an array is
    # certain, so that the text after it needs no quotes.
    return f"[{','.join(map(quote, context))}]{text}".encode("ascii", "backslashreplace")


_ALGORITHM = HMACAlgorithm(hashlib.sha256)

_known: weakref.WeakKeyDictionary[Flask, tuple[list[t.Any], list[bytes]]] = weakref.WeakKeyDictionary()
"""By app its secret keys, and the keys that are derived from them: that takes as long as signing."""


def _derived(app: Flask) -> list[bytes]:
    """Return the keys of *app*, the current one first, which signs."""
    if not app.secret_key:
        raise NoSecretKey
    keys = [app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or ())]
    known = _known.get(app)
    if known is None or known[0] != keys:
        signer = Signer(
            keys, salt="flaskthreads_autopatch.carrier", key_derivation="hmac", digest_method=hashlib.sha256
        )
        known = _known[app] = keys, list(map(signer.derive_key, signer.secret_keys))
    return known[1]
