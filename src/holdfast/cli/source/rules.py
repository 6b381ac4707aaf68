"""What answers differently in every replay, by dotted path, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason why code cannot replay.

    Attributes:
        slug: its name in output for programs.
        message: what is wrong, in one line.
        remedy: what to write instead.
    """

    slug: str
    message: str
    remedy: str


_STEP: Final = "do it in a step, and return what the workflow needs"

CLOCK: Final = Rule("clock", "the clock shows another time in every replay", "holdfast.now()")
TICKS: Final = Rule("clock", "the clock shows another time in every replay", "differences of holdfast.now()")
SLEEP: Final = Rule(
    "blocking", "it blocks the worker, and sleeps again in every replay", "holdfast.sleep(...), which is durable"
)
RANDOM: Final = Rule("random", "it draws another number in every replay", "holdfast.random(), the run's own generator")
SHARED_RANDOM: Final = Rule(
    "random", "a generator that all runs share gives other numbers in a replay", "holdfast.random(), the run's own"
)
SECRET: Final = Rule(
    "random", "it draws other bytes in every replay", f"holdfast.random() if it is no secret, else {_STEP}"
)
UUID: Final = Rule("uuid", "it makes another id in every replay", "holdfast.uuid4()")
ENVIRONMENT: Final = Rule(
    "environment",
    "another process may have another environment",
    "pass it as an argument of the run, or read it in a step",
)
PROCESS: Final = Rule("process", "another process or host answers otherwise", _STEP)
FILES: Final = Rule("files", "what is on the disk may have changed when the run is replayed", _STEP)
NETWORK: Final = Rule("network", "it would be sent again in every replay", _STEP)
SUBPROCESS: Final = Rule("subprocess", "it would be executed again in every replay", _STEP)
THREADS: Final = Rule(
    "threads", "what a thread does has no place in the history", "a `def` step: its body runs in a thread"
)
IDENTITY: Final = Rule(
    "identity", "addresses differ from process to process", "compare with `is`, or use a key of your own"
)
HASH: Final = Rule("hash", "hashes of text differ from process to process", "hashlib, or the value itself as the key")
SETS: Final = Rule("set-order", "sets iterate in another order in another process", "sorted(...), or a list or dict")
STATE: Final = Rule(
    "state", "other runs and replays change it, too", "an argument or a result of the run, or a row that a step writes"
)
CONSOLE: Final = Rule("console", "nobody answers when the run is replayed", "an argument of the run")

# Calls of these, and references to them.
CALLS: Final[dict[str, Rule]] = {}

# Classes that are only wrong to call, and functions that are only wrong without their first argument.
CLASSES: Final[dict[str, Rule]] = {}
WITHOUT_ARGUMENTS: Final[dict[str, Rule]] = {
    "random.Random": RANDOM,
    "time.localtime": CLOCK,
    "time.gmtime": CLOCK,
    "time.ctime": CLOCK,
    "time.asctime": CLOCK,
}

# Values that are wrong to look at.
VALUES: Final[dict[str, Rule]] = {"os.environ": ENVIRONMENT, "os.environb": ENVIRONMENT, "sys.argv": ENVIRONMENT}

# Methods of instances, by class.
METHODS: Final[dict[str, tuple[frozenset[str], Rule]]] = {}

# Methods of an instance that the module holds: it is shared by all runs, or open to the world.
SHARED: Final[dict[str, Rule]] = {"random.Random": SHARED_RANDOM, "random.SystemRandom": SECRET}

# Methods that are known by their name alone.
METHOD_NAMES: Final[dict[str, Rule]] = {"run_in_executor": THREADS}


def _calls(rule: Rule, module: str, names: str) -> None:
    CALLS.update({f"{module}.{name}": rule for name in names.split()})


def _classes(rule: Rule, module: str, names: str, *, shared: bool = True) -> None:
    paths = [f"{module}.{name}" for name in names.split()]
    CLASSES.update(dict.fromkeys(paths, rule))
    if shared:
        SHARED.update(dict.fromkeys(paths, rule))


