"""A user's own detector: a grid of boxes on pictures of bright blocks, with its collate, its flips and its mAP."""

# fmt: off
import torch
from torch import nn

import cortado
from cortado.task.average_precision import mean_average_precision


def sample(number):
    generator = torch.Generator().manual_seed(number)
    picture = 0.1 * torch.randn(1, 16, 16, generator=generator)
    x, y, tall = torch.randint(0, 12, (3, number % 4), generator=generator)
    boxes = torch.stack([x, y, x + 2 + 2 * (tall % 2), y + 4 - 2 * (tall % 2)], 1)
    for x0, y0, x1, y1 in boxes.tolist():
        picture[0, y0:y1, x0:x1] += 1
    return picture, {"boxes": boxes.float(), "labels": tall % 2}

def pictures(seed):
    return torch.utils.data.Subset([sample(1000 * seed + number) for number in range(96)], range(96))

def collate(items):
    return torch.stack([picture for picture, _ in items]), [target for _, target in items]

def flip(pictures, targets, generator):
    edge, signs = torch.tensor([16.0, 0, 16, 0]), torch.tensor([-1.0, 1, -1, 1])
    turned = [{**one, "boxes": (edge + signs * one["boxes"])[:, [2, 1, 0, 3]]} for one in targets]
    return (pictures.flip(3), turned) if torch.rand((), generator=generator) < 0.5 else (pictures, targets)

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU())
        self.classes, self.corners = nn.Conv2d(16, 3, 1), nn.Conv2d(16, 4, 1)

    def forward(self, pictures):
        cells, (y, x) = self.body(pictures), torch.meshgrid(torch.arange(0.0, 16, 4), torch.arange(0.0, 16, 4), indexing="ij")
        corners = self.corners(cells) + torch.stack([x, y, x, y])
        return {"logits": self.classes(cells).flatten(2).mT, "boxes": corners.flatten(2).mT}

def loss(outputs, targets):
    return torch.stack([one(*s) for s in zip(outputs["logits"], outputs["boxes"], targets, strict=True)]).mean()

def one(logits, corners, target):
    cells = ((target["boxes"][:, :2] + target["boxes"][:, 2:]) // 8).clamp(max=3).long() @ torch.tensor([1, 4])
    wanted = torch.zeros(16, dtype=torch.long).scatter(0, cells, target["labels"] + 1)
    far = nn.functional.smooth_l1_loss(corners[cells], target["boxes"], reduction="sum")
    return nn.functional.cross_entropy(logits, wanted) + far / 16

def detections(outputs):
    scores, labels = outputs["logits"].softmax(-1)[..., 1:].max(-1)
    return [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(outputs["boxes"], scores, labels, strict=True)]

def task(seed=0):
    train, *other = (cortado.Data(pictures(n), collate=collate, vary=flip if n == 1 else None) for n in (1, 2, 3))
    kinds = {"logits": cortado.Classes(axis=2), "boxes": cortado.Boxes()}
    metric = mean_average_precision(2, detections, overlaps=(0.5,))
    return cortado.Task(train, *other, loss=loss, metric=metric, outputs=kinds, batch=16, seed=seed, name="blocks", device="cpu")
