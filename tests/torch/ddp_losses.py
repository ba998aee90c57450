"""Training by DistributedDataParallel on our libnccl.so.2 gives the losses of a single process.

    python3 -B tests/torch/ddp_losses.py [--ranks 2,4] [--steps 30]

needs PyTorch with CUDA, one GPU (all ranks share it) and build/lib/libnccl.so.2 (or LIBCOMM_NCCL=path). A small
transformer is trained from the same seed on the same global batches: by one process, and by 2 and 4 ranks that have a
part of each batch. Arithmetic is fp32 (no TF32) with PyTorch's deterministic algorithms, so what remains is the order of
sums: the losses must agree within --tolerance, those of the first step, before any gradient was summed, within 2e-6.
A run on the first rank's part alone must differ by more than ten times the tolerance, or the comparison would not notice
missing gradients. All ranks must end with the same parameters, bit by bit.

--rehearse trains on the CPU by Gloo instead: a check of this script on a machine without a GPU, not of the library.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys

import world

_NAME = "ddp_losses"
_BATCH, _LENGTH, _VOCABULARY, _WIDTH, _HEADS, _LAYERS = 16, 64, 256, 128, 4, 2
_FIRST_TOLERANCE = 2e-6
_LIMIT = 150  # seconds for one run; only one that hangs comes near


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4", help="world sizes, each a divisor of 16 (2,4)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative (1e-4)")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU by Gloo, without the library")
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- A rank


def _model(torch):
    class Attention(torch.nn.Module):
        """Written out: the fused kernels have no deterministic backward pass everywhere."""

        def __init__(self):
            super().__init__()
            self.inputs = torch.nn.Linear(_WIDTH, 3 * _WIDTH)
            self.output = torch.nn.Linear(_WIDTH, _WIDTH)

        def forward(self, x):
            batch, length, _ = x.shape
            query, key, value = self.inputs(x).view(batch, length, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
            scores = query @ key.transpose(-1, -2) / (_WIDTH // _HEADS) ** 0.5
            later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            weights = scores.masked_fill(later, float("-inf")).softmax(-1)
            return self.output((weights @ value).transpose(1, 2).reshape(batch, length, _WIDTH))

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(_WIDTH) for _ in range(2))
            self.attention = Attention()
            self.mlp = torch.nn.Sequential(
                torch.nn.Linear(_WIDTH, 4 * _WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * _WIDTH, _WIDTH))

        def forward(self, x):
            x = x + self.attention(self.norms[0](x))
            return x + self.mlp(self.norms[1](x))

    class Transformer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = torch.nn.Embedding(_VOCABULARY, _WIDTH)
            self.positions = torch.nn.Parameter(0.02 * torch.randn(_LENGTH, _WIDTH))
            self.blocks = torch.nn.Sequential(*(Block() for _ in range(_LAYERS)))
            self.norm = torch.nn.LayerNorm(_WIDTH)
            self.logits = torch.nn.Linear(_WIDTH, _VOCABULARY)

        def forward(self, tokens):
            return self.logits(self.norm(self.blocks(self.tokens(tokens) + self.positions)))

    return Transformer()


def _global_batch(torch, step: int):
    """Sequences in which each token follows from the one before it, from random first tokens."""
    source = torch.Generator().manual_seed(1000 + step)
    tokens = [torch.randint(_VOCABULARY, (_BATCH,), generator=source)]
    for _ in range(_LENGTH):
        tokens.append((tokens[-1] * 5 + 17) % _VOCABULARY)
    return torch.stack(tokens, dim=1)


def _train(options: argparse.Namespace) -> None:
    import torch  # pylint: disable=import-outside-toplevel
    import torch.distributed as dist  # pylint: disable=import-outside-toplevel

    device = torch.device("cpu" if options.rehearse else "cuda:0")
    if not options.rehearse:
        world.need_our_library()
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if count > 1:
        dist.init_process_group("gloo" if options.rehearse else "nccl")
    # Of every rank its own: DDP makes them rank 0's.
    torch.manual_seed(7 + rank)
    model = _model(torch).to(device)
    if count > 1:
        # Small buckets, so that several all-reduces overlap with the backward pass.
        model = torch.nn.parallel.DistributedDataParallel(
            model, device_ids=None if options.rehearse else [0], bucket_cap_mb=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    own = _BATCH // count // options.part
    losses = []
    for step in range(options.steps):
        batch = _global_batch(torch, step)[rank * own:(rank + 1) * own].to(device)
        loss = torch.nn.functional.cross_entropy(
            model(batch[:, :-1]).reshape(-1, _VOCABULARY), batch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    parameters = hashlib.sha256()
    for parameter in model.parameters():
        parameters.update(parameter.detach().cpu().numpy().tobytes())
    world.tell({"losses": losses, "parameters": parameters.hexdigest()})
    if count > 1:
        dist.destroy_process_group()


# ---- The comparison


def _run(options: argparse.Namespace, count: int, part: int = 1) -> tuple[dict | None, str]:
    """The losses of the global batches and the hashes of the parameters, or why there are none."""
    arguments = ["--steps", str(options.steps), "--part", str(part)] + ["--rehearse"] * options.rehearse
    with world.Ranks(__file__, count, arguments, rehearsal=options.rehearse) as ranks:
        complaints = ranks.complaints(ranks.wait(_LIMIT))
        if complaints:
            return None, "; ".join(complaints)
        results = [ranks.result(rank) for rank in range(count)]
        if not options.rehearse and count > 1 and not world.said_its_name(ranks.output(0)):
            return None, "rank 0's output has no line of the library with its version"
    losses = [sum(each) / count for each in zip(*(result["losses"] for result in results))]
    return {"losses": losses, "parameters": [result["parameters"] for result in results]}, ""


def _difference(losses: list[float], reference: list[float]) -> float:
    """The greatest relative one; NaN counts as infinite."""
    worst = 0.0
    for loss, wanted in zip(losses, reference):
        difference = abs(loss - wanted) / abs(wanted)
        worst = max(worst, difference if difference == difference else float("inf"))  # NaN is not itself
    return worst


def _compare(options: argparse.Namespace) -> int:
    if not options.rehearse:
        world.need_gpu()
    verdicts = world.Verdicts(_NAME)
    single, why = _run(options, 1)
    again, why_again = _run(options, 1)
    if single is None or again is None:
        verdicts.add("a single process trains", why or why_again)
        return verdicts.end()
    reference = single["losses"]
    verdicts.add("a single process trains", None if reference[-1] < 0.9 * reference[0] else "its loss does not fall",
                 f"loss {reference[0]:.6f} to {reference[-1]:.6f} in {options.steps} steps")
    verdicts.add("a single process repeats itself",
                 None if single == again else "two runs differ, so no comparison means anything")
    for count in (int(word) for word in options.ranks.split(",")):
        result, why = _run(options, count)
        if result is None:
            verdicts.add(f"{count} ranks train", why)
            continue
        first = _difference(result["losses"][:1], reference[:1])
        worst = _difference(result["losses"], reference)
        step = next((i for i, pair in enumerate(zip(result["losses"], reference))
                     if _difference(*([loss] for loss in pair)) > options.tolerance), None)
        complaint = None
        if first > _FIRST_TOLERANCE:
            complaint = f"the first loss differs by {first:.1e}: {result['losses'][0]!r}, not {reference[0]!r}"
        elif step is not None:
            complaint = (f"the loss of step {step} is {result['losses'][step]!r} and of a single process "
                         f"{reference[step]!r}: more than {options.tolerance:.0e} apart")
        verdicts.add(f"{count} ranks have the losses of a single process", complaint,
                     f"greatest relative difference {worst:.1e}")
        verdicts.add(f"{count} ranks have the same parameters",
                     None if len(set(result["parameters"])) == 1 else "they differ between ranks")
    part, why = _run(options, 1, part=2)
    if part is None:
        verdicts.add("half of each batch can be told from the whole", why)
    else:
        worst = _difference(part["losses"], reference)
        verdicts.add("half of each batch can be told from the whole",
                     None if worst > 10 * options.tolerance else f"its losses differ by {worst:.1e} only",
                     f"greatest relative difference {worst:.1e}")
    return verdicts.end()


def main() -> int:
    options = _options()
    if options.as_rank:
        _train(options)
        return 0
    try:
        return _compare(options)
    except world.NotHere as reason:
        return world.skipped(_NAME, reason)


if __name__ == "__main__":
    sys.exit(main())
