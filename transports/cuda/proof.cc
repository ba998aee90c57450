// How ranks agree that they reach each other's GPU memory: each has a block in GPU memory of
// 2 n + 1 lines, where n is the number of ranks:
//   0 .. n - 1      written by the kernel of each rank
//   n               this rank's pattern, read by the kernels of the others
//   n + 1 .. 2 n    what this rank's kernel has read of the others' patterns
#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/bootstrap/handshake.h"
#include "src/device/scopes.h"
#include "transports/cuda/peer_memory.h"
#include "transports/facts.h"

namespace libcomm::cuda {
namespace {

constexpr size_t kLine = 256;
constexpr char kChunksStaged[] = "rank {}: memory of cuMemCreate goes through host memory: {}";
constexpr char kByFabric[] = "rank {}: memory of cuMemCreate comes by fabric handles alone: {}";
constexpr char kNotByFabric[] = "rank {}: fabric handles of other ranks' GPU memory are no use: {}";

// No two pairs of ranks have the same, and none is all zero.
void write_pattern(std::byte* line, int from, int to) {
  uint64_t state = 0x9e3779b97f4a7c15u * static_cast<uint64_t>(from * 1000 + to + 2);
  for (size_t i = 0; i < kLine; i += sizeof state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(line + i, &state, sizeof state);
  }
}

// A peer that cannot be reached may show by a kernel that never ends.
std::function<bool()> time_over() {
  constexpr Seconds kLimit{60};
  return [until = Deadline::after(kLimit)] { return until.passed(); };
}

// What a rank shows where another's chunks are to be had.
Proof proof_of(const Bootstrap& bootstrap, const Nonce& nonce, int rank) {
  unsigned char parts[sizeof nonce + sizeof rank];
  std::memcpy(parts, nonce.data(), sizeof nonce);
  std::memcpy(parts + sizeof nonce, &rank, sizeof rank);
  const Mac mac = hmac(bootstrap.secret(), "comm gpu chunks", {parts});
  Proof words{};
  static_assert(sizeof words == sizeof mac);
  std::memcpy(words.data(), mac.data(), sizeof words);
  return words;
}

constexpr int kNobody = -1;  // the pattern that a rank shows to all

bool has_pattern(const std::byte* line, int from, int to) {
  std::byte expected[kLine];
  write_pattern(expected, from, to);
  return std::memcmp(line, expected, kLine) == 0;
}

}  // namespace

// Wire struct.
struct PeerMemory::Offer {
  uint64_t able = 0;
  uint64_t context = 0;
  Nonce nonce{};  // of its socket for descriptors of chunks; zero: it has none
  ExportedMemory memory;
  ExportedMemory chunk;  // of the socket's
};

Result<int> PeerMemory::ordinal_of(const GpuUuid& gpu) const {
  int count = 0;
  COMM_TRY(driver_.check(driver_.device_count(&count), "cuDeviceGetCount"));
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    GpuUuid uuid{};
    CUdevice device = 0;
    if (driver_.device_get(&device, ordinal) == kSuccess &&
        driver_.device_uuid(uuid.data(), device) == kSuccess && uuid == gpu)
      return ordinal;
  }
  return error(Code::kSystem,
               "its GPU is hidden from this process; let CUDA_VISIBLE_DEVICES show the GPUs of all "
               "ranks of the host, and choose with cudaSetDevice");
}

