"""When a rank of a training run is killed, the others end with an error that names it, and nothing is left behind.

    python3 -B tests/torch/abort_on_kill.py [--ranks 3] [--victim 1] [--limit 60]

needs PyTorch with CUDA, one GPU (all ranks share it) and build/lib/libnccl.so.2 (or LIBCOMM_NCCL=path). All ranks train
by DistributedDataParallel; when each has made a few steps, one is killed by SIGKILL. Within --limit seconds the others
must have ended, none with status 0, and each must have written that this rank died; /dev/shm must have no new name then.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time

import world

_NAME = "abort_on_kill"
_STEPS_BEFORE = 10
_START_LIMIT = 150  # seconds until all train; only a run that hangs comes near


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--victim", type=int, default=1, help="the rank that is killed (1)")
    parser.add_argument("--limit", type=float, default=60, help="seconds that the others may take to end (60)")
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _train_for_ever() -> None:
    import torch  # pylint: disable=import-outside-toplevel
    import torch.distributed as dist  # pylint: disable=import-outside-toplevel

    world.need_our_library()
    dist.init_process_group("nccl")
    torch.manual_seed(3)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(1024, 1024), torch.nn.ReLU())]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers).cuda(), device_ids=[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    step = 0
    while True:
        optimizer.zero_grad()
        loss = model(torch.randn(64, 1024, device="cuda")).square().mean()
        loss.backward()
        optimizer.step()
        loss.item()
        step += 1
        if step in (1, _STEPS_BEFORE):
            print(f"made {step} steps", flush=True)


def _all_train(ranks: world.Ranks, count: int) -> bool:
    end = time.monotonic() + _START_LIMIT
    while time.monotonic() < end and all(process.poll() is None for process in ranks.processes):
        if all(f"made {_STEPS_BEFORE} steps" in ranks.output(rank) for rank in range(count)):
            return True
        time.sleep(0.1)
    return False


def _kill_one(options: argparse.Namespace) -> int:
    world.need_gpu()
    verdicts = world.Verdicts(_NAME)
    with world.Ranks(__file__, options.ranks, []) as ranks:
        if not _all_train(ranks, options.ranks):
            complaints = ranks.complaints([r for r, p in enumerate(ranks.processes) if p.poll() is None])
            verdicts.add("all ranks train", "; ".join(complaints))
            return verdicts.end()
        verdicts.add("all ranks train", None)
        killed = time.monotonic()
        os.kill(ranks.processes[options.victim].pid, signal.SIGKILL)
        others = [rank for rank in range(options.ranks) if rank != options.victim]
        late = ranks.wait(options.limit, others)
        seconds = time.monotonic() - killed
        verdicts.add(f"the others end within {options.limit:.0f} s",
                     "; ".join(c for c in ranks.complaints(late) if "not ended" in c) or None,
                     f"after {seconds:.1f} s")
        for rank in others:
            status = ranks.processes[rank].poll()
            verdicts.add(f"rank {rank} ends with an error", f"its status is {status}" if status in (None, 0) else None,
                         f"status {status}")
            died = re.search(rf"^.*\brank {options.victim}\b.* died\b.*$", ranks.output(rank), re.MULTILINE)
            verdicts.add(f"rank {rank} says that rank {options.victim} died",
                         None if died else f"it says: {' / '.join(ranks.output(rank).strip().splitlines()[-4:])}",
                         died.group(0).strip()[:200] if died else "")
        left = ranks.left_in_shm()
        verdicts.add("nothing is left in /dev/shm", f"there is {', '.join(left)}" if left else None)
    return verdicts.end()


def main() -> int:
    options = _options()
    if options.as_rank:
        _train_for_ever()
        return 0
    try:
        return _kill_one(options)
    except world.NotHere as reason:
        return world.skipped(_NAME, reason)


if __name__ == "__main__":
    sys.exit(main())
