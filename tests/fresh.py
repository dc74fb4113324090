"""Fresh: code in a process of its own, forked from one that imported torch, or Cortado too, once for all tests."""

import atexit
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = """
import json, os, signal, sys, traceback

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        for stream, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(os.path.join(order["folder"], stream), os.O_WRONLY | os.O_CREAT), number)
        os.chdir(order["cwd"])
        signal.alarm(300)
        sys.argv, status = ["-c", *order["arguments"]], 0
        try:
            exec(compile(order["code"], "<fresh>", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


READY = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import pytest
import torch
import torch._dynamo  # the first random seed and the first optimizer of a process import it
from cortado.commands import compressing
from cortado.engine.recipe import known_methods
from cortado.native.build import native_state
from tests.laws import tiny_nets
torch.set_num_threads(1)
known_methods()
native_state()
"""
"""Nothing of this uses autograd, whose threads do not survive a fork."""


@cache
def server(imports: str) -> subprocess.Popen[str]:
    """Start a process that has imported these and forks; it ends with the tests."""
    command = [sys.executable, "-c", imports + SERVER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def end() -> None:
        process.stdin.close()
        process.stdout.close()
        process.wait()

    atexit.register(end)
    return process


def fresh(
    code: str, *arguments: str, imports: str = "import torch", cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c` would in a folder, with `imports` done; return status, output and errors.

    It is ended after five minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        order = {"code": code, "arguments": arguments, "folder": folder, "cwd": str(cwd)}
        server(imports).stdin.write(json.dumps(order) + "\n")
        server(imports).stdin.flush()
        status = int(server(imports).stdout.readline())
        texts = [(Path(folder) / name).read_text(encoding="utf8") for name in ("out", "err")]
    return subprocess.CompletedProcess(["python", *arguments], status, *texts)


def forked(main: str, count: int, folder: Path, group: str = "file") -> subprocess.CompletedProcess[str]:
    """Run `main(rank, folder)`, given as package.module:function, in several processes; return status and errors of all.

    They are one group, found by a file; with `group` "environment" they have to find it themselves, as under torchrun.
    """
    return fresh(FORKED, main, str(count), str(folder), group, imports=READY)


FORKED = """
import importlib, multiprocessing, os, socket, sys
from torch import distributed
module, _, name = sys.argv[1].partition(":")
main, count, folder = getattr(importlib.import_module(module), name), int(sys.argv[2]), sys.argv[3]
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]

def child(rank):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    if sys.argv[4] == "file":
        store = distributed.FileStore(f"{folder}/store", count)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    main(rank, folder)

children = [multiprocessing.get_context("fork").Process(target=child, args=(rank,)) for rank in range(count)]
for one in children:
    one.start()
for one in children:
    one.join()
sys.exit(max(abs(one.exitcode or 0) for one in children))
"""
