"""The page of the first ten minutes, run as it stands: its network, a folder of pictures, and all its commands."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image

from cortado.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "first_ten_minutes.md").read_text(encoding="utf8")


def test_commands_of_the_page_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    generator = np.random.default_rng(0)
    for name, channel in (("beans", 0), ("cups", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            pixels = generator.integers(0, 120, (70, 80, 3), dtype=np.uint8)
            pixels[..., channel] += np.uint8(generator.integers(0, 60))
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number:04}.jpg")
    (code,) = re.findall(r"```python\n(# my_net\.py.*?)```", PAGE, re.S)
    (tmp_path / "my_net.py").write_text(code)
    import my_net

    torch.save({"epoch": 1, "state_dict": my_net.Net().state_dict()}, tmp_path / "my_net.pth")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert [line.split()[1] for line in commands] == ["init", "check", "compress", "verify"]
    for line in commands:
        words = ["3 s" if word == "1 min" else word for word in shlex.split(line)[1:]]
        done = CliRunner().invoke(main, words)
        assert done.exit_code in (0, 3), (line, done.output)
    sys.modules.pop("my_net")
    assert (tmp_path / "runs/first/report.html").exists() and (tmp_path / "runs/first/onnxruntime/net.onnx").exists()
