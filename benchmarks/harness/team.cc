#include "benchmarks/harness/team.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "benchmarks/harness/world.h"

namespace bench {
namespace {

Buffer::Source comm_source() {
  return {[](size_t bytes) -> void* {
            void* memory = nullptr;
            require(commMemAlloc(&memory, bytes), "commMemAlloc", -1, nullptr);
            return memory;
          },
          [](void* memory) { require(commMemFree(memory), "commMemFree", -1, nullptr); }};
}

}  // namespace

Team::Team(const std::vector<comm_t>& comms, int first_rank, int nranks, size_t bytes,
           const Options& options)
    : members_(comms.size()), nranks_(nranks) {
  for (size_t i = 0; i < comms.size(); ++i) {
    members_[i].comm = comms[i];
    members_[i].rank = first_rank + static_cast<int>(i);
    allocate(members_[i], bytes, options);
  }
  register_buffers(options.registration);
  if (options.host_stream) {
    require(commHostStreamCreate(&stream_), "commHostStreamCreate", first_rank, nullptr);
  }
}

Team::~Team() {
  if (stream_ != nullptr) {
    require(commHostStreamDestroy(stream_), "commHostStreamDestroy", members_[0].rank, nullptr);
  }
  for (Member& member : members_) {
    for (void* handle : member.handles) {
      require(commDeregister(member.comm, handle), "commDeregister", member.rank, member.comm);
    }
    for (commWindow_t window : member.windows) {
      require(commWindowDeregister(member.comm, window), "commWindowDeregister", member.rank,
              member.comm);
    }
  }
  for (Member& member : members_) {
    require(commDestroy(member.comm), "commDestroy", member.rank, nullptr);
  }
}

void Team::allocate(Member& member, size_t bytes, const Options& options) {
  const Buffer::Source source =
      options.memory == Memory::kComm ? comm_source() : Buffer::malloc_source();
  member.send = Buffer(bytes, source);
  member.recv = Buffer(bytes, source);
  if (member.send.data() == nullptr || member.recv.data() == nullptr) {
    std::fprintf(stderr, "%s: rank %d: no memory for two buffers of %zu bytes; lower --maxbytes\n",
                 program_invocation_short_name, member.rank, bytes);
    _exit(1);
  }
}

void Team::register_buffers(Registration registration) {
  if (registration == Registration::kNone) return;
  for (Member& member : members_) {
    member.handles.resize(registration == Registration::kLocal ? 2 : 0);
    member.windows.resize(registration == Registration::kSymmetric ? 2 : 0);
  }
  for (const size_t which : {0, 1}) {
    each("commRegister or commWindowRegister", 1, [&](Member& member) {
      const Buffer& buffer = which == 0 ? member.send : member.recv;
      if (registration == Registration::kLocal) {
        return commRegister(member.comm, buffer.memory(), buffer.memory_bytes(),
                            &member.handles[which]);
      }
      return commWindowRegister(member.comm, buffer.memory(), buffer.memory_bytes(),
                                &member.windows[which], COMM_WIN_COLL_SYMMETRIC);
    });
  }
}

void Team::synchronize() {
  if (stream_ == nullptr) return;
  require(commHostStreamSynchronize(stream_), "commHostStreamSynchronize", members_.front().rank,
          members_.front().comm);
}

void Team::barrier() {
  each("commBarrier", 1, [](Member& member) { return commBarrier(member.comm, nullptr); });
}

double Team::combine(const std::vector<double>& values, commRedOp_t op) {
  std::vector<double> results(values.size());
  each("commAllReduce of a measurement", 1, [&](Member& member) {
    const auto i = static_cast<size_t>(&member - members_.data());
    return commAllReduce(&values[i], &results[i], 1, commFloat64, op, member.comm, nullptr);
  });
  return results.front();
}

std::vector<RankInfo> Team::gather_info() {
  const auto nranks = static_cast<size_t>(nranks_);
  std::vector<RankInfo> own(members_.size());
  std::vector<std::vector<RankInfo>> all(members_.size(), std::vector<RankInfo>(nranks));
  for (size_t i = 0; i < members_.size(); ++i) {
    int device = -1;
    require(commCuDevice(members_[i].comm, &device), "commCuDevice", members_[i].rank,
            members_[i].comm);
    own[i] = describe_this_process(members_[i].rank, device);
  }
  each("commAllGather of the ranks' names", 1, [&](Member& member) {
    const auto i = static_cast<size_t>(&member - members_.data());
    return commAllGather(&own[i], all[i].data(), sizeof(RankInfo), commInt8, member.comm, nullptr);
  });
  for (RankInfo& info : all.front()) {
    info.host[sizeof info.host - 1] = '\0';
    info.model[sizeof info.model - 1] = '\0';
  }
  return all.front();
}

}  // namespace bench
