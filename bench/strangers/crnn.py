"""The CRNN of EasyOCR's english_g2: convolutions, two recurrent layers in both directions, a linear one (Shi et al., 2017)."""

from torch import Tensor, nn


class Both(nn.Module):
    """A recurrent layer in both directions and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(256, 256, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(512, 256)

    def forward(self, steps: Tensor) -> Tensor:
        return self.linear(self.rnn(steps)[0])


class Reader(nn.Module):
    """Grey lines (N, 1, 64, width) to logits of 96 letters and none, (N, steps, 97)."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for one, two, norm, pool in (
            (1, 32, 0, 2),
            (32, 64, 0, 2),
            (64, 128, 0, 0),
            (128, 128, 0, (2, 1)),
            (128, 256, 1, 0),
            (256, 256, 1, (2, 1)),
        ):
            parts += [nn.Conv2d(one, two, 3, 1, 1, bias=not norm), *([nn.BatchNorm2d(two)] if norm else []), nn.ReLU()]
            parts += [nn.MaxPool2d(pool, pool)] if pool else []
        self.body = nn.Sequential(*parts, nn.Conv2d(256, 256, 2), nn.ReLU())
        self.steps, self.head = nn.Sequential(Both(), Both()), nn.Linear(256, 97)

    def forward(self, lines: Tensor) -> Tensor:
        return self.head(self.steps(self.body(lines).mean(2).transpose(1, 2)))