// The device of a GPU of this process; -1: not known.
int PeerMemory::device_of(const Topology& topology, int ordinal) const {
  char text[32] = "";
  if (driver_.device_pci(text, sizeof text, ordinal) != kSuccess) return -1;
  std::string address = text;
  std::transform(address.begin(), address.end(), address.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  for (const Device& device : topology.devices())
    if (device.kind == DeviceKind::kGpu && device.address == address) return device.id;
  return -1;
}

// NVLink carries all atomic operations, PCIe at most some.
bool PeerMemory::has_nvlink(int from, int to) const {
  int all_atomics = 0;
  return driver_.p2p_attribute(&all_atomics, kP2pNativeAtomics, from, to) == kSuccess &&
         all_atomics != 0;
}

// Whether the knobs and the driver allow to use the memory of a peer's GPU.
Status PeerMemory::check_distance(int ordinal, int peer, const Knobs& knobs) const {
  const GpuUuid& theirs = ranks_[static_cast<size_t>(peer)].gpu;
  if (theirs == ranks_[static_cast<size_t>(rank_)].gpu) return Status::ok();
  constexpr PathClass kFarthest[] = {PathClass::kSelf,       PathClass::kNvlink,
                                     PathClass::kPcieSwitch, PathClass::kPcieSwitch,
                                     PathClass::kRoot,       PathClass::kSystem};
  const auto level = static_cast<size_t>(knobs.get_choice(Knob::kP2pLevel));
  COMM_ASSIGN(const int other, ordinal_of(theirs));
  int can = 0;
  COMM_TRY(driver_.check(driver_.can_access_peer(&can, ordinal, other), "cuDeviceCanAccessPeer"));
  if (can == 0)
    return error(Code::kSystem, "the driver says that GPU {} cannot reach GPU {}", ordinal, other);
  const PathClass farthest = kFarthest[level];
  if (farthest == PathClass::kSystem) return Status::ok();
  PathClass path = PathClass::kSystem;
  bool knows_nvlinks = false;
  if (auto topology = Topology::detect_with_nvlinks(TopologyFile::from(knobs))) {
    const int from = device_of(*topology, ordinal), to = device_of(*topology, other);
    path = topology->path(from, to).path;
    knows_nvlinks = topology->knows_nvlinks(from) && topology->knows_nvlinks(to);
  }
  if (farthest >= PathClass::kNvlink && !knows_nvlinks && has_nvlink(ordinal, other))
    path = std::min(path, PathClass::kNvlink);
  if (path <= farthest) return Status::ok();
  return error(Code::kSystem, "GPUs {} and {} are {} apart, which COMM_P2P_LEVEL does not allow",
               ordinal, other, name_of(path));
}

// What needs no other rank.
Status PeerMemory::prepare(const Bootstrap& bootstrap, const Knobs& knobs, Offer* mine) {
  const size_t lines = 2 * ranks_.size() + 1;
  const ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver_);
  CUdevice device = 0;
  COMM_TRY(driver_.check(driver_.context_device(&device), "cuCtxGetDevice"));
  ordinal_ = device;
  // A program may use a GPU in commInitAll's list only later.
  CUcontext primary = nullptr;
  COMM_TRY(driver_.check(driver_.primary_retain(&primary, device), "cuDevicePrimaryCtxRetain"));
  if (primary == context_)
    primary_of_ = device;
  else
    (void)driver_.primary_release(device);
  mine->context = reinterpret_cast<uintptr_t>(context_);
  for (int peer = 0; peer < static_cast<int>(ranks_.size()); ++peer) {
    const GpuUuid& theirs = ranks_[static_cast<size_t>(peer)].gpu;
    const bool same_gpu = theirs == ranks_[static_cast<size_t>(rank_)].gpu;
    one_context_ = one_context_ && is_thread(peer) && same_gpu;
    one_process_ = one_process_ && is_thread(peer);
    if (Status status = check_distance(ordinal_, peer, knobs); !status)
      return std::move(status).context(fmt::format("rank {}", peer));
    if (same_gpu || !is_thread(peer)) continue;
    COMM_ASSIGN(const int ordinal, ordinal_of(theirs));
    thread_gpus_.push_back(ordinal);
  }
  COMM_ASSIGN(kernels_, Kernels::of(driver_, context_));
  max_ctas_ = kernels_->useful_ctas();
  // Streams of another priority have hardware queues of their own, so that this one is never behind
  // a stream of the program that waits for other ranks. The driver takes the highest there is.
  constexpr int kHighestPriority = -100;
  COMM_TRY(driver_.check(driver_.stream_create(&stream_, kStreamNonBlocking, kHighestPriority),
                         "cuStreamCreateWithPriority"));
  COMM_ASSIGN(done_, Event::create(driver_));
  COMM_ASSIGN(pinned_, PinnedBuffer::take(driver_, context_, lines * kLine));
  COMM_TRY(driver_.check(driver_.memory_alloc(&pattern_, lines * kLine), "cuMemAlloc"));
  std::memset(pinned_.data(), 0, lines * kLine);
  write_pattern(pinned_.data() + ranks_.size() * kLine, rank_, kNobody);
  COMM_TRY(copy(pointer_of(pattern_), pinned_.data(), lines * kLine));
  COMM_TRY(finish(time_over()));
  if (!describe(pointer_of(pattern_), lines * kLine, &mine->memory))
    return error(Code::kSystem, "the driver gives no CUDA IPC handle (cuIpcGetMemHandle)");
  if (!one_process_) offer_chunks(bootstrap, mine);
  if (stuck_) return error(Code::kSystem, "the GPU does not do what it is given");
  mine->able = 1;
  return Status::ok();
}

