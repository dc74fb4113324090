"""Fresh: code in a process that has torch and nothing of Cortado, forked from one that imported torch once for all tests."""

import atexit
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = """
import json, os, sys, traceback
import torch

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        for stream, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(os.path.join(order["folder"], stream), os.O_WRONLY | os.O_CREAT), number)
        sys.argv, status = ["-c", *order["arguments"]], 0
        try:
            exec(compile(order["code"], "<fresh>", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def server() -> subprocess.Popen[str]:
    """Start the process that forks; it ends with the tests."""
    command = [sys.executable, "-c", SERVER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def end() -> None:
        process.stdin.close()
        process.stdout.close()
        process.wait()

    atexit.register(end)
    return process


def fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c` would in the root of the repository, torch imported; return status, output and errors."""
    with tempfile.TemporaryDirectory() as folder:
        order = {"code": code, "arguments": arguments, "folder": folder}
        server().stdin.write(json.dumps(order) + "\n")
        server().stdin.flush()
        status = int(server().stdout.readline())
        texts = [(Path(folder) / name).read_text(encoding="utf8") for name in ("out", "err")]
    return subprocess.CompletedProcess(["python", *arguments], status, *texts)
