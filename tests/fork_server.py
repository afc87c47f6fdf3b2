"""A process that has imported everything and forks an `lcg` process per request, in milliseconds.

Importing torch and Lightning takes seconds; the tests here start dozens of processes, because only
a real one can be killed. Reads requests on stdin, one JSON object a line; answers on stdout.
"""

import atexit
import contextlib
import gc
import json
import os
import resource
import signal
import sys
import traceback


def serve() -> dict:
    """Answer requests; returns only in a forked child, with what it is to do."""
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            pid = os.fork()
            if pid == 0:
                return request
            answer = pid
        else:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = None if pid == 0 else os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)
    sys.exit(0)


def become(request: dict) -> None:
    """Make this child what a shell would have started: own group, files, folder, environment."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite may run under nohup
    for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = os.open(path, flags, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    for name, value in request["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.argv = ["lcg", *request["words"]]
    if request["user"] is not None:
        os.setuid(request["user"])


def main(before: str) -> int:
    """As a shell sees `lcg`: the exit code, and a traceback on stderr for what nobody caught."""
    try:
        exec(compile(before, "before", "exec"), {"__name__": "__main__"})
        return lcg.cli.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    import lcg.cli
    import lcg.evaluation.evaluate
    import lcg.training.loop

    os.fsync = lambda file: None  # as in conftest.py
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.freeze()
    print(json.dumps("ready"), flush=True)
    request = serve()
    become(request)
    code = main(request["before"])
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, full
            stream.flush()
    os._exit(code)  # taking the interpreter down in good order would take a second
