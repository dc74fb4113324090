"""`import cortado` needs torch, NumPy and safetensors, and few others that are declared; no optional package."""

import subprocess
import sys

from tests.fresh import ROOT, fresh

CHILD = """
import importlib.abc, sys, warnings

warnings.filterwarnings("error", category=ImportWarning)

class Blocked(importlib.abc.MetaPathFinder):
    names = {"sklearn", "scipy", "PIL", "onnx", "onnxruntime", "onnxscript", "optuna", "openvino", "hypothesis", "pytest", "cv2",
             "torchvision", "timm", "transformers", "matplotlib", "pandas", "tqdm"}
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import cortado
import cortado.cli
assert not Blocked.names & {name.partition(".")[0] for name in sys.modules}, sorted(Blocked.names & set(sys.modules))
assert cortado.compress and cortado.load
print("light")
"""


def test_import_needs_no_optional_package():
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "light"


def test_import_prints_nothing_and_leaves_the_random_state():
    code = "import torch; before = torch.random.get_rng_state(); import cortado; assert torch.equal(before, torch.random.get_rng_state())"
    child = fresh(code)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")
