#include "transports/cuda/slot_areas.h"

#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/device/scopes.h"
#include "transports/facts.h"

namespace libcomm::cuda {
namespace {

std::function<bool()> time_over() {
  constexpr Seconds kLimit{60};
  return [until = Deadline::after(kLimit)] { return until.passed(); };
}

}  // namespace

// Wire struct.
struct SlotAreas::Offer {
  uint64_t able = 0;
  // For ranks of the same process: where its std::shared_ptr is, until all have said that they
  // reach the areas.
  uint64_t holder = 0;
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
  offer->holder = reinterpret_cast<uintptr_t>(&mine_);
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
      const auto* holder = reinterpret_cast<const std::shared_ptr<DeviceBuffer>*>(
          static_cast<uintptr_t>(offers[peer].holder));
      of_threads_.push_back(*holder);
      at_.push_back((*holder)->data());
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
                         : error(Code::kInvalidUsage, "config.CTAPolicy wants no kernels");
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
