// Channels: what arrives is what was sent, in order, within the credit, and damage by a peer is
// noticed.
#include "transports/shm/channel.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "tests/shm/ranks.h"

namespace libcomm::testing {
namespace {

std::vector<std::byte> pattern(size_t bytes, unsigned seed) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(seed * 131 + i * 7 + i / 251);
  return data;
}

Signature numbered(uint64_t op, uint64_t count) {
  Signature signature;
  signature.op = op;
  signature.count = count;
  return signature;
}

// Rank r sends messages of many sizes to r + 1 and checks what r - 1 sent.
std::string pass_around(Rank& self) {
  const int n = self.bootstrap->nranks();
  const int next = (self.rank + 1) % n;
  const int previous = (self.rank + n - 1) % n;
  for (const int lane : {0, 3}) {
    Result<std::unique_ptr<SendChannel>> out = self.group.transport->connect(next, lane);
    RANK_OK(out.status());
    Result<std::unique_ptr<RecvChannel>> in = self.group.transport->accept(previous, lane);
    RANK_OK(in.status());
    const size_t most = (*out)->segment_bytes();
    RANK_CHECK(most == (*in)->segment_bytes());
    const std::vector<size_t> sizes = {0,  1,  8,   15,  16,   17,       48,   64,
                                       65, 80, 100, 999, 4095, most - 1, most, 3};
    unsigned number = 0;
    for (int repeat = 0; repeat < 4; ++repeat)
      for (const size_t bytes : sizes) {
        ++number;
        const std::vector<std::byte> data = pattern(bytes, number + 1000u * unsigned(self.rank));
        if (std::string text = send_all(**out, numbered(number, bytes), data.data(), bytes);
            !text.empty())
          return text;
        std::vector<std::byte> got;
        Signature signature;
        if (std::string text = receive_one(**in, &got, &signature); !text.empty()) return text;
        RANK_CHECK(signature == numbered(number, bytes));
        RANK_CHECK(got == pattern(bytes, number + 1000u * unsigned(previous)));
      }
  }
  RANK_OK(self.barrier());
  return {};
}

TEST(ShmChannel, CarriesMessagesOfAllSizesBetweenThreads) { run_threads(3, pass_around); }
TEST(ShmChannel, CarriesMessagesOfAllSizesBetweenProcesses) { run_processes(3, pass_around); }

TEST(ShmChannel, WorksWithTheSmallestBuffer) {
  RankOptions options;
  options.buffsize = 4096;
  run_threads(2, pass_around, options);
}

TEST(ShmChannel, GivesNoMoreCreditThanItHasNotes) {
  run_threads(2, [](Rank& self) -> std::string {
    if (self.rank == 0) {
      Result<std::unique_ptr<SendChannel>> out = self.group.transport->connect(1, 0);
      RANK_OK(out.status());
      std::byte* slot = nullptr;
      size_t sent = 0;
      RANK_CHECK(!(*out)->commit(numbered(1, 0), 0));
      while (true) {
        RANK_OK((*out)->reserve(&slot));
        if (slot == nullptr) break;
        RANK_CHECK(sent < 100);
        RANK_OK((*out)->commit(numbered(1, 0), 0));
        ++sent;
      }
      if (sent != shm::kNotes) return fmt::format("{} segments were accepted", sent);
      RANK_CHECK(!(*out)->commit(numbered(1, 0), 0));
      uint64_t completed = 0;
      RANK_OK((*out)->progress(&completed));
      RANK_CHECK(completed == shm::kNotes);
      RANK_OK(self.barrier());
      RANK_OK(self.barrier());
      RANK_OK((*out)->reserve(&slot));
      RANK_CHECK(slot != nullptr);
      std::byte* again = nullptr;
      RANK_OK((*out)->reserve(&again));
      RANK_CHECK(slot == again);
      RANK_CHECK(!(*out)->commit(numbered(1, 0), (*out)->segment_bytes() + 1));
    } else {
      Result<std::unique_ptr<RecvChannel>> in = self.group.transport->accept(0, 0);
      RANK_OK(in.status());
      RANK_OK(self.barrier());
      RANK_CHECK(!(*in)->release());
      Segment segment;
      RANK_OK((*in)->peek(&segment));
      RANK_CHECK(segment.ready && segment.bytes == 0);
      RANK_OK((*in)->release());
      RANK_OK(self.barrier());
    }
    return {};
  });
}

// Whoever posts and whoever fills slots, whoever peeks and whoever receives: at random, of random
// sizes, so that payloads go in notes and all over the ring, and now one end waits and now the
// other.
std::string mix(Rank& self) {
  std::mt19937 same(7), own(self.rank == 0 ? 1 : 2);
  const auto below = [](std::mt19937& random, size_t limit) { return random() % limit; };
  Result<std::unique_ptr<SendChannel>> out = self.group.transport->connect(1 - self.rank, 2);
  RANK_OK(out.status());
  Result<std::unique_ptr<RecvChannel>> in = self.group.transport->accept(1 - self.rank, 2);
  RANK_OK(in.status());
  const size_t most = (*out)->segment_bytes();
  std::vector<size_t> sizes;
  for (int i = 0; i < 1500; ++i) {
    const size_t limits[] = {20, 200, 1808, 1810, 5000, 70000};
    sizes.push_back(std::min(below(same, limits[below(same, 6)] + 1), most));
  }
  const Deadline deadline = Deadline::after(Seconds(100));
  size_t sent = 0, taken = 0;
  std::vector<std::byte> got(most), data;  // `data`: of the message that is due
  while (sent < sizes.size() || taken < sizes.size()) {
    RANK_CHECK(!deadline.passed());
    for (size_t left = below(own, 60); left > 0 && sent < sizes.size(); --left) {
      const size_t bytes = sizes[sent];
      if (data.empty()) data = pattern(bytes, unsigned(sent) * 2 + unsigned(self.rank));
      bool went = false;
      if (bytes > 0 && bytes < shm::kLeastRead && below(own, 2) == 0) {
        RANK_OK((*out)->post(numbered(sent, bytes), data.data(), bytes, &went));
      } else {
        std::byte* slot = nullptr;
        RANK_OK((*out)->reserve(&slot));
        went = slot != nullptr;
        if (went && bytes > 0) std::memcpy(slot, data.data(), bytes);
        if (went) RANK_OK((*out)->commit(numbered(sent, bytes), bytes));
      }
      if (!went) break;
      ++sent;
      data.clear();
      uint64_t completed = 0;
      RANK_OK((*out)->progress(&completed));
      RANK_CHECK(completed == sent);
    }
    for (size_t left = below(own, 60); left > 0 && taken < sizes.size(); --left) {
      const size_t bytes = sizes[taken];
      bool done = false;
      if (below(own, 3) == 0) {
        Segment segment;
        RANK_OK((*in)->peek(&segment));
        if (!segment.ready) break;
        RANK_CHECK(segment.bytes == bytes && segment.signature == numbered(taken, bytes));
        const auto expected = pattern(bytes, unsigned(taken) * 2 + unsigned(1 - self.rank));
        RANK_CHECK(std::equal(expected.begin(), expected.end(), segment.data));
        if (below(own, 2) == 0) {
          RANK_OK((*in)->release());
          ++taken;
          continue;
        }
      }
      RANK_OK((*in)->receive_into(numbered(taken, bytes), got.data(), bytes, &done));
      if (!done) break;
      const auto expected = pattern(bytes, unsigned(taken) * 2 + unsigned(1 - self.rank));
      RANK_CHECK(std::equal(expected.begin(), expected.end(), got.begin()));
      ++taken;
    }
    if (below(own, 8) == 0) ::sched_yield();
  }
  RANK_OK(self.barrier());
  return {};
}

TEST(ShmChannel, CarriesAnyMixOfSegmentsBetweenProcesses) {
  RankOptions options;
  for (const size_t buffsize : {size_t{4096}, size_t{64} << 10, size_t{4} << 20}) {
    options.buffsize = buffsize;
    run_processes(2, mix, options);
  }
}

TEST(ShmChannel, ReceivesStraightIntoAUsersBufferOrSaysWhatDiffers) {
  run_threads(2, [](Rank& self) -> std::string {
    const std::vector<std::byte> data = pattern(200, 1);
    if (self.rank == 0) {
      Result<std::unique_ptr<SendChannel>> out = self.group.transport->connect(1, 0);
      RANK_OK(out.status());
      for (int i = 0; i < 2; ++i)
        if (std::string text = send_all(**out, numbered(1, 200), data.data(), 200); !text.empty())
          return text;
      RANK_OK(self.barrier());
    } else {
      Result<std::unique_ptr<RecvChannel>> in = self.group.transport->accept(0, 0);
      RANK_OK(in.status());
      std::vector<std::byte> got(200);
      bool done = false;
      RANK_OK(self.barrier());
      RANK_OK((*in)->receive_into(numbered(1, 200), got.data(), got.size(), &done));
      RANK_CHECK(done && got == data);
      const Status differs = (*in)->receive_into(numbered(2, 200), got.data(), got.size(), &done);
      RANK_CHECK(differs.code() == Code::kInvalidUsage && !done);
    }
    return {};
  });
}

TEST(ShmChannel, GoesOnWhereItWasWhenOpenedAgain) {
  run_threads(2, [](Rank& self) -> std::string {
    for (int round = 0; round < 3; ++round) {
      const std::string text = pass_around(self);
      if (!text.empty()) return text;
      RANK_CHECK(self.group.transport->stats().channels == 0);
      RANK_OK(self.barrier());
    }
    return {};
  });
}

TEST(ShmChannel, RefusesRanksAndLanesThatAreNotThere) {
  run_threads(2, [](Rank& self) -> std::string {
    RANK_CHECK(!self.group.transport->connect(self.rank, 0).is_ok());
    RANK_CHECK(!self.group.transport->connect(7, 0).is_ok());
    RANK_CHECK(!self.group.transport->accept(1 - self.rank, -1).is_ok());
    RANK_CHECK(!self.group.transport->accept(1 - self.rank, shm::kMaxLanes).is_ok());
    return {};
  });
}

// A receiver over memory of its own, in which the test plays the peer.
class DamagedChannel : public ::testing::Test {
 protected:
  void SetUp() override {
    const shm::Layout layout = shm::Layout::of(2, 64 << 10, shm::kPage);
    Result<shm::SharedFile> file = shm::SharedFile::create("test", layout.file_bytes());
    ASSERT_TRUE(file) << file.status().message();
    Result<std::shared_ptr<shm::GroupMemory>> memory =
        shm::GroupMemory::create(layout, {1, 2}, *std::move(file));
    ASSERT_TRUE(memory) << memory.status().message();
    Result<std::byte*> extent = (*memory)->channel(0, 1, 0);
    ASSERT_TRUE(extent) << extent.status().message();
    place_ = {.memory = *memory,
              .extent = *extent,
              .peer_bell = &(*memory)->control(0).doorbell,
              .peer = 0,
              .my_rank = 1};
  }
  shm::ChannelHeader& header() { return *reinterpret_cast<shm::ChannelHeader*>(place_.extent); }
  shm::NoteHead& first_note() { return shm::ChannelParts(place_).notes[0].head; }
  shm::ChannelPlace place_;
};

TEST_F(DamagedChannel, ALengthBeyondTheSegmentOrTheNoteIsRejected) {
  for (const auto& [where, bytes] :
       {std::pair{shm::Payload::kRing, place_.memory->layout().slot_bytes + 1},
        std::pair{shm::Payload::kHere, shm::Note::kBytes + 1}}) {
    shm::ShmRecvChannel in(place_);
    first_note().bytes = static_cast<uint32_t>(bytes);
    first_note().where = static_cast<uint64_t>(where);
    first_note().sequence = 1;
    Segment segment;
    const Status status = in.peek(&segment);
    EXPECT_EQ(status.code(), Code::kRemote);
    EXPECT_EQ(status.peer(), 0);
    EXPECT_FALSE(segment.ready);
  }
}

// Not damaged, but half way: a sender writes the lines of a note one after the other.
TEST_F(DamagedChannel, ANoteIsReceivedOnceAllOfItsLinesAreThere) {
  const std::vector<std::byte> data = pattern(shm::kHeadBytes + shm::Note::kLineBytes + 9, 3);
  const Signature signature = numbered(1, data.size());
  shm::Note& note = shm::ChannelParts(place_).notes[0];
  shm::ShmRecvChannel in(place_);
  std::vector<std::byte> got(data.size());
  bool done = true;
  Segment segment;
  const auto nothing_arrives = [&] {
    EXPECT_TRUE(in.receive_into(signature, got.data(), got.size(), &done).is_ok());
    EXPECT_FALSE(done);
    EXPECT_TRUE(in.peek(&segment).is_ok());
    EXPECT_FALSE(segment.ready);
  };
  nothing_arrives();
  note.head.bytes = static_cast<uint32_t>(data.size());
  std::memcpy(note.head.signature, &signature, sizeof signature);
  std::memcpy(note.head.payload, data.data(), shm::kHeadBytes);
  note.head.sequence = 1;
  nothing_arrives();
  std::memcpy(note.lines[0].payload, data.data() + shm::kHeadBytes, shm::Note::kLineBytes);
  note.lines[0].sequence = 1;
  nothing_arrives();
  std::memcpy(note.lines[1].payload, data.data() + data.size() - 9, 9);
  note.lines[1].sequence = 1;
  EXPECT_TRUE(in.peek(&segment).is_ok());
  ASSERT_TRUE(segment.ready && segment.bytes == data.size());
  EXPECT_TRUE(std::equal(data.begin(), data.end(), segment.data));
  EXPECT_TRUE(in.receive_into(signature, got.data(), got.size(), &done).is_ok());
  EXPECT_TRUE(done && got == data);
}

TEST_F(DamagedChannel, APlaceOutsideTheRingIsRejected) {
  const uint64_t end = place_.memory->layout().ring_bytes();
  for (const uint64_t place : {end - 99, end, end + 1, ~uint64_t{0} - 50}) {
    shm::ShmRecvChannel in(place_);
    std::memcpy(first_note().payload, &place, sizeof place);
    first_note().bytes = 100;
    first_note().where = static_cast<uint64_t>(shm::Payload::kRing);
    first_note().sequence = 1;
    Segment segment;
    EXPECT_EQ(in.peek(&segment).code(), Code::kRemote) << place;
  }
}

TEST_F(DamagedChannel, APayloadOfAnUnknownKindIsRejected) {
  shm::ShmRecvChannel in(place_);
  first_note().where = 17;
  first_note().sequence = 1;
  Segment segment;
  EXPECT_EQ(in.peek(&segment).code(), Code::kRemote);
}

TEST_F(DamagedChannel, ASegmentNumberOutOfTurnIsRejected) {
  shm::ShmRecvChannel in(place_);
  first_note().sequence = 9;
  Segment segment;
  EXPECT_EQ(in.peek(&segment).code(), Code::kRemote);
}

TEST_F(DamagedChannel, CreditForSegmentsNeverSentIsRejected) {
  shm::ShmSendChannel out(place_);
  std::byte* slot = nullptr;
  for (size_t i = 0; i < shm::kNotes; ++i) {
    ASSERT_TRUE(out.reserve(&slot).is_ok());
    ASSERT_TRUE(out.commit({}, 0).is_ok());
  }
  header().released = 99;
  EXPECT_EQ(out.reserve(&slot).code(), Code::kRemote);
}

TEST_F(DamagedChannel, ADirectoryEntryOutOfRangeIsRejected) {
  auto* directory = reinterpret_cast<std::atomic<uint32_t>*>(
      reinterpret_cast<std::byte*>(&place_.memory->control(0)) + 2 * sizeof(shm::RankControl));
  directory[place_.memory->layout().directory_entry(1, 0, 5)] = 0xfffffff0;
  EXPECT_EQ(place_.memory->channel(1, 0, 5).status().code(), Code::kRemote);
}

}  // namespace
}  // namespace libcomm::testing
