// What arrives: lengths, orders, immediate data, the PSN's end.
#include <algorithm>

#include "tests/doubles/edge_cases/cases.h"

namespace libcomm::test {
namespace {

std::string arrived(bool right) { return right ? "bytes arrived" : "bytes did not arrive"; }

std::string plain(ibv_wr_opcode opcode, size_t bytes) {
  Pair pair(patient());
  const bool read = opcode == IBV_WR_RDMA_READ;
  (read ? pair.b : pair.a).fill(0, bytes, 3);
  if (!read && opcode != IBV_WR_RDMA_WRITE) pair.b.receive(1, bytes);
  pair.a.send(opcode, 1, bytes);
  const std::string status = next(pair.a);
  return status + ", " + arrived((read ? pair.a : pair.b).filled(0, bytes, 3));
}

std::string received(ibv_wr_opcode opcode, size_t bytes, size_t room) {
  Pair pair(patient());
  pair.b.receive(0x1234567890abcdef, room);
  pair.a.send(opcode, 5, bytes);
  const ibv_wc wc = pair.b.completion();
  std::string text = words(wc.status) + ", " + std::to_string(wc.byte_len) + " bytes";
  text += wc.opcode == IBV_WC_RECV ? ", send" : ", write with immediate";
  if ((wc.wc_flags & IBV_WC_WITH_IMM) != 0) text += " " + std::to_string(wc.imm_data);
  return text + (wc.wr_id == 0x1234567890abcdef ? ", own id" : ", other id");
}

std::string around_the_last_psn(ibv_wr_opcode opcode) {
  EndpointOptions options = patient();
  options.psn = 0xfffffd;
  Pair pair(options);
  std::string text;
  for (uint64_t i = 0; i < 4; ++i) {
    (opcode == IBV_WR_RDMA_READ ? pair.b : pair.a).fill(0, 3000, static_cast<int>(i));
    pair.a.send(opcode, i, 3000);
    text += next(pair.a) + " ";
    if (!(opcode == IBV_WR_RDMA_READ ? pair.a : pair.b).filled(0, 3000, static_cast<int>(i)))
      text += "(wrong bytes) ";
  }
  return text;
}

std::string psn_distance(int distance) {
  EndpointOptions options = patient();
  options.psn = 1000;
  Endpoint a(options), b(options);
  Address expected = a.address();
  expected.psn = static_cast<uint32_t>(1000 - distance);
  b.connect(expected);
  a.connect(b.address());
  a.fill(0, 8, 1);
  a.send(IBV_WR_RDMA_WRITE, 1, 8);
  const std::string status = next(a);
  return status + ", " + arrived(b.filled(0, 8, 1));
}

std::string immediate_order() {
  Pair pair(patient());
  for (uint64_t i = 0; i < 20; ++i) pair.b.receive(i, 0);
  for (uint64_t i = 0; i < 20; ++i) pair.a.send(IBV_WR_RDMA_WRITE_WITH_IMM, i, 100 * i);
  for (uint64_t i = 0; i < 20; ++i) {
    const ibv_wc wc = pair.b.completion();
    if (wc.imm_data != i || wc.wr_id != i) return "out of order";
  }
  return "as posted";
}

std::string immediate_order_of_several() {
  const EndpointOptions options = patient();
  Pair first(options), second(options), third(options);
  Pair* const pairs[] = {&first, &second, &third};
  for (Pair* pair : pairs)
    for (uint64_t i = 0; i < 10; ++i) pair->b.receive(i, 0);
  for (uint64_t i = 0; i < 10; ++i)
    for (Pair* pair : pairs) pair->a.send(IBV_WR_RDMA_WRITE_WITH_IMM, i, 2000);
  for (Pair* pair : pairs)
    for (uint64_t i = 0; i < 10; ++i)
      if (pair->b.completion().imm_data != i) return "out of order within a queue pair";
  return "in order within each queue pair";
}

std::string read_after_write() {
  Pair pair(patient());
  pair.a.fill(0, 5000, 6);
  pair.a.send(IBV_WR_RDMA_WRITE, 1, 5000, 0, 100);
  pair.a.send(IBV_WR_RDMA_READ, 2, 5000, 10000, 100);
  const std::string write = next(pair.a), read = next(pair.a);
  return write + ", " + read + ", " + arrived(pair.a.filled(10000, 5000, 6));
}

std::string fenced_write_after_read() {
  Pair pair(patient());
  pair.b.fill(0, 5000, 1);
  pair.a.send(IBV_WR_RDMA_READ, 1, 5000, 0, 0);
  pair.a.send(IBV_WR_RDMA_WRITE, 2, 5000, 0, 10000, IBV_SEND_SIGNALED | IBV_SEND_FENCE);
  const std::string read = next(pair.a), write = next(pair.a);
  return read + ", " + write + ", " + arrived(pair.b.filled(10000, 5000, 1));
}

std::string many_reads() {
  Pair pair(patient());
  for (uint64_t i = 0; i < 16; ++i) pair.a.send(IBV_WR_RDMA_READ, i, 1000, i * 1000, 0);
  for (uint64_t i = 0; i < 16; ++i) {
    const ibv_wc wc = pair.a.completion();
    if (wc.status != IBV_WC_SUCCESS || wc.wr_id != i) return words(wc.status) + " or out of order";
  }
  return "all, in order";
}

std::string unsignaled() {
  Pair pair(patient());
  for (uint64_t i = 0; i < 5; ++i) pair.a.send(IBV_WR_RDMA_WRITE, i, 8, 0, 0, 0);
  pair.a.send(IBV_WR_RDMA_WRITE, 5, 8);
  const uint64_t id = pair.a.completion().wr_id;
  const bool more = pair.a.completion_within(std::chrono::milliseconds(100)).has_value();
  return "completion " + std::to_string(id) + (more ? " and more" : " alone");
}

std::string inline_data() {
  Pair pair(patient());
  pair.a.fill(0, 32, 1);
  pair.a.send(IBV_WR_RDMA_WRITE, 1, 32, 0, 0, IBV_SEND_SIGNALED | IBV_SEND_INLINE);
  pair.a.fill(0, 32, 2);
  const std::string status = next(pair.a);
  return status + ", " + arrived(pair.b.filled(0, 32, 1));
}

}  // namespace

void add_transfer_cases(std::vector<EdgeCase>* cases) {
  const auto add = [&](std::string name, std::function<std::string()> run) {
    cases->push_back({std::move(name), std::move(run)});
  };
  for (const size_t bytes : {0, 1, 1024, 1025, 40'000}) {
    const std::string size = " of " + std::to_string(bytes) + " bytes";
    add("write" + size, [=] { return plain(IBV_WR_RDMA_WRITE, bytes); });
    add("read" + size, [=] { return plain(IBV_WR_RDMA_READ, bytes); });
    add("send" + size, [=] { return plain(IBV_WR_SEND, bytes); });
    add("write with immediate" + size, [=] { return plain(IBV_WR_RDMA_WRITE_WITH_IMM, bytes); });
  }
  add("completion of a received send", [] { return received(IBV_WR_SEND, 700, 1000); });
  add("completion of a received send with immediate",
      [] { return received(IBV_WR_SEND_WITH_IMM, 0, 1000); });
  add("completion of a received write with immediate",
      [] { return received(IBV_WR_RDMA_WRITE_WITH_IMM, 3000, 0); });
  add("write with immediate longer than the receive",
      [] { return received(IBV_WR_RDMA_WRITE_WITH_IMM, 3000, 100); });
  add("writes around the last PSN", [] { return around_the_last_psn(IBV_WR_RDMA_WRITE); });
  add("reads around the last PSN", [] { return around_the_last_psn(IBV_WR_RDMA_READ); });
  add("first PSN ahead of the expected", [] { return psn_distance(3); });
  add("first PSN behind the expected", [] { return psn_distance(-3); });
  add("immediate data of one queue pair", immediate_order);
  add("immediate data of several queue pairs", immediate_order_of_several);
  add("read after write", read_after_write);
  add("fenced write after read", fenced_write_after_read);
  add("more reads than max_rd_atomic", many_reads);
  add("unsignaled writes before a signaled", unsignaled);
  add("inline data changed after the post", inline_data);
}

}  // namespace libcomm::test
