"""What each call of torch.distributed must do, as checks that every rank runs at the same time (collectives.py).

A check is a function of a Scene. It raises Wrong for a wrong result and Refused for what PyTorch itself does not let a
program do on this backend. Results are compared with what plain tensor arithmetic on the CPU gives: values are chosen so
that every sum is exact in its type. Data that is only moved is random bytes, compared byte by byte.
"""

from __future__ import annotations

import datetime
import os
import re
import time

import torch
import torch.distributed as dist

_SIZES = (1, 1000, 262147)
_TYPES = [getattr(torch, name) for name in
          ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool", "float8_e4m3fn",
           "float8_e5m2") if hasattr(torch, name)]
_UNSIGNED = (torch.uint8, torch.bool)
# How PyTorch says no, as opposed to the library.
_REFUSAL = re.compile(r"not support|not curren\w+ support|Cannot use|must be half|Unconvertible|only support|no support")


class Wrong(Exception):
    """A result is not what it must be."""


class Refused(Exception):
    """PyTorch does not do this here."""


class Scene:
    """A rank: its number, the number of all, and its device."""

    def __init__(self, device: torch.device):
        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device

    @property
    def ranks(self) -> range:
        return range(self.count)

    def need_cuda(self) -> None:
        if self.device.type != "cuda":
            raise Refused("has no meaning without a GPU")

    def on(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the device."""
        return tensor.to(self.device, copy=True)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Holds what no result holds."""
        made = torch.empty(shape, dtype=torch.float32).fill_(77).to(dtype)
        return self.on(made)


def same(got: torch.Tensor, wanted: torch.Tensor, what: str = "") -> None:
    """Both have the same bytes."""
    got = got.detach().cpu().contiguous()
    wanted = wanted.detach().cpu().contiguous()
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        raise Wrong(f"{what}: {tuple(got.shape)} of {got.dtype}, not {tuple(wanted.shape)} of {wanted.dtype}")
    differ = (got.reshape(-1).view(torch.uint8) != wanted.reshape(-1).view(torch.uint8)).nonzero()
    if len(differ) > 0:
        first = int(differ[0]) // got.element_size()
        raise Wrong(f"{what}: {len(differ)} bytes are wrong; element {first} is {got.reshape(-1)[first].item()}, not "
                    f"{wanted.reshape(-1)[first].item()}")


def refusable(call, *arguments, **keywords):
    """The call's result. Raises Refused where PyTorch does not know the call or refuses the arguments."""
    try:
        return call(*arguments, **keywords)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        if _REFUSAL.search(str(error)) and "NCCL error" not in str(error):
            raise Refused(str(error).splitlines()[0][:150]) from error
        raise


def known(module, name: str):
    """A function that not every version of PyTorch has."""
    if not hasattr(module, name):
        raise Refused(f"PyTorch {torch.__version__} has no {name}")
    return getattr(module, name)


# ---- Data


def values(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Small integers, as int64, whose sum, product and average over 4 ranks the type has; a float is never 0, so that
    no result is -0."""
    i = torch.arange(count)
    i = i * 7 + rank * 3 + i // 13
    if dtype.is_floating_point:
        return torch.tensor([-1, 1, 2])[(i + rank) % 3]
    if dtype in _UNSIGNED:
        return i % (2 if dtype == torch.bool else 3)
    return i % 5 - 2


def bits(seed: int, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random bytes, NaNs and all."""
    source = torch.Generator().manual_seed(seed * 1000 + count)
    if dtype == torch.bool:
        return torch.randint(2, (count,), generator=source).to(torch.bool)
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(256, (count * size,), generator=source, dtype=torch.uint8).view(dtype)


def reduced(inputs: list[torch.Tensor], op: str, dtype: torch.dtype) -> torch.Tensor:
    stacked = torch.stack(inputs)
    if op == "SUM":
        # PyTorch takes the sum of truth values for their maximum.
        result = stacked.amax(0) if dtype == torch.bool else stacked.sum(0)
    elif op == "AVG":
        result = stacked.sum(0).double() / len(inputs)
    else:
        result = {"PRODUCT": torch.prod, "MIN": torch.amin, "MAX": torch.amax}[op](stacked, 0)
    return result.to(dtype)


def _op(name: str):
    return known(dist.ReduceOp, name)


# ---- Reductions


def _all_reduce(dtype: torch.dtype, op: str):
    def check(scene: Scene) -> None:
        if dtype == torch.bool and op == "AVG":
            raise Refused("an average of truth values")
        for count in _SIZES:
            # Averages of integers that have no remainder.
            scale = scene.count if op == "AVG" and not dtype.is_floating_point else 1
            inputs = [values(rank, count, dtype) * scale for rank in scene.ranks]
            data = scene.on(inputs[scene.rank].to(dtype))
            refusable(dist.all_reduce, data, op=_op(op))
            same(data, reduced(inputs, op, dtype), f"{count} elements")
    return check


def _premultiplied(dtype: torch.dtype, tensor_factor: bool):
    def check(scene: Scene) -> None:
        scene.need_cuda()
        for count in _SIZES:
            factors = [0.5 if rank % 2 == 0 else 2.0 for rank in scene.ranks]
            factor = factors[scene.rank]
            if tensor_factor:
                factor = torch.tensor([factor], dtype=dtype, device=scene.device)
            op = refusable(known(dist, "_make_nccl_premul_sum"), factor)
            data = scene.on(values(scene.rank, count, dtype).to(dtype))
            refusable(dist.all_reduce, data, op=op)
            wanted = sum(values(rank, count, dtype).double() * factors[rank] for rank in scene.ranks)
            same(data, wanted.to(dtype), f"{count} elements")
    return check


def all_reduce_complex(scene: Scene) -> None:
    parts = [[values(rank + shift, 1000, torch.float32).float() for rank in scene.ranks] for shift in (0, 1)]
    data = scene.on(torch.complex(parts[0][scene.rank], parts[1][scene.rank]))
    refusable(dist.all_reduce, data)
    wanted = torch.complex(*(torch.stack(part).sum(0) for part in parts))
    same(torch.view_as_real(data), torch.view_as_real(wanted))


def all_reduce_large(scene: Scene) -> None:
    count = (16 << 20) + 5
    data = scene.on(values(scene.rank, count, torch.float32).float())
    dist.all_reduce(data)
    same(data, reduced([values(rank, count, torch.float32) for rank in scene.ranks], "SUM", torch.float32))


def all_reduce_part_of_a_tensor(scene: Scene) -> None:
    whole = scene.empty(3000)
    whole[1001:2001] = scene.on(values(scene.rank, 1000, torch.float32).float())
    dist.all_reduce(whole[1001:2001])
    wanted = torch.full((3000,), 77.0)
    wanted[1001:2001] = reduced([values(rank, 1000, torch.float32) for rank in scene.ranks], "SUM", torch.float32)
    same(whole, wanted)


def _reduce(dtype: torch.dtype):
    def check(scene: Scene) -> None:
        if dtype == torch.bfloat16:
            scene.need_cuda()  # Gloo says no to some ranks only
        for root in scene.ranks:
            inputs = [values(rank, 1000, dtype) for rank in scene.ranks]
            data = scene.on(inputs[scene.rank].to(dtype))
            dist.reduce(data, dst=root)
            if scene.rank == root:
                same(data, reduced(inputs, "SUM", dtype), f"to {root}")
    return check


def _reduce_scatter(dtype: torch.dtype, op: str):
    def check(scene: Scene) -> None:
        for count in _SIZES:
            scale = scene.count if op == "AVG" and not dtype.is_floating_point else 1
            inputs = [values(rank, count * scene.count, dtype) * scale for rank in scene.ranks]
            data = scene.on(inputs[scene.rank].to(dtype))
            mine = slice(scene.rank * count, (scene.rank + 1) * count)
            wanted = reduced(inputs, op, dtype)[mine]
            result = scene.empty(count, dtype=dtype)
            refusable(known(dist, "reduce_scatter_tensor"), result, data, op=_op(op))
            same(result, wanted, f"tensor, {count} elements")
            result = scene.empty(count, dtype=dtype)
            refusable(dist.reduce_scatter, result, list(data.chunk(scene.count)), op=_op(op))
            same(result, wanted, f"list, {count} elements")
    return check


def reduce_scatter_uneven(scene: Scene) -> None:
    counts = [100 * rank + 1 for rank in scene.ranks]
    inputs = [values(rank, sum(counts), torch.float32) for rank in scene.ranks]
    data = scene.on(inputs[scene.rank].float())
    result = scene.empty(counts[scene.rank])
    refusable(dist.reduce_scatter, result, list(data.split(counts)))
    same(result, reduced(inputs, "SUM", torch.float32).split(counts)[scene.rank])


# ---- Data that moves


def _broadcast(dtype: torch.dtype):
    def check(scene: Scene) -> None:
        for root in scene.ranks:
            for count in _SIZES:
                data = scene.on(bits(scene.rank, count, dtype))
                refusable(dist.broadcast, data, src=root)
                same(data, bits(root, count, dtype), f"{count} elements from {root}")
    return check


def _all_gather(dtype: torch.dtype):
    def check(scene: Scene) -> None:
        for count in _SIZES:
            data = scene.on(bits(scene.rank, count, dtype))
            wanted = [bits(rank, count, dtype) for rank in scene.ranks]
            results = [scene.empty(count, dtype=dtype) for _ in scene.ranks]
            refusable(dist.all_gather, results, data)
            for rank in scene.ranks:
                same(results[rank], wanted[rank], f"list, {count} elements of {rank}")
            result = scene.empty(scene.count * count, dtype=dtype)
            refusable(known(dist, "all_gather_into_tensor"), result, data)
            for rank in scene.ranks:
                same(result[rank * count:(rank + 1) * count], wanted[rank], f"tensor, {count} elements of {rank}")
    return check


def all_gather_in_place(scene: Scene) -> None:
    result = scene.empty(scene.count * 1000)
    own = result[scene.rank * 1000:(scene.rank + 1) * 1000]
    own.copy_(bits(scene.rank, 1000))
    known(dist, "all_gather_into_tensor")(result, own)
    for rank in scene.ranks:
        same(result[rank * 1000:(rank + 1) * 1000], bits(rank, 1000), f"of {rank}")


def all_gather_uneven(scene: Scene) -> None:
    counts = [1000 * rank + 1 for rank in scene.ranks]
    results = [scene.empty(count) for count in counts]
    refusable(dist.all_gather, results, scene.on(bits(scene.rank, counts[scene.rank])))
    for rank, result in enumerate(results):
        same(result, bits(rank, counts[rank]), f"of {rank}")


def gather(scene: Scene) -> None:
    for root in scene.ranks:
        results = [scene.empty(1000) for _ in scene.ranks] if scene.rank == root else None
        refusable(dist.gather, scene.on(bits(scene.rank, 1000)), results, dst=root)
        for rank, result in enumerate(results or []):
            same(result, bits(rank, 1000), f"of {rank} at {root}")


def scatter(scene: Scene) -> None:
    for root in scene.ranks:
        parts = [scene.on(bits(root * 100 + rank, 1000)) for rank in scene.ranks] if scene.rank == root else None
        result = scene.empty(1000)
        refusable(dist.scatter, result, parts, src=root)
        same(result, bits(root * 100 + scene.rank, 1000), f"from {root}")


def _between(sender: int, receiver: int, count: int) -> torch.Tensor:
    return bits(sender * 100 + receiver, count)


def all_to_all(scene: Scene) -> None:
    counts = [[(sender + 2 * receiver) * 300 + 1 for receiver in scene.ranks] for sender in scene.ranks]
    parts = [scene.on(_between(scene.rank, to, counts[scene.rank][to])) for to in scene.ranks]
    results = [scene.empty(counts[sender][scene.rank]) for sender in scene.ranks]
    refusable(dist.all_to_all, results, parts)
    for sender, result in enumerate(results):
        same(result, _between(sender, scene.rank, counts[sender][scene.rank]), f"from {sender}")


def all_to_all_single(scene: Scene) -> None:
    for count in _SIZES:
        data = torch.cat([_between(scene.rank, to, count) for to in scene.ranks])
        result = scene.empty(scene.count * count)
        refusable(dist.all_to_all_single, result, scene.on(data))
        same(result, torch.cat([_between(sender, scene.rank, count) for sender in scene.ranks]), f"{count} elements")


def all_to_all_single_uneven(scene: Scene) -> None:
    """Some pairs have nothing to say to each other, and one rank sends to nobody."""
    counts = [[0 if sender == scene.count - 1 or (sender + to) % 3 == 0 else 5000 * to + sender + 1
               for to in scene.ranks] for sender in scene.ranks]
    out_splits, in_splits = [counts[sender][scene.rank] for sender in scene.ranks], counts[scene.rank]
    data = torch.cat([_between(scene.rank, to, in_splits[to]) for to in scene.ranks])
    result = scene.empty(sum(out_splits))
    refusable(dist.all_to_all_single, result, scene.on(data), out_splits, in_splits)
    same(result, torch.cat([_between(sender, scene.rank, out_splits[sender]) for sender in scene.ranks]))


def objects(scene: Scene) -> None:
    mine = {"rank": scene.rank, "text": "x" * (10 ** scene.rank)}
    everyone = [{"rank": rank, "text": "x" * (10 ** rank)} for rank in scene.ranks]
    found = [None] * scene.count
    dist.all_gather_object(found, mine)
    if found != everyone:
        raise Wrong("all_gather_object")
    found = [mine, scene.rank]
    dist.broadcast_object_list(found, src=1)
    if found != [everyone[1], 1]:
        raise Wrong("broadcast_object_list")
    found = [None] * scene.count if scene.rank == 0 else None
    dist.gather_object(mine, found, dst=0)
    if scene.rank == 0 and found != everyone:
        raise Wrong("gather_object")
    found = [None]
    dist.scatter_object_list(found, everyone if scene.rank == 0 else [None] * scene.count, src=0)
    if found != [mine]:
        raise Wrong("scatter_object_list")


# ---- Messages


def _neighbours(scene: Scene) -> tuple[int, int]:
    return (scene.rank - 1) % scene.count, (scene.rank + 1) % scene.count


def send_and_recv(scene: Scene) -> None:
    """Around a ring, even ranks first."""
    before, after = _neighbours(scene)
    for count in (*_SIZES, 2047, 2048, (4 << 20) + 3):
        data, result = scene.on(_between(scene.rank, after, count)), scene.empty(count)
        if scene.rank % 2 == 0:
            dist.send(data, after)
            dist.recv(result, before)
        else:
            dist.recv(result, before)
            dist.send(data, after)
        same(result, _between(before, scene.rank, count), f"{count} elements from {before}")


def isend_and_irecv(scene: Scene) -> None:
    before, after = _neighbours(scene)
    data, result = scene.on(_between(scene.rank, after, 5000)), scene.empty(5000)
    calls = [lambda: dist.isend(data, after), lambda: dist.irecv(result, before)]
    works = [call() for call in (calls if scene.rank % 2 == 0 else reversed(calls))]
    for work in works:
        work.wait()
    same(result, _between(before, scene.rank, 5000), f"from {before}")


def batch_isend_irecv(scene: Scene) -> None:
    """All pairs at once, of different sizes; then both ways round a ring."""
    others = [rank for rank in scene.ranks if rank != scene.rank]
    size = lambda sender, receiver: 1 + 70000 * ((sender + 3 * receiver) % 4)  # noqa: E731
    results = {sender: scene.empty(size(sender, scene.rank)) for sender in others}
    operations = [dist.P2POp(dist.irecv, results[sender], sender) for sender in others]
    operations += [dist.P2POp(dist.isend, scene.on(_between(scene.rank, to, size(scene.rank, to))), to)
                   for to in others]
    for _ in range(2):
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        for sender, result in results.items():
            same(result, _between(sender, scene.rank, size(sender, scene.rank)), f"from {sender}")
    before, after = _neighbours(scene)
    left, right = scene.empty(3000), scene.empty(3000)
    for work in dist.batch_isend_irecv([
            dist.P2POp(dist.isend, scene.on(_between(scene.rank, after, 3000)), after),
            dist.P2POp(dist.irecv, left, before),
            dist.P2POp(dist.isend, scene.on(_between(scene.rank, before, 3000)), before),
            dist.P2POp(dist.irecv, right, after)]):
        work.wait()
    same(left, _between(before, scene.rank, 3000), f"from {before}")
    same(right, _between(after, scene.rank, 3000), f"from {after}")


def object_messages(scene: Scene) -> None:
    send, receive = known(dist, "send_object_list"), known(dist, "recv_object_list")
    if scene.rank == 0:
        send([{"a": 1}, "b" * 5000], dst=1)
    elif scene.rank == 1:
        found = [None, None]
        receive(found, src=0)
        if found != [{"a": 1}, "b" * 5000]:
            raise Wrong("recv_object_list")


# ---- Groups


def _sum_in(scene: Scene, group, members: list[int], count: int = 1000) -> None:
    data = scene.on(values(scene.rank, count, torch.float32).float())
    dist.all_reduce(data, group=group)
    same(data, reduced([values(rank, count, torch.float32) for rank in members], "SUM", torch.float32), f"in {members}")


def overlapping_groups(scene: Scene) -> None:
    lists = [[0, 1], [1, 2], list(scene.ranks)[::2], list(scene.ranks), list(scene.ranks)[1:]]
    groups = [dist.new_group(members) for members in lists]
    for _ in range(3):
        for group, members in zip(groups, lists):
            if scene.rank in members:
                _sum_in(scene, group, members)
    for group, members in zip(groups, lists):
        if scene.rank in members:
            root = members[-1]
            data = scene.on(bits(scene.rank, 500))
            dist.broadcast(data, src=root, group=group)
            same(data, bits(root, 500), f"from {root} in {members}")
    dist.barrier()
    for group, members in zip(groups, lists):
        if scene.rank in members:
            dist.destroy_process_group(group)
    _sum_in(scene, None, list(scene.ranks))


def many_groups(scene: Scene) -> None:
    groups = [dist.new_group(list(scene.ranks)) for _ in range(12)]
    for group in groups:
        _sum_in(scene, group, list(scene.ranks))
    for group in groups:
        dist.destroy_process_group(group)


def group_of_one(scene: Scene) -> None:
    groups = [dist.new_group([rank]) for rank in scene.ranks]
    _sum_in(scene, groups[scene.rank], [scene.rank])


def barriers(scene: Scene) -> None:
    """Nobody leaves a barrier before the last has come."""
    store = known(dist.distributed_c10d, "_get_default_store")()
    for turn in range(3):
        key = f"libcomm-barrier-{turn}"
        if scene.rank == turn % scene.count:
            time.sleep(0.5)
            store.add(key, 1)
        dist.barrier()
        if scene.device.type == "cuda":
            torch.cuda.synchronize()
        if store.add(key, 0) != 1:
            raise Wrong(f"left barrier {turn} before rank {turn % scene.count} had come")
    work = dist.barrier(async_op=True)
    work.wait()


def monitored_barrier(scene: Scene) -> None:
    """Gloo's alone: on this backend PyTorch must say so on every rank."""
    scene.need_cuda()
    try:
        dist.monitored_barrier()
    except (ValueError, RuntimeError) as error:
        raise Refused(str(error).splitlines()[0][:150]) from error


# ---- Streams and graphs


def asynchronous(scene: Scene) -> None:
    tensors = [scene.on(values(scene.rank + i, 10000 + i, torch.float32).float()) for i in range(40)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    for work in reversed(works):
        work.wait()
    for i, tensor in enumerate(tensors):
        same(tensor, reduced([values(rank + i, 10000 + i, torch.float32) for rank in scene.ranks], "SUM",
                             torch.float32), f"number {i}")


def order_of_streams(scene: Scene) -> None:
    """An operation waits for what its stream still has to do, and what follows waits for it."""
    scene.need_cuda()
    data = scene.on(torch.zeros(1 << 20))
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for turn in range(4):
            torch.cuda._sleep(20_000_000 * (1 + (scene.rank + turn) % 2))  # pylint: disable=protected-access
            data.fill_(scene.rank + turn)
            work = dist.all_reduce(data, async_op=True)
            work.wait()  # makes the stream wait, not this thread
            result = data * 2
            data.fill_(-1)
            same(result, torch.full((1 << 20,), 2.0 * sum(rank + turn for rank in scene.ranks)), f"turn {turn}")


def memory_that_comes_and_goes(scene: Scene) -> None:
    scene.need_cuda()
    for turn in range(6):
        data = scene.on(values(scene.rank + turn, (1 << 20) + turn, torch.float32).float())
        dist.all_reduce(data)
        same(data, reduced([values(rank + turn, (1 << 20) + turn, torch.float32) for rank in scene.ranks], "SUM",
                           torch.float32), f"turn {turn}")
        del data
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def coalescing(scene: Scene) -> None:
    """Several calls as one group, of one kind each, as PyTorch wants it."""
    scene.need_cuda()
    manager = known(dist.distributed_c10d, "_coalescing_manager")
    for asynchronously in (False, True):
        tensors = [scene.on(values(scene.rank + i, 1000 * i + 1, torch.float32).float()) for i in range(5)]
        with manager(device=scene.device, async_ops=asynchronously) as handle:
            for tensor in tensors:
                dist.all_reduce(tensor)
        if asynchronously:
            handle.wait()
        for i, tensor in enumerate(tensors):
            same(tensor, reduced([values(rank + i, 1000 * i + 1, torch.float32) for rank in scene.ranks], "SUM",
                                 torch.float32), f"all_reduce {i}")
        counts = [700, 1, 40000]
        results = [scene.empty(scene.count * count) for count in counts]
        inputs = [scene.on(bits(scene.rank, count)) for count in counts]
        with manager(device=scene.device, async_ops=asynchronously) as handle:
            for result, own in zip(results, inputs):
                dist.all_gather_into_tensor(result, own)
        if asynchronously:
            handle.wait()
        for result, count in zip(results, counts):
            same(result, torch.cat([bits(rank, count) for rank in scene.ranks]), f"all_gather of {count}")
        results = [scene.empty(count) for count in counts]
        inputs = [values(scene.rank, scene.count * count, torch.float32).float() for count in counts]
        with manager(device=scene.device, async_ops=asynchronously) as handle:
            for result, own in zip(results, [scene.on(own) for own in inputs]):
                dist.reduce_scatter_tensor(result, own)
        if asynchronously:
            handle.wait()
        for result, count in zip(results, counts):
            wanted = reduced([values(rank, scene.count * count, torch.float32) for rank in scene.ranks], "SUM",
                             torch.float32)
            same(result, wanted[scene.rank * count:(scene.rank + 1) * count], f"reduce_scatter of {count}")


def _warm_up(scene: Scene, body) -> None:
    """As PyTorch's notes on graphs want it: on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            body()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    dist.barrier()


def graph_of_an_all_reduce(scene: Scene) -> None:
    scene.need_cuda()
    data = scene.on(torch.zeros(50000))
    _warm_up(scene, lambda: dist.all_reduce(data))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        dist.all_reduce(data)
    for turn in range(4):
        data.copy_(values(scene.rank + turn, 50000, torch.float32).float())
        graph.replay()
        same(data, reduced([values(rank + turn, 50000, torch.float32) for rank in scene.ranks], "SUM", torch.float32),
             f"replay {turn}")
        _sum_in(scene, None, list(scene.ranks))  # a call between replays
    del graph


def graph_with_memory_of_its_own(scene: Scene) -> None:
    scene.need_cuda()
    count = 30000
    data = scene.on(torch.zeros(scene.count * count))

    def body() -> torch.Tensor:
        part = torch.empty(count, device=scene.device)
        whole = torch.empty(scene.count * count, device=scene.device)
        dist.reduce_scatter_tensor(part, data + 1)
        dist.all_gather_into_tensor(whole, part * 2)
        return whole

    _warm_up(scene, body)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = body()
    for turn in range(3):
        inputs = [values(rank + turn, scene.count * count, torch.float32) for rank in scene.ranks]
        data.copy_(inputs[scene.rank].float())
        graph.replay()
        same(result, (torch.stack(inputs).sum(0) + scene.count).float() * 2, f"replay {turn}")
    del graph


# ---- Communicators that are made at once, split and aborted (the world of device_id)


def split_group(scene: Scene) -> None:
    split = known(dist, "split_group")
    half = scene.count // 2
    parts = [list(scene.ranks)[:half], list(scene.ranks)[half:]]
    group = refusable(split, split_ranks=parts)
    _sum_in(scene, group, parts[scene.rank >= half])
    alone = dist.new_group([0, scene.count - 1])  # the others take part without becoming members
    if scene.rank in (0, scene.count - 1):
        _sum_in(scene, alone, [0, scene.count - 1])
    _sum_in(scene, None, list(scene.ranks))


def abort(scene: Scene) -> None:
    """Ends communicators that still have something to do; the process goes on."""
    scene.need_cuda()
    end = known(dist.distributed_c10d, "_abort_process_group")
    group = dist.new_group(list(scene.ranks))
    _sum_in(scene, group, list(scene.ranks))
    end(group)
    torch.cuda.synchronize()
    same(scene.on(torch.ones(10)) * 2, torch.full((10,), 2.0), "the GPU afterwards")


# ---- A rank that does not come (the world of TORCH_NCCL_BLOCKING_WAIT)


def deadline(scene: Scene) -> None:
    """What waits for it ends with an error, not much later than its group's timeout says."""
    scene.need_cuda()
    group = dist.new_group(list(scene.ranks), timeout=datetime.timedelta(seconds=8))
    data = scene.on(torch.ones(10000))
    for _ in range(3):
        dist.all_reduce(data, group=group)
    if scene.rank == 0:
        return
    start = time.monotonic()
    try:
        dist.all_reduce(data, group=group)
        torch.cuda.synchronize()
    except (RuntimeError, ValueError) as error:
        print(f"after {time.monotonic() - start:.1f} s: {error}", flush=True)
        if time.monotonic() - start > 60:
            raise Wrong(f"the error came after {time.monotonic() - start:.0f} s") from error
        return
    raise Wrong("the call came back without an error although rank 0 had not come")


# ---- Ending and beginning again


def beginning_again(scene: Scene) -> None:
    """The default group is ended and made anew; collectives.py's own is Gloo's and lives on in the store."""
    _sum_in(scene, None, list(scene.ranks))
    dist.destroy_process_group()
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
    dist.init_process_group("nccl" if scene.device.type == "cuda" else "gloo")
    _sum_in(scene, None, list(scene.ranks))


_OPERATORS = ("SUM", "PRODUCT", "MIN", "MAX", "AVG", "BAND", "BOR", "BXOR")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def suites() -> dict[str, list[tuple[str, object]]]:
    """By name: the checks that one start of all ranks makes, in order."""
    reductions = [(f"all_reduce {op} {_name(dtype)}", _all_reduce(dtype, op)) for dtype in _TYPES
                  for op in _OPERATORS if op not in ("BAND", "BOR", "BXOR")]
    reductions += [(f"all_reduce {op} int32", _all_reduce(torch.int32, op)) for op in ("BAND", "BOR", "BXOR")]
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        reductions += [(f"all_reduce PREMUL_SUM {_name(dtype)}, factor on the {'GPU' if tensor else 'host'}",
                        _premultiplied(dtype, tensor)) for tensor in (False, True)]
    reductions += [("all_reduce complex64", all_reduce_complex), ("all_reduce of 64 MiB", all_reduce_large),
                   ("all_reduce of a part of a tensor", all_reduce_part_of_a_tensor)]
    reductions += [(f"reduce {_name(dtype)}", _reduce(dtype)) for dtype in (torch.float32, torch.bfloat16, torch.int64)]
    reductions += [(f"reduce_scatter {op} {_name(dtype)}", _reduce_scatter(dtype, op))
                   for dtype in (torch.float32, torch.bfloat16, torch.int64) for op in ("SUM", "AVG", "MAX")]
    reductions += [("reduce_scatter, uneven", reduce_scatter_uneven)]
    moves = [(f"broadcast {_name(dtype)}", _broadcast(dtype)) for dtype in _TYPES]
    moves += [(f"all_gather {_name(dtype)}", _all_gather(dtype)) for dtype in _TYPES]
    moves += [("all_gather_into_tensor in place", all_gather_in_place), ("all_gather, uneven", all_gather_uneven),
              ("gather", gather), ("scatter", scatter), ("all_to_all, uneven", all_to_all),
              ("all_to_all_single", all_to_all_single), ("all_to_all_single, uneven", all_to_all_single_uneven),
              ("objects", objects)]
    return {
        "reductions": reductions,
        "moves": moves,
        "messages": [("send and recv", send_and_recv), ("isend and irecv", isend_and_irecv),
                     ("batch_isend_irecv", batch_isend_irecv), ("objects as messages", object_messages)],
        "groups": [("overlapping groups", overlapping_groups), ("many groups", many_groups),
                   ("groups of one rank", group_of_one), ("barrier", barriers),
                   ("monitored_barrier", monitored_barrier)],
        "order": [("async_op", asynchronous), ("order of streams", order_of_streams),
                  ("memory that comes and goes", memory_that_comes_and_goes), ("_coalescing_manager", coalescing),
                  ("CUDA graph of an all_reduce", graph_of_an_all_reduce),
                  ("CUDA graph with memory of its own", graph_with_memory_of_its_own)],
        "eager": [("split_group and new_group", split_group), ("_abort_process_group of a group", abort)],
        "deadline": [("a rank that does not come", deadline)],
        "restart": [("destroy_process_group and again", beginning_again)],
    }
