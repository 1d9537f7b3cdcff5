"""One training step of the minLM reference in PyTorch, timed: what docs/performance.md compares with.

python3 docs/peer_minlm.py THREADS
"""

import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

DIM, DEPTH, BATCH, TIME, VOCABULARY, EXPANSION = 256, 4, 8, 256, 65, 1.5


class MinGru(nn.Module):
    """The parallel form in log space (Heinsen 2023), as the reference computes it."""

    def __init__(self):
        super().__init__()
        inner = int(DIM * EXPANSION)
        self.to_hidden_and_gate = nn.Linear(DIM, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, DIM, bias=False)

    def forward(self, x):
        hidden, gate = self.to_hidden_and_gate(x).chunk(2, dim=-1)
        log_g = torch.where(hidden >= 0, (F.relu(hidden) + 0.5).log(), -F.softplus(-hidden))
        decay = (-F.softplus(gate)).cumsum(dim=1)
        states = (decay + (-F.softplus(-gate) + log_g - decay).logcumsumexp(dim=1)).exp()
        return self.to_out(states)


class MinLm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.RMSNorm(DIM),
                    MinGru(),
                    nn.RMSNorm(DIM),
                    nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM)),
                ]
            )
            for _ in range(DEPTH)
        )
        self.norm = nn.RMSNorm(DIM)
        self.to_logits = nn.Linear(DIM, VOCABULARY, bias=False)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for mixer_norm, mixer, feed_norm, feed in self.layers:
            x = x + mixer(mixer_norm(x))
            x = x + feed(feed_norm(x))
        return F.cross_entropy(self.to_logits(self.norm(x)).flatten(0, 1), targets.flatten())


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(threads)
    model = MinLm()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    tokens, targets = torch.randint(VOCABULARY, (2, BATCH, TIME))
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(tokens, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[2:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"PyTorch {torch.__version__}, {threads} threads: {median * 1e3:.0f} ms a step, "
        f"{BATCH * TIME / median:.0f} tokens/s, peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