_calls(CLOCK, "time", "time time_ns")
_calls(TICKS, "time", "monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns thread_time")
_calls(CLOCK, "datetime.datetime", "now utcnow today")
_calls(CLOCK, "datetime.date", "today")
_calls(SLEEP, "time", "sleep")
_calls(
    RANDOM,
    "random",
    "betavariate binomialvariate choice choices expovariate gammavariate gauss getrandbits lognormvariate "
    "normalvariate paretovariate randbytes randint random randrange sample seed shuffle triangular uniform "
    "vonmisesvariate weibullvariate",
)
_calls(RANDOM, "numpy.random", "rand randn randint random choice shuffle permutation normal uniform seed")
_calls(SECRET, "secrets", "choice randbelow randbits token_bytes token_hex token_urlsafe")
_calls(SECRET, "os", "urandom getrandom")
_calls(UUID, "uuid", "uuid1 uuid4 uuid6 uuid7 uuid8 getnode")
_calls(ENVIRONMENT, "os", "getenv getenvb putenv unsetenv")
_calls(PROCESS, "os", "getpid getppid getcwd getcwdb cpu_count getlogin uname times getloadavg")
_calls(PROCESS, "threading", "get_ident get_native_id current_thread")
_calls(PROCESS, "platform", "node uname platform")
_calls(PROCESS, "getpass", "getuser")
_calls(PROCESS, "socket", "gethostname getfqdn")
_calls(FILES, "builtins", "open")
_calls(FILES, "io", "open open_code")
_calls(
    FILES,
    "os",
    "open read write listdir scandir walk stat lstat access remove unlink rename replace mkdir makedirs rmdir "
    "removedirs link symlink readlink chmod chown truncate utime",
)
_calls(
    FILES, "os.path", "exists lexists isfile isdir islink ismount getsize getmtime getatime getctime realpath samefile"
)
_calls(FILES, "shutil", "copy copy2 copyfile copytree move rmtree disk_usage make_archive unpack_archive which")
_calls(FILES, "tempfile", "mkstemp mkdtemp gettempdir")
_classes(FILES, "tempfile", "TemporaryDirectory NamedTemporaryFile TemporaryFile SpooledTemporaryFile", shared=False)
_calls(FILES, "tempfile", "NamedTemporaryFile TemporaryFile")
_calls(FILES, "glob", "glob iglob")
_calls(FILES, "fileinput", "input")
_calls(FILES, "sqlite3", "connect")
_calls(FILES, "pathlib.Path", "cwd home")
_calls(NETWORK, "requests", "get post put patch delete head options request session")
_classes(NETWORK, "requests", "Session")
_classes(NETWORK, "requests.sessions", "Session")
_calls(NETWORK, "httpx", "get post put patch delete head options request stream")
_classes(NETWORK, "httpx", "Client AsyncClient")
_calls(NETWORK, "aiohttp", "request")
_classes(NETWORK, "aiohttp", "ClientSession")
_classes(NETWORK, "aiohttp.client", "ClientSession")
_calls(NETWORK, "urllib.request", "urlopen urlretrieve")
_calls(NETWORK, "urllib3", "request")
_classes(NETWORK, "urllib3", "PoolManager")
_classes(NETWORK, "http.client", "HTTPConnection HTTPSConnection")
_classes(NETWORK, "smtplib", "SMTP SMTP_SSL")
_classes(NETWORK, "ftplib", "FTP FTP_TLS")
_classes(NETWORK, "imaplib", "IMAP4 IMAP4_SSL")
_classes(NETWORK, "socket", "socket")
_calls(
    NETWORK, "socket", "create_connection create_server getaddrinfo gethostbyname gethostbyaddr getnameinfo socketpair"
)
_calls(NETWORK, "asyncio", "open_connection open_unix_connection start_server start_unix_server")
_calls(NETWORK, "asyncpg", "connect create_pool")
_calls(NETWORK, "psycopg", "connect")
_calls(NETWORK, "psycopg2", "connect")
_calls(NETWORK, "boto3", "client resource")
_classes(NETWORK, "boto3", "Session")
_classes(NETWORK, "redis", "Redis")
_classes(NETWORK, "openai", "OpenAI AsyncOpenAI")
_classes(NETWORK, "anthropic", "Anthropic AsyncAnthropic")
_calls(SUBPROCESS, "subprocess", "run call check_call check_output getoutput getstatusoutput")
_classes(SUBPROCESS, "subprocess", "Popen")
_calls(
    SUBPROCESS,
    "os",
    "system popen fork forkpty posix_spawn posix_spawnp execv execve execvp execl execlp spawnl spawnv",
)
_calls(SUBPROCESS, "asyncio", "create_subprocess_exec create_subprocess_shell")
_classes(SUBPROCESS, "multiprocessing", "Process Pool")
_calls(SUBPROCESS, "multiprocessing", "Process Pool")
_calls(THREADS, "asyncio", "to_thread run_coroutine_threadsafe")
_classes(THREADS, "threading", "Thread Timer")
_classes(THREADS, "concurrent.futures", "ThreadPoolExecutor ProcessPoolExecutor")
_classes(THREADS, "concurrent.futures.thread", "ThreadPoolExecutor")
_classes(THREADS, "concurrent.futures.process", "ProcessPoolExecutor")
_classes(SECRET, "random", "SystemRandom")
_calls(IDENTITY, "builtins", "id")
_calls(HASH, "builtins", "hash")
_calls(CONSOLE, "builtins", "input")

_PATH_METHODS: Final = (
    "open read_text read_bytes write_text write_bytes exists is_file is_dir is_symlink iterdir glob rglob walk stat "
    "lstat mkdir rmdir unlink rename replace touch chmod resolve readlink symlink_to hardlink_to owner group samefile "
    "expanduser"
)
METHODS["pathlib.Path"] = (frozenset(_PATH_METHODS.split()), FILES)
