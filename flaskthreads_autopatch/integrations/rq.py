"""The context carried to RQ's jobs, in a field of their own beside what RQ stores of them."""

from __future__ import annotations

import functools
import inspect
import typing as t
from collections.abc import Callable

from rq.job import Job

from ..carrier import KEY, Block, Carrier, CarrierError
from ..extraction import Extraction

_FIELD = KEY.encode()


class AppContextJob(Job):
    """A job that runs in an app context of its own, filled from the context in which it was enqueued.

    Derive a class from it that has a `Carrier` as its `carrier`, in a module that the worker can import::

        class ShopJob(AppContextJob):
            carrier = Carrier("shop:create_app", g=("user_id",))

    Pass it to both sides: ``Queue(..., job_class=ShopJob)``, and ``rq worker --job-class shop.jobs.ShopJob``.
    ``enqueue()`` and its like raise `NotPortableError`. A retry, a repetition and a job that is enqueued again run with
    what the job was enqueued with. A callback of the job runs in a context like the job's. A job that was enqueued
    without a context, or by a program without this class, runs in an app context. A job of a queue with
    ``is_async=False`` runs in the caller's context if there is one. With a signed carrier, a job whose message is not
    signed for its function and id fails with a `CarrierError`.
    """

    carrier: t.ClassVar[Carrier]

    _message = ""

    @classmethod
    def create(cls, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Create a job that carries the context which is active here. Raises `NotPortableError`."""
        job: t.Any = super().create(*args, **kwargs)
        job._message = cls._its_carrier().take(job._names())
        return job

    def to_dict(self, *args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
        """Return what RQ stores of this job, and the message."""
        stored: dict[str, t.Any] = super().to_dict(*args, **kwargs)
        if self._message:
            stored[KEY] = self._message
        return stored

    def restore(self, raw_data: t.Any) -> t.Any:
        """Take over what RQ has stored of this job, and the message."""
        super().restore(raw_data)
        # Only text is a message of this library. Anything else is refused when the job runs.
        self._message = raw_data.get(_FIELD, b"").decode("utf-8", "replace")

    def perform(self) -> t.Any:
        """Run the job in a context of its own."""
        if self._is_in_place():
            return super().perform()
        try:
            extraction = self._open(self.func_name)
        except CarrierError:
            self._message = ""  # The callback for the failure runs without it.
            raise
        with extraction:
            return super().perform()

    @property
    def success_callback(self) -> t.Any:
        """The callback of a job that has succeeded."""
        return self._in_context(super().success_callback)

    @property
    def failure_callback(self) -> t.Any:
        """The callback of a job that has failed."""
        return self._in_context(super().failure_callback)

    @property
    def stopped_callback(self) -> t.Any:
        """The callback of a job that was stopped."""
        return self._in_context(super().stopped_callback)

    def _in_context(self, callback: t.Any) -> t.Any:
        if callback is None or inspect.iscoroutinefunction(callback):
            return callback  # RQ refuses coroutines.

        @functools.wraps(callback)
        def call(*args: t.Any) -> t.Any:
            if self._is_in_place():
                return callback(*args)
            with self._open(callback):
                return callback(*args)

        return call

    def _is_in_place(self) -> bool:
        # RQ gives a job of a queue with is_async=False this worker, which is the process that enqueues it.
        return self.worker_name == "sync" and self._its_carrier().active() is not None

    def _open(self, shown: Callable[..., t.Any] | str | None) -> Extraction:
        if not callable(shown):
            module, _, name = str(shown).rpartition(".")
            shown = t.cast(t.Any, Block(module, name))
        return self._its_carrier().open(self._message, self._names(), shown)

    def _names(self) -> tuple[str, str]:
        """Return the *context* of the message, which is signed with it."""
        return str(self.func_name), self.id

    @classmethod
    def _its_carrier(cls) -> Carrier:
        carrier = getattr(cls, "carrier", None)
        if isinstance(carrier, Carrier):
            return carrier
        raise TypeError(
            f"{cls.__name__}.carrier is {carrier!r}: allowed is a Carrier. Derive a class from AppContextJob, with"
            ' carrier = Carrier("shop:create_app", g=("user_id",)) in it, and use that as the job_class.'
        )
