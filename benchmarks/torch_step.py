"""One training step of MART in PyTorch, written from the paper's formulas.

    python benchmarks/torch_step.py --network=resnet18 --batch_size=128

As fast as PyTorch makes it: channels last, bfloat16 autocast, TF32 products,
and torch.compile of the network. PGD-10 in inference mode, then the loss of
equation 9 (lambda 5) and SGD with momentum. `versus_pytorch.py` compares.
"""

import contextlib
import sys
import time

from absl import app
from absl import flags
import torch
from torch import nn
from torch.nn import functional as F

_EPSILON, _STEPS, _LAMBDA = 8 / 255, 10, 5.0


class Basic(nn.Module):
    """ResNet's basic block: two convolutions, each batch-normalized."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.short = nn.Identity()
        if stride != 1 or before != after:
            self.short = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False),
                nn.BatchNorm2d(after),
            )

    def forward(self, x):
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


class Wide(nn.Module):
    """A wide ResNet's block: activation before each convolution."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.first_norm = nn.BatchNorm2d(before)
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.short = None
        if before != after:
            self.short = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.first_norm(x))
        y = self.second(F.relu(self.second_norm(self.first(active))))
        return y + (x if self.short is None else self.short(active))


def small_cnn():
    """The MNIST network of TRADES and MART."""
    parts, before = [], 1
    for after in (32, 64):
        for _ in range(2):
            parts += [nn.Conv2d(before, after, 3), nn.ReLU()]
            before = after
        parts.append(nn.MaxPool2d(2))
    parts += [nn.Flatten(), nn.Linear(1024, 200), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(
        *parts, nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )


def resnet18():
    """ResNet-18 with a 3x3 stem, for 32x32 images."""
    parts = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
    parts.append(nn.ReLU())
    width = 64
    for stage, after in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            parts.append(Basic(width, after, stride))
            width = after
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*parts)


def wide_resnet(depth=34, factor=10):
    """WRN-34-10."""
    parts, width = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)], 16
    for stage, base in enumerate((16, 32, 64)):
        for block in range((depth - 4) // 6):
            stride = 2 if stage and not block else 1
            parts.append(Wide(width, base * factor, stride))
            width = base * factor
    parts += [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(width, 10))


def mart_step(network, optimizer, cast, x, y):
    """One step; returns the loss."""
    network.eval()
    adversarial = x + torch.empty_like(x).uniform_(-_EPSILON, _EPSILON)
    adversarial = adversarial.clamp_(0, 1)
    for _ in range(_STEPS):
        adversarial.requires_grad_(True)
        with cast():
            logits = network(adversarial).float()
        loss = F.cross_entropy(logits, y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + _EPSILON / 4 * gradient.sign()
        adversarial = torch.clamp(moved, x - _EPSILON, x + _EPSILON)
        adversarial = adversarial.clamp_(0, 1)
    network.train()
    with cast():
        natural = network(x).float()
        attacked = network(adversarial).float()
    p, q = F.softmax(attacked, 1), F.softmax(natural, 1)
    others = p.masked_fill(F.one_hot(y, 10).bool(), 0.0).amax(1)
    boosted = F.cross_entropy(attacked, y, reduction="none")
    boosted = boosted - torch.log(1.0001 - others + 1e-12)
    kl = (q * (torch.log(q + 1e-12) - torch.log(p + 1e-12))).sum(1)
    weight = 1.0 - q.gather(1, y[:, None])[:, 0]
    loss = (boosted + _LAMBDA * weight * kl).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss


_NETWORKS = {
    "small_cnn": (small_cnn, (1, 28, 28)),
    "resnet18": (resnet18, (3, 32, 32)),
    "wide_resnet": (wide_resnet, (3, 32, 32)),
}


def prepared(network, size, compiled, precision="bfloat16", channels_last=True):
    """A function from a number of steps to the seconds that each takes.

    Args:
        network: A name of `_NETWORKS`.
        size: Images a step.
        compiled: Whether torch.compile is used.
        precision: "bfloat16", by autocast, or "float32".
        channels_last: How images and weights lie in memory.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    build, shape = _NETWORKS[network]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = build().to(device, memory_format=layout)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.9, weight_decay=2e-4
    )
    called = torch.compile(model) if compiled else model

    def cast():
        if precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device, torch.bfloat16)

    x = torch.rand(size, *shape, device=device).to(memory_format=layout)
    y = torch.randint(0, 10, (size,), device=device)

    def run(steps):
        begun = time.perf_counter()
        for _ in range(steps):
            loss = mart_step(called, optimizer, cast, x, y)
        loss.item()
        return (time.perf_counter() - begun) / steps

    return run


def measure(network, size, compiled, seconds, alone=contextlib.nullcontext):
    """Images a second, and seconds until the first step is over."""
    started = time.perf_counter()
    run = prepared(network, size, compiled)
    run(1)
    first = time.perf_counter() - started
    with alone():
        run(2)
        one, rounds = run(2), []
        while sum(r * n for r, n in rounds) < seconds or len(rounds) < 3:
            count = max(1, int(seconds / 5 / one))
            rounds.append((run(count), count))
    median = sorted(r for r, _ in rounds)[len(rounds) // 2]
    return {"images_per_second": size / median, "first_seconds": first}


def main(_):
    """Prints what one network does."""
    options = flags.FLAGS
    if not options.serve:
        print(
            measure(
                options.network,
                options.batch_size,
                options.compile,
                options.seconds,
            )
        )
        return
    run = prepared(
        options.network,
        options.batch_size,
        options.compile,
        options.precision,
        options.channels_last,
    )
    run(1)
    one = run(2)
    print("ready", flush=True)
    for _ in sys.stdin:
        rate = options.batch_size / run(max(2, int(options.seconds / one)))
        print(f"rate {rate}", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string(
        "network", "resnet18", "small_cnn, resnet18 or wide_resnet."
    )
    flags.DEFINE_integer("batch_size", 128, "Images a step.")
    flags.DEFINE_bool("compile", True, "Whether torch.compile is used.")
    flags.DEFINE_float("seconds", 5, "Least length of a measurement.")
    flags.DEFINE_bool(
        "serve", False, "Measures once for each line of the standard input."
    )
    flags.DEFINE_string("precision", "bfloat16", "Of --serve: or float32.")
    flags.DEFINE_bool("channels_last", True, "Of --serve: else first.")
    app.run(main)