// A socket where other processes get descriptors of this one's chunks. Without, such memory is
// staged.
void PeerMemory::offer_chunks(const Bootstrap& bootstrap, Offer* mine) {
  if (!has_shareable_chunks(driver_, ordinal_)) return;
  const auto start = [&]() -> Status {
    Nonce nonce{};
    COMM_TRY(random_bytes({reinterpret_cast<unsigned char*>(nonce.data()), sizeof nonce}));
    std::vector<Proof> expected;
    for (int peer = 0; peer < static_cast<int>(ranks_.size()); ++peer)
      if (!is_thread(peer)) expected.push_back(proof_of(bootstrap, nonce, peer));
    const CUresult made = AddressRange::allocate(driver_, ordinal_, kLine, false,
                                                 std::span(&ordinal_, 1), &trial_chunk_);
    COMM_TRY(driver_.check(made, "making a chunk of GPU memory (cuMemCreate, cuMemMap)"));
    const CUdeviceptr chunk = trial_chunk_.base();
    COMM_TRY(copy(pointer_of(chunk), pinned_.data() + ranks_.size() * kLine, kLine));
    COMM_TRY(finish(time_over()));
    COMM_ASSIGN(auto exports, ChunkExports::start(driver_, nonce, std::move(expected)));
    mine->chunk.address = chunk;
    bool is_new = false;
    if (!exports->describe(chunk, kLine, &mine->chunk, &is_new))
      return error(Code::kSystem, "the driver exports none (cuMemExportToShareableHandle)");
    chunk_exports_ = std::move(exports);
    mine->nonce = nonce;
    return Status::ok();
  };
  if (const Status status = start(); !status)
    log_info(Subsys::kInit, kChunksStaged, rank_, status.to_string());
}

// Whether this rank reads what lies in the chunks of all other processes, which it gets in this
// way.
Status PeerMemory::prove_chunks(const Bootstrap& bootstrap, std::span<const Offer> offers,
                                ChunkWays way) {
  if (chunk_exports_ == nullptr) return error(Code::kSystem, "this rank passes none");
  if (stuck_) return error(Code::kSystem, "the GPU does not do what it is given");
  const ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver_);
  for (int peer = 0; peer < static_cast<int>(ranks_.size()); ++peer) {
    const Offer& offer = offers[static_cast<size_t>(peer)];
    if (is_thread(peer)) continue;
    if (offer.nonce == Nonce{}) return error(Code::kSystem, "rank {} passes none", peer);
    if (!way.descriptors && !is_set(offer.chunk.fabric))
      return error(Code::kSystem, "rank {} has no fabric handles", peer);
    const Proof proof = proof_of(bootstrap, offer.nonce, rank_);
    // A member at once: a GPU that is stuck may still use what it maps.
    ChunkImports& imports =
        chunk_imports_.try_emplace(peer, driver_, ordinal_, offer.nonce, proof).first->second;
    imports.use(way);
    imports.clear();  // what came in another way
    auto theirs = imports.find(offer.chunk, nullptr);
    if (!theirs) return std::move(theirs).status().context(fmt::format("rank {}", peer));
    std::memset(pinned_.data(), 0, kLine);
    COMM_TRY(copy(pinned_.data(), *theirs, kLine));
    COMM_TRY(finish(time_over()));
    if (!has_pattern(pinned_.data(), peer, kNobody))
      return error(Code::kSystem, "bytes were lost on the way out of rank {}'s chunk", peer);
    imports.clear();
  }
  return Status::ok();
}

// What all ranks have agreed on.
void PeerMemory::use_chunks(ChunkWays ways) {
  if (one_process_) return;
  if (!ways.descriptors && !ways.fabric) {
    chunk_exports_.reset();
    chunk_imports_.clear();
    return;
  }
  chunk_exports_->use(ways);
  for (auto& [peer, imports] : chunk_imports_) imports.use(ways);
}

// To unmap it may wait for the program's streams.
void PeerMemory::end_trial_chunk() {
  if (trial_chunk_.base() == 0) return;
  if (chunk_exports_ != nullptr) chunk_exports_->forget(trial_chunk_.base());
  end_when_idle(Ending::kWithCommunicators,
                [chunk = new AddressRange(std::move(trial_chunk_))] { delete chunk; });
}

// GPUs of threads are allowed to use each other's memory here; other processes' when it is mapped.
Status PeerMemory::allow_access(std::span<const Offer> offers) {
  for (int peer = 0; peer < static_cast<int>(ranks_.size()); ++peer) {
    if (!is_thread(peer)) continue;
    const auto other = reinterpret_cast<CUcontext>(offers[static_cast<size_t>(peer)].context);
    if (other == context_) continue;
    one_context_ = false;
    const CUresult result = driver_.enable_peer(other, 0);
    if (result != kPeerAlreadyEnabled) COMM_TRY(driver_.check(result, "cuCtxEnablePeerAccess"));
  }
  return Status::ok();
}

