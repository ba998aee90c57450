#include "src/communicator/operation_loans.h"

#include <algorithm>

namespace libcomm {
namespace {

bool uses(const Schedule& schedule, Space space) {
  const auto is_in = [space](const Ref& ref) { return ref.space == space; };
  const auto in_step = [&](const Step& step) { return is_in(step.src) || is_in(step.dst); };
  return std::any_of(schedule.operands.begin(), schedule.operands.end(), is_in) ||
         std::any_of(schedule.lanes.begin(), schedule.lanes.end(), [&](const Lane& lane) {
           return std::any_of(lane.steps.begin(), lane.steps.end(), in_step);
         });
}

// From its first to its last element, in elements.
struct Elements {
  size_t begin = 0, end = 0;
};

Elements elements_of(const BlockTable& table, int blocks, size_t count) {
  if (table.empty()) return {0, static_cast<size_t>(blocks) * count};
  Elements all{SIZE_MAX, 0};
  for (size_t i = 0; i < table.counts.size(); ++i) {
    if (table.counts[i] == 0) continue;
    all.begin = std::min(all.begin, table.displs[i]);
    all.end = std::max(all.end, table.displs[i] + table.counts[i]);
  }
  if (all.begin > all.end) return {};
  return all;
}

}  // namespace

OperationLoans::~OperationLoans() {
  if (ids_.empty()) return;
  for (const uint64_t id : ids_) to_.memory->remove_brief(id);
  to_.transport->drop_ended_memory();
}

void OperationLoans::lend(const To& to, const Schedule& schedule, const Operation& operation) {
  if (to.memory == nullptr) return;
  const size_t element = size_of(operation.type);
  const auto one = [&](Space space, const void* base, const BlockTable& table, int blocks) {
    const Elements all = elements_of(table, blocks, operation.count);
    const size_t bytes = (all.end - all.begin) * element;
    if (bytes >= to.least_bytes && uses(schedule, space))
      lend(to, static_cast<const std::byte*>(base) + all.begin * element, bytes);
  };
  one(Space::kIn, operation.in, operation.in_table(), schedule.in_blocks);
  if (operation.out != operation.in || schedule.out_blocks != schedule.in_blocks)
    one(Space::kOut, operation.out, operation.out_table(), schedule.out_blocks);
}

void OperationLoans::lend(const To& to, std::span<const Operation> operations, int rank) {
  if (to.memory == nullptr) return;
  for (const Operation& operation : operations) {
    if (operation.collective != Collective::kSendRecv || operation.root == rank) continue;
    lend(to, operation.is_send ? operation.in : operation.out,
         operation.count * size_of(operation.type));
  }
}

void OperationLoans::lend(const To& to, const void* base, size_t bytes) {
  if (base == nullptr || bytes < to.least_bytes) return;
  to_ = to;
  UserMemory::Range known;
  if (to.memory->find(base, bytes, &known) && !known.brief) return;
  ids_.push_back(
      to.memory->add_brief(const_cast<std::byte*>(static_cast<const std::byte*>(base)), bytes));
}

}  // namespace libcomm
