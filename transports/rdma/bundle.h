// Bundle: the queue pairs of one end of a channel, with their completion queues.
//
// Data queue pairs come first, rail by rail, then the one for grants, so that grants may have a
// traffic class and a path of their own. Each rail has one completion queue, for all its queue
// pairs here.
#pragma once

#include <memory>
#include <vector>

#include "transports/rdma/queue_pair.h"

namespace libcomm::rdma {

struct BundleShape {
  int rails = 1;
  int qps_per_rail = 1;
  QueueDepth depth;  // of every queue pair: any of them may have to do all the work
  // The rail that grants and the first segment use, below `rails`; the same at both ends.
  int first_rail = 0;

  int data_qps() const { return rails * qps_per_rail; }
  int qps() const { return data_qps() + 1; }
  int grant_qp() const { return data_qps(); }
  int rail_of(int index) const { return index == grant_qp() ? first_rail : index / qps_per_rail; }
};

// One thing that a completion queue told.
struct Completion {
  enum class Kind { kSent, kArrived, kFailed };
  Kind kind;
  int index;          // of the queue pair
  uint64_t sequence;  // kSent
  uint32_t immediate = 0;
  ibv_wc_status status = IBV_WC_SUCCESS;
};

class Bundle {
 public:
  static Result<std::unique_ptr<Bundle>> create(std::vector<std::shared_ptr<Nic>> nics,
                                                const BundleShape& shape, const Options& options);

  const BundleShape& shape() const { return shape_; }
  // Null while it is being rebuilt.
  QueuePair* qp(int index) { return qps_[static_cast<size_t>(index)].get(); }
  Nic& nic(int rail) { return *nics_[static_cast<size_t>(rail)]; }
  Nic& nic_of(int index) { return nic(shape_.rail_of(index)); }
  int traffic_class(int index) const;

  // The queue pairs and rails of this end.
  void describe(EndWire* end) const;
  // Where both ends have one: those that failed meanwhile are replaced later.
  Status connect(const EndWire& theirs);
  Status connect_one(int index, const RailWire& rail, const QpWire& peer);
  // A new queue pair in the place of one that has failed and drained, or is given up.
  Status rebuild(int index, uint32_t epoch);
  // Its stragglers are dropped from then on.
  void destroy(int index);

  // Hands over what has completed; true: there may be more.
  bool poll(std::vector<Completion>* out);
  // A rebuild has taken completions out of turn, which the next poll hands over. The queue pairs
  // count them as taken already.
  bool has_spilled() const { return !spilled_.empty(); }
  // Afterwards one of the descriptors becomes readable with the next completion. Look once more
  // before sleeping.
  Status arm();
  std::vector<int> fds() const;

  const Options& options() const { return options_; }

 private:
  struct Rail {
    CompletionChannel channel;
    Cq cq;
    unsigned unacknowledged = 0;
    ~Rail();
    Rail(CompletionChannel c, Cq q) : channel(std::move(c)), cq(std::move(q)) {}
    Rail(Rail&&) = default;
    std::shared_ptr<const Verbs> verbs;
  };
  Bundle(std::vector<std::shared_ptr<Nic>> nics, const BundleShape& shape, const Options& options)
      : nics_(std::move(nics)), shape_(shape), options_(options) {}
  bool poll_devices(std::vector<Completion>* out);
  void take(const ibv_wc& wc, std::vector<Completion>* out);

  const std::vector<std::shared_ptr<Nic>> nics_;
  const BundleShape shape_;
  const Options options_;
  std::vector<Rail> rails_;
  std::vector<std::unique_ptr<QueuePair>> qps_;
  std::vector<Completion> spilled_;  // taken out of turn, for the next poll
};

}  // namespace libcomm::rdma
