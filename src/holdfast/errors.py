"""The exception tree. Below the root: who must act.

HoldfastError
├── UsageError                 the caller: the call, the option or the value is wrong
│   ├── NotEncodable           a value that cannot be stored as typed JSON (also a TypeError)
│   ├── PayloadTooLarge        a value that is too large to be stored
│   ├── NotDecodable           stored JSON that does not fit the annotation it is read with
│   ├── NotInRun               a workflow-only function called outside a workflow
│   ├── NotOpen                an app or client used before it was opened or after it was closed
│   ├── NotAllowedInWorkflow   sockets, threads, executors: work that belongs into a step
│   ├── UnknownWorkflow        no workflow of this name is registered here
│   ├── RunNotFound            no run with this id (also a LookupError)
│   ├── RunConflict            the id is taken by another run, or its state forbids the request
│   ├── QueryError             the text of a search cannot be understood
│   └── MissingExtra           an optional dependency is not installed
├── WorkflowError              the author of the workflow or of a step
│   ├── RunFailed              a run failed with an exception that cannot be rebuilt here
│   ├── RunCancelled           the awaited run was cancelled
│   ├── RunTimeout             the run passed its deadline (also a TimeoutError)
│   ├── StepFailed             a step failed with an exception that cannot be rebuilt here
│   ├── StepTimeout            an attempt of a step took longer than its timeout (also a TimeoutError)
│   ├── NondeterminismError    the code does not repeat what its history records
│   └── RunPoisoned            the run's worker died with it again and again
├── WaitTimeout                nobody: `result(timeout=...)` gave up waiting, the run goes on (also a TimeoutError)
├── StoreError                 the operator: disk, file, permissions, schema
│   ├── StoreBusy              another process holds the database too long (retryable)
│   ├── StoreFull              the disk is full (retryable)
│   ├── StoreUnavailable       cannot be opened or reached: path, permission, connection (retryable)
│   ├── StoreCorrupt           damaged, or not a database, or another application's
│   ├── StoreReplaced          the file at the path is not the file that was opened
│   ├── StoreUnsupported       a file system or SQLite library that cannot keep the promises
│   ├── SchemaMismatch         the schema is newer than this code, or its migrations were changed
│   └── Fenced                 this worker was declared dead; its writes are refused
└── InternalError              us: please report it

Every error carries `code`, a stable slug for programs, and `hint`, the next move for a person.
"""

from __future__ import annotations

from typing import ClassVar


class HoldfastError(Exception):
    """Root of every error that Holdfast raises by itself.

    Attributes:
        code: a stable slug of the class, such as ``run-not-found``.
        hint: the next move, or an empty string.
        retryable: whether the same call may succeed later without anyone changing anything.
    """

    code: ClassVar[str] = "holdfast"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = _printable(message)
        self.hint = _printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


def _printable(text: str) -> str:
    """A message may show what it is about; half a character in that must not keep it from a terminal or a log."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class UsageError(HoldfastError):
    """The call, the option or the value is wrong; nothing was written."""

    code = "usage"


class NotEncodable(UsageError, TypeError):
    """A value cannot be stored as typed JSON.

    Attributes:
        path: where in the value, such as ``order.items[3].price``.
    """

    code = "not-encodable"

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class PayloadTooLarge(UsageError, ValueError):
    """A value is too large to be stored.

    Attributes:
        chars: how many characters it has as JSON.
        chars_max: how many it may have.
    """

    code = "payload-too-large"

    def __init__(self, message: str, *, chars: int = 0, chars_max: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.chars = chars
        self.chars_max = chars_max


class NotDecodable(UsageError, ValueError):
    """Stored JSON does not fit the annotation that it is read with.

    Attributes:
        path: where in the value, such as ``order.items[3].price``.
    """

    code = "not-decodable"

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class NotInRun(UsageError, RuntimeError):
    """A function that only means something inside a workflow (or step) was called outside."""

    code = "not-in-run"


class NotOpen(UsageError, RuntimeError):
    """An app or client was used before it was opened or after it was closed."""

    code = "not-open"


class NotAllowedInWorkflow(UsageError, RuntimeError):
    """The workflow's loop has no sockets, threads or subprocesses: do such work in a step."""

    code = "not-allowed-in-workflow"


class UnknownWorkflow(UsageError, LookupError):
    """No workflow of this name is registered with the app."""

    code = "unknown-workflow"


class RunNotFound(UsageError, LookupError):
    """No run with this id exists in the database.

    Attributes:
        run_id: the id that was asked for.
    """

    code = "run-not-found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run with id {run_id!r}", hint="list the runs with `holdfast ls`")
        self.run_id = run_id


