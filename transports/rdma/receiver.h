// Receiver: the receiving end of an RDMA channel, which decides what may be sent.
//
// It grants places for large segments into the sender's memory: staging slots, or user memory that
// is registered, when it has been told where the next segments go. It never grants more at a time
// than its window; what it has granted is what can be in flight toward it.
#pragma once

#include <array>
#include <deque>

#include "transports/rdma/channel_end.h"
#include "transports/rdma/flush.h"
#include "transports/rdma/releases.h"
#include "transports/transport.h"

namespace libcomm::rdma {

class Receiver final : private ChannelEnd {
 public:
  static Result<std::unique_ptr<Receiver>> open(std::shared_ptr<const ChannelContext> context,
                                                const ChannelName& name,
                                                std::shared_ptr<PinBudget> budget, UniqueFd control,
                                                std::shared_ptr<Releases> releases = nullptr);
  ~Receiver() override;

  // As RecvChannel's.
  Status peek(Segment* segment);
  Status release();
  void expect(const Signature& expected, void* dst, size_t bytes, size_t segment);
  Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done);
  void withdraw();
  WaitHandle wait_handle();

  using ChannelEnd::statistics;

 private:
  using Registered = std::shared_ptr<const Registration>;
  // A place that has been granted and whose segment has not been taken yet.
  struct Given {
    uint32_t number = 0;
    int slot = -1;  // staging; -1: user memory
    std::byte* address = nullptr;
    size_t bytes = 0;
    Registered registration;
    Signature signature;  // of user memory
    uint64_t entry = 0;   // that granted it
  };
  struct Incoming {
    uint64_t parts = 0;   // that have arrived, as bits
    bool filled = false;  // its grant: there is no header
    bool read = false;    // the header, and found good
    bool flushing = false, flushed = false;
    ArrivalHeader header;
  };
  // Where the segments of the current message go, when they can be granted there.
  struct Plan {
    Signature expected;
    std::byte* dst = nullptr;  // null: there is no plan
    size_t bytes = 0;
    size_t segment = 0;
    size_t granted = 0;  // bytes of the message that have a grant, or need none
    Registered registration;
  };

  Receiver(std::shared_ptr<const ChannelContext> context, const ChannelName& name,
           std::shared_ptr<PinBudget> budget, std::shared_ptr<Releases> releases)
      : ChannelEnd(std::move(context), name, std::move(budget), false),
        releases_(std::move(releases)) {}

  Status on_sent(int index) override;
  Status on_arrived(int index, const Immediate& what) override;
  Status on_message(const Message& message) override;
  Status on_failed(int index) override;
  Status on_drained(int index) override;
  Status on_turn() override;

  Status bad_order(const char* what, int index) const;
  Status on_offer(const EndWire& theirs);
  Status on_fence(int index);
  Status on_rebuild(const RebuildWire& rebuild);
  Status make_anew(int index, const RebuildWire& rebuild);
  void give_up_rebuild(int index, uint32_t epoch);

  // The oldest arrival, once it is whole; handles refusals on the way.
  Status find_front(bool* ready);
  Status read_front(bool* whole);
  // All parts of arrival n have come.
  bool is_whole(uint64_t n);
  Result<ArrivalHeader> header_of_filled();
  Status check_front(const ArrivalHeader& header);
  bool can_flush(const Registration& memory);
  Status flush_front(bool* there);
  void note_releases(const ArrivalHeader& header);
  const std::byte* front_data();
  void take_front();
  Status check_peer();

  // Granting.
  Status grant_more();
  Status grant_slots();
  Status grant_plan();
  Status give(Given given, uint8_t flags, const Signature& signature, bool* written);
  bool can_write_entry();
  Status write_entry(GrantEntry entry);
  Status post_entry(uint64_t sequence);
  int entry_qp();
  // When `most` releases or more have not been told yet.
  Status tell_released(uint64_t most);

  Incoming& incoming(uint64_t n) { return incoming_[n % kArrivals]; }
  const std::byte* entry(uint64_t n) const { return ring_->data() + n % kArrivals * kEntryBytes; }
  int window() const { return context_->window_slots; }

  const std::shared_ptr<Releases> releases_;  // with the channel in the other direction, or null
  EndWire theirs_;
  std::unique_ptr<Flush> flush_;  // once GPU memory that needs it has been granted

  // Arrivals.
  std::array<Incoming, kArrivals> incoming_;
  uint64_t next_ = 0;  // arrival that is taken next
  bool shown_ = false;
  bool announced_ = false;  // the next segment is known by a refusal, and waits for a grant
  ArrivalHeader announcement_;
  bool closing_ = false;
  Clock::time_point closed_at_{};

  // Grants.
  uint64_t written_ = 0;  // entries
  uint64_t acknowledged_ = 0;
  std::array<int, kGrants> entry_qp_{};  // that carried it
  std::deque<uint64_t> write_again_;     // entries that a fence left over
  uint32_t next_grant_ = 0;
  std::deque<Given> given_;
  uint64_t released_told_ = 0;  // arrivals, by an entry or as the sender says that it knows
  bool wants_slots_ = false;    // the next segment may be a large one that is not planned
  Plan plan_;
  int target_ = 2;  // staging grants to have out

  // Fences that the sender has asked for, by queue pair: the last.
  struct Asked {
    bool ever = false;
    bool pending = false;
    FenceWire fence;
  };
  std::vector<Asked> asked_;
  // For a port to come up, or to be tried once more after the device refused.
  struct WaitingRebuild {
    RebuildWire wish;
    Clock::time_point not_before{};
  };
  std::vector<WaitingRebuild> rebuilds_waiting_;
};

}  // namespace libcomm::rdma
