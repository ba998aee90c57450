// Sender: the sending end of an RDMA channel.
//
// It writes into the receiver's memory, and only where the receiver has said that it may: small
// segments into the arrival ring, large ones into granted places, in order. A segment of user
// memory that is registered goes out from where it is; other memory is copied into a staging slot,
// or, small, into the ring's image here.
#pragma once

#include <array>
#include <deque>

#include "transports/rdma/channel_end.h"
#include "transports/rdma/releases.h"
#include "transports/transport.h"

namespace libcomm::rdma {

class Sender final : public SendChannel, private ChannelEnd {
 public:
  // Returns while the channel is still being opened: reserve() and post() then say "not ready".
  static Result<std::unique_ptr<Sender>> open(std::shared_ptr<const ChannelContext> context,
                                              const ChannelName& name,
                                              std::shared_ptr<PinBudget> budget, UniqueFd control,
                                              std::shared_ptr<Releases> releases = nullptr);
  ~Sender() override;

  unsigned capabilities() const override { return kDirectSend | kOrdered; }
  size_t segment_bytes() const override { return context_->segment_bytes; }
  Status reserve(std::byte** slot) override;
  Status commit(const Signature& signature, size_t bytes) override;
  Status post(const Signature& signature, const void* src, size_t bytes, bool* accepted) override;
  Status progress(uint64_t* completed) override;
  WaitHandle wait_handle() const override;
  void withdraw() override;

  using ChannelEnd::statistics;

 private:
  using Registered = std::shared_ptr<const Registration>;
  struct Grant {
    uint32_t number = 0;
    bool for_one_call = false;
    uint64_t address = 0;
    uint32_t bytes = 0;
    uint32_t rkey[kMaxRails] = {};
    Signature signature;
  };
  // A segment that has been accepted and waits for its turn.
  struct Waiting {
    Signature signature;
    const std::byte* src = nullptr;
    size_t bytes = 0;
    Registered registration;
    int slot = -1;  // staging
  };
  // What one queue pair carries of an arrival.
  struct Part {
    size_t begin = 0, bytes = 0;
    int qp = -1;
    uint32_t epoch = 0;
    bool done = false;
  };
  // Something written, or being written, into entry n mod kArrivals of the peer's ring.
  struct Arrival {
    ArrivalKind kind = ArrivalKind::kSmall;
    size_t bytes = 0;
    const std::byte* src = nullptr;
    Grant grant;
    Registered registration;
    int slot = -1;
    std::vector<Part> parts;
    size_t left = 0;      // parts that are not done
    bool filled = false;  // its grant, exactly: needs no header

    // In place of an earlier one, whose memory for parts it keeps.
    void begin(ArrivalKind what, size_t length, size_t count) {
      kind = what;
      bytes = length;
      src = nullptr;
      registration.reset();
      slot = -1;
      parts.assign(count, Part());
      left = count;
      filled = false;
    }
  };
  struct PartRef {
    uint64_t sequence;  // of its last work request
    uint64_t arrival;
    size_t part;
  };

  Sender(std::shared_ptr<const ChannelContext> context, const ChannelName& name,
         std::shared_ptr<PinBudget> budget, std::shared_ptr<Releases> releases)
      : ChannelEnd(std::move(context), name, std::move(budget), true),
        releases_(std::move(releases)) {}

  Status on_sent(int index) override;
  Status on_arrived(int index, const Immediate& what) override;
  Status on_message(const Message& message) override;
  Status on_failed(int /*index*/) override { return Status::ok(); }
  Status on_drained(int index) override;
  Status on_turn() override;

  Status check_peer();
  Status on_answer(const EndWire& theirs);
  void on_goodbye(const GoodbyeWire& goodbye);
  Status read_grants();
  Status on_fenced(const FenceWire& fence);
  void begin_rebuild(int index);

  bool may_use_entry() const;
  Status note_released(uint32_t released);
  Status take_releases();
  Status issue_waiting();
  Status issue(const Waiting& segment, bool* issued);
  Status issue_small(const Signature& signature, const void* src, size_t bytes);
  Status issue_refusal(const Waiting& segment);
  Arrival& start_arrival(ArrivalKind kind, const Signature& signature, size_t bytes,
                         const Grant& grant, size_t parts);
  std::vector<int> choose_qps(size_t bytes);
  int next_qp();
  Status post_part(uint64_t arrival, size_t part, int qp);
  void part_done(uint64_t arrival, size_t part);
  void retire();

  Arrival& arrival(uint64_t n) { return arrivals_[n % kArrivals]; }
  std::byte* image(uint64_t n) { return image_->data() + n % kArrivals * kEntryBytes; }

  const std::shared_ptr<Releases> releases_;  // with the channel in the other direction, or null
  EndWire theirs_;

  // Grants.
  uint64_t next_entry_ = 0;  // of the grant ring
  std::array<bool, kGrants> entry_arrived_{};
  std::deque<Grant> grants_;
  uint64_t released_ = 0;  // arrivals

  // Segments.
  std::deque<Waiting> waiting_;
  std::array<Arrival, kArrivals> arrivals_;
  uint64_t oldest_ = 0;                                 // arrival that is not retired
  uint64_t issued_ = 0;                                 // arrivals written
  uint64_t accepted_ = 0, completed_ = 0;               // segments
  std::vector<std::deque<PartRef>> outstanding_;        // by queue pair, in posting order
  std::deque<std::pair<uint64_t, size_t>> send_again_;  // parts that a fence left over
  int last_qp_ = -1;
  bool peer_left_ = false;         // there are no queue pairs any more
  uint64_t grant_bytes_held_ = 0;  // of grants known here whose segment has not been retired

  int reserved_ = -1;  // staging slot
};

}  // namespace libcomm::rdma
