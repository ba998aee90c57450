#include "transports/shm/group_memory.h"

#include <sys/mman.h>

#include <map>
#include <utility>
#include <vector>

#include "src/base/fd.h"
#include "src/base/fork_mutex.h"

namespace libcomm::shm {
namespace {

// The groups mapped by this process. An entry's own mutex is held while its first user maps it, so
// that other groups are not kept waiting by a slow peer.
struct Entry {
  std::mutex mutex;
  std::weak_ptr<GroupMemory> memory;
};

using Entries = std::map<Nonce, std::shared_ptr<Entry>>;

struct Table {
  ForkMutex mutex;
  Entries entries;
  std::vector<Entries> of_parents;  // kept, for want of a way to end them
  unsigned generation = fork_generation();
};

Table& table() {
  static Table* const instance = new Table;  // never destroyed: threads may outlive main()
  return *instance;
}
// Made while the library is loaded: a fork must not find it half made.
[[maybe_unused]] const Table& g_made_early = table();

std::shared_ptr<Entry> entry_of(const Nonce& nonce) {
  Table& groups = table();
  std::lock_guard lock(groups.mutex);
  if (groups.generation != fork_generation()) {
    // A forked child: these are the parent's, their mutexes may be locked for ever.
    groups.of_parents.push_back(std::exchange(groups.entries, {}));
    groups.generation = fork_generation();
  }
  // Entries of groups that are gone, except those that a thread is filling right now.
  std::erase_if(groups.entries, [](const auto& item) {
    if (item.second.use_count() != 1) return false;
    // Free by now, but what its last user wrote is seen only through the mutex.
    std::lock_guard last_user_is_done(item.second->mutex);
    return item.second->memory.expired();
  });
  std::shared_ptr<Entry>& entry = groups.entries[nonce];
  if (!entry) entry = std::make_shared<Entry>();
  return entry;
}

}  // namespace

Status GroupMemory::map_fixed() {
  COMM_ASSIGN(base_, file_.map(0, layout_.fixed_bytes()));
  return {};
}

Result<std::shared_ptr<GroupMemory>> GroupMemory::create(const Layout& layout, const Nonce& nonce,
                                                         SharedFile file) {
  std::shared_ptr<GroupMemory> memory(new GroupMemory(layout, std::move(file)));
  COMM_TRY(memory->file_.reserve(0, layout.directory_offset()));
  if (memory->file_.must_reserve()) {
    COMM_TRY(memory->file_.reserve(layout.directory_offset(),
                                   layout.fixed_bytes() - layout.directory_offset()));
  }
  COMM_TRY(memory->map_fixed());
  GroupHeader& header = memory->header();
  header.magic = kMagic;
  header.version = kVersion;
  header.members = static_cast<uint32_t>(layout.members);
  header.nonce = nonce;
  header.part_bytes = layout.part_bytes;
  header.slot_bytes = layout.slot_bytes;
  header.slots = layout.slots;

  const std::shared_ptr<Entry> entry = entry_of(nonce);
  std::lock_guard lock(entry->mutex);
  entry->memory = memory;
  return memory;
}

Result<std::shared_ptr<GroupMemory>> GroupMemory::find_or_open(
    const Layout& layout, const Nonce& nonce, const std::function<Result<UniqueFd>()>& fetch) {
  const std::shared_ptr<Entry> entry = entry_of(nonce);
  std::lock_guard lock(entry->mutex);
  if (std::shared_ptr<GroupMemory> known = entry->memory.lock()) return known;

  COMM_ASSIGN(UniqueFd fd, fetch());
  COMM_ASSIGN(SharedFile file, SharedFile::adopt(std::move(fd), layout.file_bytes()));
  std::shared_ptr<GroupMemory> memory(new GroupMemory(layout, std::move(file)));
  COMM_TRY(memory->map_fixed());
  const GroupHeader& header = memory->header();
  if (header.magic != kMagic || header.version != kVersion || header.nonce != nonce ||
      header.members != layout.members || header.part_bytes != layout.part_bytes ||
      header.slot_bytes != layout.slot_bytes || header.slots != layout.slots)
    return error(Code::kSystem, "the shared memory found is not the one that was announced");
  entry->memory = memory;
  return memory;
}

GroupMemory::~GroupMemory() {
  if (base_ != nullptr) ::munmap(base_, layout_.fixed_bytes());
  for (std::byte* region : regions_)
    if (region != nullptr) ::munmap(region, layout_.region_bytes());
}

RankControl& GroupMemory::control(size_t member) const {
  return reinterpret_cast<RankControl*>(base_ + layout_.control_offset())[member];
}

std::byte* GroupMemory::part(size_t member) const {
  return base_ + layout_.parts_offset() + member * layout_.part_bytes;
}

Result<std::byte*> GroupMemory::channel(size_t from, size_t to, size_t lane) {
  auto* directory = reinterpret_cast<std::atomic<uint32_t>*>(base_ + layout_.directory_offset());
  // Entries hold the extent's number plus one; 0 is a channel that nobody has opened.
  std::atomic<uint32_t>& entry = directory[layout_.directory_entry(from, to, lane)];
  uint32_t claimed = entry.load(std::memory_order_acquire);
  if (claimed == 0) {
    const uint64_t extent = header().claimed_extents.fetch_add(1, std::memory_order_relaxed);
    const auto mine = static_cast<uint32_t>(extent + 1);
    if (entry.compare_exchange_strong(claimed, mine, std::memory_order_acq_rel)) claimed = mine;
  }
  const size_t extent = claimed - size_t{1};
  if (claimed == 0 || extent >= layout_.extents())
    return error(Code::kRemote, "a channel's entry in the shared directory is damaged ({})",
                 claimed);

  const size_t region = extent / layout_.extents_per_region();
  const size_t place = extent % layout_.extents_per_region() * layout_.extent_bytes();
  if (file_.must_reserve()) {
    COMM_TRY(file_.reserve(layout_.region_offset(region) + place, layout_.extent_bytes()));
  }
  std::lock_guard lock(regions_mutex_);
  if (regions_.size() <= region) regions_.resize(region + 1, nullptr);
  if (regions_[region] == nullptr) {
    COMM_ASSIGN(regions_[region], file_.map(layout_.region_offset(region), layout_.region_bytes()));
  }
  return regions_[region] + place;
}

}  // namespace libcomm::shm