class RunConflict(UsageError):
    """The id belongs to another run, or the run's state forbids what was asked.

    Attributes:
        run_id: the run in question.
    """

    code = "run-conflict"

    def __init__(self, message: str, *, run_id: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class QueryError(UsageError, ValueError):
    """The text of a search cannot be understood. The message shows the text with a mark under the place.

    Attributes:
        query: the text.
        at: where in it, counted from 0.
    """

    code = "query"

    def __init__(self, message: str, *, query: str, at: int, end: int | None = None, hint: str = "") -> None:
        super().__init__(f"{message}\n{_marked(query, at, end)}", hint=hint)
        self.query = query
        self.at = at

    def __str__(self) -> str:
        return f"{self.message}\n  (hint: {self.hint})" if self.hint else self.message


def _marked(text: str, at: int, end: int | None) -> str:
    """The part of a text around a place, with a mark below it."""
    first, last = max(0, at - 50), at + 50
    shown = "".join(" " if char.isspace() else char if char.isprintable() else "\ufffd" for char in text[first:last])
    marks = "^" * max(1, min(end or at, last) - at)
    before, after = "..." if first else "", "..." if last < len(text) else ""
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + at - first)}{marks}"


class MissingExtra(UsageError, ImportError):
    """An optional dependency is not installed; the message has the `pip install` line."""

    code = "missing-extra"


class WorkflowError(HoldfastError):
    """The workflow or one of its steps did not do what was hoped."""

    code = "workflow"


class _Rebuilt(WorkflowError):
    """An exception that could not be rebuilt as its own class, with what is known of it.

    Attributes:
        type_name: the original class, as ``module:QualifiedName``.
        traceback_text: the original traceback, or an empty string.
        causes: ``type: message`` of each cause, outermost first.
    """

    def __init__(
        self,
        message: str,
        *,
        type_name: str = "",
        traceback_text: str = "",
        causes: tuple[str, ...] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.type_name = type_name
        self.traceback_text = traceback_text
        self.causes = causes

    def __str__(self) -> str:
        told, name = super().__str__(), self.type_name.rpartition(":")[2]
        return told if name in told else f"{name}: {told}"


class StepFailed(_Rebuilt):
    """A step failed with an exception whose class cannot be imported or rebuilt here."""

    code = "step-failed"


class RunFailed(_Rebuilt):
    """A run failed with an exception whose class cannot be imported or rebuilt here."""

    code = "run-failed"


class RunCancelled(WorkflowError):
    """The run that was waited for has been cancelled.

    Attributes:
        run_id: the cancelled run.
    """

    code = "run-cancelled"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled", hint="`retry` lets it go on from where it stopped")
        self.run_id = run_id


class RunTimeout(WorkflowError, TimeoutError):
    """The run passed the deadline that it was started with."""

    code = "run-timeout"


class StepTimeout(WorkflowError, TimeoutError):
    """One attempt of a step took longer than the step's timeout."""

    code = "step-timeout"


class RunPoisoned(WorkflowError):
    """The run's worker died with it again and again, and nothing was recorded in between; why it is `blocked`."""

    code = "poison"


class NondeterminismError(WorkflowError):
    """The code asked for something else than its history records at the same place.

    Attributes:
        run_id: the run.
        seq: the number of the operation.
        recorded: what the history holds there, as one line.
        requested: what the code asked for, as one line.
    """

    code = "nondeterminism"

    def __init__(self, *, run_id: str, seq: int, recorded: str, requested: str, hint: str) -> None:
        super().__init__(
            f"run {run_id!r} does not repeat its history at entry {seq}:\n"
            f"  recorded:  {recorded}\n"
            f"  requested: {requested}\n",
            hint=hint,
        )
        self.run_id = run_id
        self.seq = seq
        self.recorded = recorded
        self.requested = requested


class WaitTimeout(HoldfastError, TimeoutError):
    """`result(timeout=...)` gave up waiting; the run itself goes on."""

    code = "wait-timeout"
    retryable = True


class StoreError(HoldfastError):
    """The database, its file or its schema needs the operator."""

    code = "store"


class StoreBusy(StoreError):
    """Another process holds the database for longer than was tolerable."""

    code = "store-busy"
    retryable = True


class StoreFull(StoreError):
    """The disk is full. Nothing was acknowledged that is not stored."""

    code = "store-full"
    retryable = True


class StoreUnavailable(StoreError):
    """The database cannot be opened or reached."""

    code = "store-unavailable"
    retryable = True


class StoreCorrupt(StoreError):
    """The file is damaged, is not a database, or belongs to another application."""

    code = "store-corrupt"


class StoreReplaced(StoreError):
    """The file at the path is no longer the file that was opened."""

    code = "store-replaced"


class StoreUnsupported(StoreError):
    """The file system or the SQLite library cannot keep Holdfast's promises."""

    code = "store-unsupported"


class SchemaMismatch(StoreError):
    """The database's schema is newer than this code, or its migrations differ."""

    code = "schema-mismatch"


class Fenced(StoreError):
    """This worker was declared dead by another one, so its writes are refused."""

    code = "fenced"


class InternalError(HoldfastError):
    """A defect of Holdfast itself."""

    code = "internal"
