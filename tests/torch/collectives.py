"""Every call of torch.distributed on our libnccl.so.2, compared with plain arithmetic on the CPU.

    python3 -B tests/torch/collectives.py [--ranks 4] [--suites reductions,moves] [--list]

needs PyTorch with CUDA, one GPU (all ranks share it) and build/lib/libnccl.so.2 (or LIBCOMM_NCCL=path). The checks are in
checks.py, in suites; each suite is one start of all ranks, so that one that hangs or dies takes no other with it. After
each check all ranks tell each other over Gloo what they found, so a check is PASS only if all say so. SKIP is what
PyTorch itself refuses on this backend, with its words.

--rehearse runs the checks on the CPU by Gloo: a check of these scripts on a machine without a GPU, not of the library.
There a call that Gloo does not have is SKIP too.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

import world

_NAME = "collectives"
_LIMIT = 180  # seconds for one suite; only one that hangs comes near
_ENVIRONMENTS = {
    "deadline": {"TORCH_NCCL_BLOCKING_WAIT": "1"},
    "eager": {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"},  # what aborting by hand wants
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, choices=(4, 8), default=4)
    parser.add_argument("--suites", default="", help="some of them, separated by commas (all)")
    parser.add_argument("--list", action="store_true", help="name the suites and their checks")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU by Gloo, without the library")
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- A rank


class _Findings:
    """What all ranks found, agreed on over Gloo and told to the parent after each check."""

    def __init__(self):
        self._told = []
        self._world = None
        self._control = None

    def prepare(self) -> None:
        """Makes the group of its own, anew when the default group is another. Called on all ranks."""
        import torch.distributed as dist  # pylint: disable=import-outside-toplevel

        if self._world is not dist.group.WORLD:
            self._world = dist.group.WORLD
            self._control = dist.new_group(backend="gloo")

    def add(self, check: str, verdict: str, text: str) -> None:
        import torch.distributed as dist  # pylint: disable=import-outside-toplevel

        everyone = [None] * dist.get_world_size(self._control)
        dist.all_gather_object(everyone, (verdict, text), group=self._control)
        for worst in ("FAIL", "SKIP", "PASS"):
            texts = [f"rank {rank}: {said}" if worst == "FAIL" else said
                     for rank, (verdict, said) in enumerate(everyone) if verdict == worst]
            if texts:
                break
        self._told.append([check, worst, texts[0]])
        world.tell(self._told)


def _run_suite(options: argparse.Namespace) -> None:
    import torch  # pylint: disable=import-outside-toplevel
    import torch.distributed as dist  # pylint: disable=import-outside-toplevel

    import checks  # pylint: disable=import-outside-toplevel

    device = torch.device("cpu" if options.rehearse else "cuda:0")
    if not options.rehearse:
        world.need_our_library()
    eager = {"device_id": device} if options.suites == "eager" and not options.rehearse else {}
    dist.init_process_group("gloo" if options.rehearse else "nccl", **eager)
    scene = checks.Scene(device)
    findings = _Findings()
    findings.prepare()
    for name, check in checks.suites()[options.suites]:
        print(f"checking {name}", flush=True)
        verdict, text = "PASS", ""
        try:
            check(scene)
        except checks.Refused as reason:
            verdict, text = "SKIP", str(reason)
        except checks.Wrong as reason:
            verdict, text = "FAIL", str(reason)
        except Exception as error:  # pylint: disable=broad-except
            traceback.print_exc()
            verdict = "SKIP" if options.rehearse else "FAIL"
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        findings.prepare()
        findings.add(name, verdict, text)
    if options.suites in ("deadline", "eager"):
        os._exit(0)  # the communicators are gone: nothing to end in order
    dist.destroy_process_group()


# ---- The parent


def _suites(options: argparse.Namespace) -> list[str]:
    known = list(_names())
    chosen = [word for word in options.suites.split(",") if word] or known
    for name in chosen:
        if name not in known:
            raise world.NotHere(f"no suite {name}; there are {', '.join(known)}")
    return chosen


def _names() -> dict[str, list[str]]:
    """The suites and their checks. Imports torch, which does not touch the GPU."""
    try:
        import checks  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        raise world.NotHere(f"no PyTorch here: {error}") from error
    return {suite: [name for name, _ in parts] for suite, parts in checks.suites().items()}


def _check_suite(options: argparse.Namespace, suite: str, expected: list[str], verdicts: world.Verdicts) -> None:
    arguments = ["--suites", suite] + ["--rehearse"] * options.rehearse
    with world.Ranks(__file__, options.ranks, arguments, _ENVIRONMENTS.get(suite), options.rehearse) as ranks:
        late = ranks.wait(_LIMIT)
        complaints = ranks.complaints(late)
        told = ranks.result(0) or []
        for check, verdict, text in told:
            if verdict == "SKIP":
                verdicts.skip(check, text)
            else:
                verdicts.add(check, text if verdict == "FAIL" else None)
        for check in expected[len(told):][:1]:
            verdicts.add(check, "not done: " + ("; ".join(complaints) or "the ranks ended before it"))
        for check in expected[len(told) + 1:]:
            verdicts.add(check, "not done, see above")
        if complaints and len(told) == len(expected):
            verdicts.add(f"the ranks of {suite} end", "; ".join(complaints))
        if not options.rehearse:
            verdicts.add(f"the library answered in {suite}",
                         None if world.said_its_name(ranks.output(0)) else "no line of it with its version")
            left = ranks.left_in_shm() if not late else []
            verdicts.add(f"{suite} left nothing in /dev/shm", f"there is {', '.join(left)}" if left else None)


def main() -> int:
    options = _options()
    if options.as_rank:
        _run_suite(options)
        return 0
    try:
        names = _names()
        if options.list:
            for suite, checks in names.items():
                print(f"{suite}: {'; '.join(checks)}")
            return 0
        chosen = _suites(options)
        if not options.rehearse:
            world.need_gpu()
    except world.NotHere as reason:
        return world.skipped(_NAME, reason)
    verdicts = world.Verdicts(_NAME)
    for suite in chosen:
        _check_suite(options, suite, names[suite], verdicts)
    return verdicts.end()


if __name__ == "__main__":
    sys.exit(main())
