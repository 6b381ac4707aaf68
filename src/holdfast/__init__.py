"""Durable workflows for Python, on a file."""

from holdfast._app import Holdfast
from holdfast._client import Client
from holdfast._flow.context import (
    Current,
    continue_as_new,
    current,
    now,
    patched,
    random,
    sleep,
    uuid4,
)
from holdfast._flow.definitions import Step, Workflow, step, workflow
from holdfast._model.lifecycle import EntryState, RunState
from holdfast._model.policies import Retry
from holdfast._model.runinfo import Entry, ErrorInfo, RunInfo
from holdfast._run import Run, Start, Stats
from holdfast._runtime.options import ExecutorOptions
from holdfast._runtime.options import LeaseOptions
from holdfast._runtime.options import WorkerOptions
from holdfast._store.journal import JournalOptions
from holdfast._sync import SyncClient, SyncRun
from holdfast.errors import (
    Fenced,
    HoldfastError,
    InternalError,
    MissingExtra,
    NondeterminismError,
    NotAllowedInWorkflow,
    NotDecodable,
    NotEncodable,
    NotInRun,
    NotOpen,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    RunTimeout,
    SchemaMismatch,
    StepFailed,
    StepTimeout,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReplaced,
    StoreUnavailable,
    StoreUnsupported,
    UnknownWorkflow,
    UsageError,
    WaitTimeout,
    WorkflowError,
)

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Current",
    "Entry",
    "EntryState",
    "ErrorInfo",
    "ExecutorOptions",
    "Fenced",
    "Holdfast",
    "HoldfastError",
    "InternalError",
    "JournalOptions",
    "LeaseOptions",
    "MissingExtra",
    "NondeterminismError",
    "NotAllowedInWorkflow",
    "NotDecodable",
    "NotEncodable",
    "NotInRun",
    "NotOpen",
    "Retry",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunInfo",
    "RunNotFound",
    "RunState",
    "RunTimeout",
    "SchemaMismatch",
    "Start",
    "Stats",
    "Step",
    "StepFailed",
    "StepTimeout",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreReplaced",
    "StoreUnavailable",
    "StoreUnsupported",
    "SyncClient",
    "SyncRun",
    "UnknownWorkflow",
    "UsageError",
    "WaitTimeout",
    "WorkerOptions",
    "Workflow",
    "WorkflowError",
    "continue_as_new",
    "current",
    "now",
    "patched",
    "random",
    "sleep",
    "step",
    "uuid4",
    "workflow",
]
