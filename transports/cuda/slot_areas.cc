#include "transports/cuda/slot_areas.h"

#include <map>

#include "src/base/clock.h"
#include "src/base/fork_mutex.h"
#include "src/base/log.h"
#include "src/device/scopes.h"
#include "transports/facts.h"

namespace libcomm::cuda {
namespace {

std::function<bool()> time_over() {
  constexpr Seconds kLimit{60};
  return [until = Deadline::after(kLimit)] { return until.passed(); };
}

// Areas of the ranks of this process that others may be about to reach. A rank that gives up
// meanwhile takes its own away.
class LentAreas {
 public:
  uint64_t lend(std::weak_ptr<DeviceBuffer> area) {
    const std::lock_guard lock(mutex_);
    std::erase_if(areas_, [](const auto& each) { return each.second.expired(); });
    areas_.emplace(++last_, std::move(area));
    return last_;
  }
  std::shared_ptr<DeviceBuffer> find(uint64_t number) {
    const std::lock_guard lock(mutex_);
    const auto found = areas_.find(number);
    return found == areas_.end() ? nullptr : found->second.lock();
  }

 private:
  ForkMutex mutex_;
  std::map<uint64_t, std::weak_ptr<DeviceBuffer>> areas_;  // with mutex_
  uint64_t last_ = 0;
};

// Never destroyed: calls at process exit find it.
LentAreas& lent_areas() {
  static LentAreas& areas = *new LentAreas;
  return areas;
}

}  // namespace

// Wire struct.
struct SlotAreas::Offer {
  uint64_t able = 0;
  uint64_t number = 0;  // for ranks of the same process: in lent_areas()
  ExportedMemory memory;
};

// What needs no other rank.
Status SlotAreas::prepare(const Driver& driver, PeerMemory& memory, Offer* offer) {
  COMM_ASSIGN(DeviceBuffer buffer,
              DeviceBuffer::allocate(driver, memory.context(), area_bytes(shape_)));
  mine_ = std::make_shared<DeviceBuffer>(std::move(buffer));
  const ContextScope scope(driver, memory.context());
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver);
  COMM_TRY(memory.clear(mine_->data(), mine_->size()));
  COMM_TRY(memory.finish(time_over()));
  if (!memory.describe(mine_->data(), mine_->size(), &offer->memory))
    return error(Code::kSystem, "the driver gives no CUDA IPC handle (cuIpcGetMemHandle)");
  offer->number = lent_areas().lend(mine_);
  offer->able = 1;
  return Status::ok();
}

Status SlotAreas::reach(const Driver& driver, PeerMemory& memory, std::span<const GpuRank> ranks,
                        std::span<const Offer> offers, int rank) {
  const ContextScope scope(driver, memory.context());
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver);
  for (size_t peer = 0; peer < ranks.size(); ++peer) {
    if (same_process(ranks[peer].facts, ranks[static_cast<size_t>(rank)].facts)) {
      of_threads_.push_back(lent_areas().find(offers[peer].number));
      if (!of_threads_.back())
        return error(Code::kRemote, "rank {} has given up", peer).with_peer(static_cast<int>(peer));
      at_.push_back(of_threads_.back()->data());
      continue;
    }
    COMM_ASSIGN(MappedMemory mapped,
                MappedMemory::open(driver, memory.context(), offers[peer].memory));
    at_.push_back(mapped.data() + (offers[peer].memory.address - offers[peer].memory.base));
    of_processes_.push_back(std::move(mapped));
  }
  return Status::ok();
}

Result<std::unique_ptr<SlotAreas>> SlotAreas::agree(Bootstrap& bootstrap, const Driver& driver,
                                                    PeerMemory& memory,
                                                    std::span<const GpuRank> ranks,
                                                    const AreaShape& shape, bool wanted) {
  const int rank = bootstrap.rank();
  std::unique_ptr<SlotAreas> areas(new SlotAreas(shape));
  static constexpr char kWithout[] = "rank {}: no executor on GPUs: {}";
  std::vector<Offer> offers(ranks.size());
  Status status = wanted ? areas->prepare(driver, memory, &offers[static_cast<size_t>(rank)])
                         : error(Code::kInvalidUsage, "the CTA policy wants no kernels");
  if (!status) log_info(Subsys::kInit, kWithout, rank, status.to_string());
  COMM_TRY(bootstrap.all_gather(offers.data(), sizeof(Offer)));
  for (const Offer& offer : offers)
    if (offer.able == 0) return std::unique_ptr<SlotAreas>();

  status = areas->reach(driver, memory, ranks, offers, rank);
  if (!status) log_info(Subsys::kInit, kWithout, rank, status.to_string());
  std::vector<uint32_t> able(ranks.size());
  able[static_cast<size_t>(rank)] = status ? 1 : 0;
  COMM_TRY(bootstrap.all_gather(able.data(), sizeof(uint32_t)));
  for (const uint32_t each : able)
    if (each == 0) return std::unique_ptr<SlotAreas>();
  return areas;
}

}  // namespace libcomm::cuda