// Reads a line of every rank's block and writes another.
Status PeerMemory::exchange_patterns(std::span<const Offer> offers) {
  const ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver_);
  COMM_TRY(allow_access(offers));
  const size_t n = ranks_.size();
  auto* const mine = static_cast<std::byte*>(pointer_of(pattern_));
  CopyArguments reads, writes;
  for (size_t peer = 0; peer < n; ++peer) {
    COMM_ASSIGN(std::byte * theirs, import(static_cast<int>(peer), offers[peer].memory));
    write_pattern(pinned_.data() + peer * kLine, rank_, static_cast<int>(peer));
    reads.segments[peer] = {theirs + n * kLine, mine + (n + 1 + peer) * kLine, kLine};
    writes.segments[peer] = {pinned_.data() + peer * kLine,
                             theirs + static_cast<size_t>(rank_) * kLine, kLine};
  }
  reads.segment_count = writes.segment_count = static_cast<int>(n);
  COMM_TRY(kernels_->copy(reads, max_ctas_, stream_));
  COMM_TRY(kernels_->copy(writes, max_ctas_, stream_));
  return finish(time_over());
}

Status PeerMemory::check_patterns() {
  const ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver_);
  const size_t n = ranks_.size();
  COMM_TRY(copy(pinned_.data(), pointer_of(pattern_), (2 * n + 1) * kLine));
  COMM_TRY(finish(time_over()));
  for (size_t peer = 0; peer < n; ++peer) {
    const auto from = static_cast<int>(peer);
    const bool read = has_pattern(pinned_.data() + (n + 1 + peer) * kLine, from, kNobody);
    if (read && has_pattern(pinned_.data() + peer * kLine, from, rank_)) continue;
    return error(
        Code::kSystem,
        "bytes were lost on the way {} rank {}'s GPU memory: peer access is broken on this "
        "machine (an IOMMU or PCIe ACS in the way is the usual cause); COMM_P2P_DISABLE=1 "
        "spares the trial",
        read ? "out of" : "into", peer);
  }
  return Status::ok();
}

Result<std::unique_ptr<PeerMemory>> PeerMemory::agree(Bootstrap& bootstrap, const Driver& driver,
                                                      CUcontext context,
                                                      std::span<const GpuRank> ranks,
                                                      const Knobs& knobs) {
  const int rank = bootstrap.rank();
  const size_t n = ranks.size();
  std::unique_ptr<PeerMemory> memory(new PeerMemory(driver, context, rank, ranks));
  memory->imported_.resize(n);
  std::vector<Offer> offers(n);
  Offer& mine = offers[static_cast<size_t>(rank)];
  Status status = memory->prepare(bootstrap, knobs, &mine);
  static constexpr char kStaged[] = "rank {}: the ranks' GPU memory goes through host memory: {}";
  if (!status) log_info(Subsys::kInit, kStaged, rank, status.to_string());
  COMM_TRY(bootstrap.all_gather(offers.data(), sizeof(Offer)));
  for (const Offer& offer : offers)
    if (offer.able == 0) return std::unique_ptr<PeerMemory>();

  // All go on together, also those that know already that it will not do.
  status = memory->exchange_patterns(offers);
  Status descriptors = status, fabric = status;
  if (status && !memory->one_process_) {
    descriptors = memory->prove_chunks(bootstrap, offers, {.descriptors = true, .fabric = false});
    fabric = memory->prove_chunks(bootstrap, offers, {.descriptors = false, .fabric = true});
    if (!descriptors && fabric)
      log_info(Subsys::kInit, kByFabric, rank, descriptors.to_string());
    else if (!descriptors)
      log_info(Subsys::kInit, kChunksStaged, rank, descriptors.to_string());
    if (!fabric && is_set(mine.chunk.fabric))
      log_info(Subsys::kInit, kNotByFabric, rank, fabric.to_string());
  }
  constexpr uint32_t kReaches = 1, kGetsDescriptors = 2, kGetsFabric = 4;
  std::vector<uint32_t> able(n);
  COMM_TRY(bootstrap.barrier());
  if (!status) {
    log_info(Subsys::kInit, kStaged, rank, status.to_string());
  } else {
    status = memory->check_patterns();
    if (!status) log_warn(kStaged, rank, status.to_string());
  }
  able[static_cast<size_t>(rank)] =
      (status ? kReaches : 0) | (descriptors ? kGetsDescriptors : 0) | (fabric ? kGetsFabric : 0);
  COMM_TRY(bootstrap.all_gather(able.data(), sizeof(uint32_t)));
  if (!memory->stuck_) memory->end_trial_chunk();
  for (const uint32_t each : able)
    if ((each & kReaches) == 0) return std::unique_ptr<PeerMemory>();
  const auto all = [&](uint32_t what) {
    return std::all_of(able.begin(), able.end(), [&](uint32_t each) { return (each & what) != 0; });
  };
  memory->use_chunks({all(kGetsDescriptors), all(kGetsFabric)});
  // What the proof took is kept until the end: to free it now would wait for the program's streams.
  log_info(Subsys::kInit, "rank {}: the ranks use each other's GPU memory in place", rank);
  return memory;
}

}  // namespace libcomm::cuda
