#include "benchmarks/harness/bench.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <string>

#include "benchmarks/harness/data.h"
#include "benchmarks/harness/watchdog.h"
#include "benchmarks/harness/world.h"

namespace bench {
namespace {

constexpr int kMostComplaints = 10;  // per process; the table has the full counts

double elapsed_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double thread_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

commRedOp_t library_op(Op op) {
  switch (op) {
    case Op::kProd:
      return commProd;
    case Op::kMax:
      return commMax;
    case Op::kMin:
      return commMin;
    case Op::kAvg:
      return commAvg;
    case Op::kBand:
      return commBand;
    case Op::kBor:
      return commBor;
    case Op::kBxor:
      return commBxor;
    default:
      return commSum;  // mulsum's are created
  }
}

// One (type, operator, root): the data, the operators and what the results must be.
struct Pass {
  const TypeInfo& type;
  Op op;
  int root;                         // -1: the collective has none
  const char* redop;                // as printed
  std::vector<Pattern> inputs;      // by member
  std::vector<Pattern> sources;     // by rank, when data is only moved
  std::vector<Pattern> reduced;     // one, when reducing
  std::vector<commRedOp_t> redops;  // by member
};

enum class Placement { kOutOfPlace, kInPlace };

class Bench {
 public:
  Bench(const Collective& collective, const Options& options, Team& team, Report* report,
        Watchdog* watchdog)
      : collective_(collective),
        options_(options),
        team_(team),
        report_(report),
        watchdog_(watchdog),
        sizes_(sizes_of(options)) {}

  int64_t run();

 private:
  std::vector<int> roots() const;
  size_t count_rows() const;
  void run_pass(commDataType_t type, Op op, int root);
  Pass prepare(commDataType_t type, Op op, int root);
  void finish(Pass& pass);
  void fill_buffers(const Pass& pass);
  Row measure_row(const Pass& pass, size_t bytes);
  Measurement measure(const Pass& pass, const Shape& shape, Placement placement, size_t bytes);
  double time_calls(const Pass& pass, const Shape& shape, Placement placement, size_t bytes);
  double average(const std::vector<double>& seconds);
  void launch(const Pass& pass, const Shape& shape, Placement placement, int times);
  int64_t check(const Pass& pass, const Shape& shape, Placement placement);
  void prepare_check(const Pass& pass, const Shape& shape, Placement placement, size_t index);
  int64_t check_member(const Pass& pass, const Shape& shape, Placement placement, size_t index);
  void complain(const Pass& pass, const Shape& shape, Placement placement, int rank,
                const char* what, const Mismatches& wrong) const;
  char* send_at(const Pass& pass, const Shape& shape, Placement placement, Member& member) const;
  char* recv_at(const Pass& pass, const Shape& shape, Placement placement, Member& member) const;

  const Collective& collective_;
  const Options& options_;
  Team& team_;
  Report* report_;
  Watchdog* watchdog_;
  std::vector<size_t> sizes_;
  size_t rows_done_ = 0;
  int64_t own_wrong_ = 0;  // seen by this thread's ranks
  int64_t all_wrong_ = 0;  // over all ranks
};

std::vector<int> Bench::roots() const {
  if (!collective_.rooted) return {-1};
  if (options_.root) return {*options_.root};
  std::vector<int> all(static_cast<size_t>(team_.nranks()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
  return all;
}

size_t Bench::count_rows() const {
  size_t passes = 0;
  for (const commDataType_t type : options_.types) {
    if (!collective_.reduces) ++passes;
    if (!collective_.reduces) continue;
    for (const Op op : options_.ops) passes += is_defined(op, type_info(type));
  }
  return passes * roots().size() * sizes_.size() * static_cast<size_t>(options_.run_cycles);
}

int64_t Bench::run() {
  const std::vector<Op> none{Op::kSum};
  for (int cycle = 0; options_.run_cycles == 0 || cycle < options_.run_cycles; ++cycle) {
    for (const commDataType_t type : options_.types) {
      for (const Op op : collective_.reduces ? options_.ops : none) {
        if (!is_defined(op, type_info(type))) continue;
        for (const int root : roots()) run_pass(type, op, root);
      }
    }
  }
  if (report_ != nullptr) report_->footer(all_wrong_);
  // A wrong sum over ranks must not hide wrong values: a rank's own count decides too.
  return std::max(own_wrong_, all_wrong_);
}

void Bench::run_pass(commDataType_t type, Op op, int root) {
  Pass pass = prepare(type, op, root);
  fill_buffers(pass);
  for (const size_t bytes : sizes_) {
    if (watchdog_ != nullptr) watchdog_->restart("a row of " + std::to_string(bytes) + " bytes");
    if (report_ != nullptr) {
      report_->progress(rows_done_, count_rows(), bytes, pass.type.name, pass.redop);
    }
    const Row row = measure_row(pass, bytes);
    if (report_ != nullptr) report_->row(row);
    ++rows_done_;
  }
  finish(pass);
}

Pass Bench::prepare(commDataType_t type, Op op, int root) {
  Pass pass{type_info(type), op, root, collective_.reduces ? name_of(op) : "none", {}, {}, {}, {}};
  if (!collective_.reduces) {
    for (int rank = 0; rank < team_.nranks(); ++rank) {
      pass.sources.push_back(Pattern::unique(pass.type, rank));
    }
    for (const Member& member : team_.members()) {
      pass.inputs.push_back(pass.sources[static_cast<size_t>(member.rank)]);
      pass.redops.push_back(commSum);
    }
    return pass;
  }
  const ReduceData data(pass.type, op, team_.nranks());
  pass.reduced.push_back(data.result());
  for (Member& member : team_.members()) {
    pass.inputs.push_back(data.input(member.rank));
    pass.redops.push_back(library_op(op));
    if (op == Op::kMulSum) {
      uint64_t scalar = data.scalar(member.rank);  // little-endian: its first bytes are the element
      require(commRedOpCreatePreMulSum(&pass.redops.back(), &scalar, type, commScalarHostImmediate,
                                       member.comm),
              "commRedOpCreatePreMulSum", member.rank, member.comm);
    }
  }
  return pass;
}

void Bench::finish(Pass& pass) {
  if (!collective_.reduces || pass.op != Op::kMulSum) return;
  for (size_t i = 0; i < pass.redops.size(); ++i) {
    const Member& member = team_.members()[i];
    require(commRedOpDestroy(pass.redops[i], member.comm), "commRedOpDestroy", member.rank,
            member.comm);
  }
}

// Timed calls must not read never-written memory: all of it would be one cached page of zeros.
void Bench::fill_buffers(const Pass& pass) {
  for (size_t i = 0; i < team_.members().size(); ++i) {
    Member& member = team_.members()[i];
    for (const Buffer* buffer : {&member.send, &member.recv}) {
      pass.inputs[i].fill(buffer->data(), buffer->capacity() / pass.type.size, 0);
    }
  }
}

Row Bench::measure_row(const Pass& pass, size_t bytes) {
  const size_t elements = bytes / pass.type.size;
  const Shape shape =
      collective_.shape(elements, static_cast<size_t>(team_.nranks()), pass.type.size);
  Row row;
  row.bytes = std::max(shape.send, shape.recv) * pass.type.size;
  row.count = shape.count;
  row.type = pass.type.name;
  row.redop = pass.redop;
  row.root = pass.root;
  row.iterations = iterations_for(options_, bytes);
  row.out_of_place = measure(pass, shape, Placement::kOutOfPlace, bytes);
  if (collective_.in_place) {
    row.in_place = measure(pass, shape, Placement::kInPlace, bytes);
  }
  return row;
}

Measurement Bench::measure(const Pass& pass, const Shape& shape, Placement placement,
                           size_t bytes) {
  const double seconds = time_calls(pass, shape, placement, bytes);
  Measurement result;
  result.time_us = seconds * 1e6;
  const auto moved =
      static_cast<double>(std::max(shape.send, shape.recv)) * static_cast<double>(pass.type.size);
  result.algbw = seconds > 0 ? moved / seconds * 1e-9 : 0;
  result.busbw = result.algbw * collective_.bus_factor(team_.nranks());
  if (options_.check > 0) {
    int64_t wrong = 0;
    for (int round = 0; round < options_.check; ++round) wrong += check(pass, shape, placement);
    result.wrong = wrong;
    all_wrong_ += wrong;
  }
  return result;
}

// Seconds per operation, combined over ranks as -a says.
double Bench::time_calls(const Pass& pass, const Shape& shape, Placement placement, size_t bytes) {
  for (int i = warmups_for(options_, bytes); i > 0; --i) {
    launch(pass, shape, placement, options_.agg_iters);
  }
  team_.synchronize();
  team_.barrier();
  const auto clock = options_.cpu_time ? thread_cpu_seconds : elapsed_seconds;
  const int iterations = iterations_for(options_, bytes);
  const double start = clock();
  for (int i = 0; i < iterations; ++i) {
    launch(pass, shape, placement, options_.agg_iters);
    if (options_.blocking) team_.synchronize();
  }
  team_.synchronize();
  const double seconds = (clock() - start) / iterations / options_.agg_iters;
  return average(std::vector<double>(team_.members().size(), seconds));
}

double Bench::average(const std::vector<double>& seconds) {
  switch (average_of(options_)) {
    case Average::kMin:
      return team_.combine(seconds, commMin);
    case Average::kMax:
      return team_.combine(seconds, commMax);
    case Average::kMean:
      return team_.combine(seconds, commSum) / team_.nranks();
    default: {
      std::vector<double> only_rank0(seconds.size(), 0.0);
      if (team_.has_rank0()) only_rank0.front() = seconds.front();
      return team_.combine(only_rank0, commSum);
    }
  }
}

char* Bench::send_at(const Pass& pass, const Shape& shape, Placement placement,
                     Member& member) const {
  if (placement == Placement::kOutOfPlace) return member.send.data();
  return member.recv.data() + static_cast<size_t>(member.rank) * shape.send_offset * pass.type.size;
}

char* Bench::recv_at(const Pass& pass, const Shape& shape, Placement placement,
                     Member& member) const {
  if (placement == Placement::kOutOfPlace) return member.recv.data();
  return member.recv.data() + static_cast<size_t>(member.rank) * shape.recv_offset * pass.type.size;
}

void Bench::launch(const Pass& pass, const Shape& shape, Placement placement, int times) {
  team_.each(collective_.program, times, [&](Member& member) {
    const auto i = static_cast<size_t>(&member - team_.members().data());
    return collective_.run({send_at(pass, shape, placement, member),
                            recv_at(pass, shape, placement, member), shape.count, pass.type.type,
                            pass.redops[i], pass.root, member.comm, member.rank, team_.nranks(),
                            team_.stream()});
  });
}

// One call on fresh data. Returns the wrong values over all ranks.
int64_t Bench::check(const Pass& pass, const Shape& shape, Placement placement) {
  const size_t members = team_.members().size();
  for (size_t i = 0; i < members; ++i) prepare_check(pass, shape, placement, i);
  launch(pass, shape, placement, 1);
  team_.synchronize();
  std::vector<double> wrong(members);
  for (size_t i = 0; i < members; ++i) {
    const int64_t own = check_member(pass, shape, placement, i);
    own_wrong_ += own;
    wrong[i] = static_cast<double>(own);
  }
  return static_cast<int64_t>(team_.combine(wrong, commSum));
}

void Bench::prepare_check(const Pass& pass, const Shape& shape, Placement placement, size_t index) {
  Member& member = team_.members()[index];
  const size_t size = pass.type.size;
  if (placement == Placement::kOutOfPlace) {
    member.recv.poison(shape.recv * size);
    member.send.poison(shape.send * size);
  } else {
    member.recv.poison(std::max(shape.send, shape.recv) * size);
  }
  pass.inputs[index].fill(send_at(pass, shape, placement, member), shape.send, 0);
}

int64_t Bench::check_member(const Pass& pass, const Shape& shape, Placement placement,
                            size_t index) {
  Member& member = team_.members()[index];
  const size_t size = pass.type.size;
  const char* recv = recv_at(pass, shape, placement, member);
  Mismatches wrong;
  for (const Piece& piece : collective_.result(shape, member.rank, team_.nranks(), pass.root)) {
    const Pattern& pattern = piece.source == kReduced
                                 ? pass.reduced.front()
                                 : pass.sources[static_cast<size_t>(piece.source)];
    wrong.add(pattern.check(recv + piece.offset * size, piece.count, piece.first), piece.offset);
  }
  if (wrong.count > 0) complain(pass, shape, placement, member.rank, "result", wrong);

  auto total = static_cast<int64_t>(wrong.count);
  size_t damaged = 0;
  if (placement == Placement::kOutOfPlace) {
    const Mismatches input = pass.inputs[index].check(member.send.data(), shape.send, 0);
    if (input.count > 0) complain(pass, shape, placement, member.rank, "send buffer", input);
    total += static_cast<int64_t>(input.count);
    damaged =
        member.recv.damaged_bytes(shape.recv * size) + member.send.damaged_bytes(shape.send * size);
  } else {
    damaged = member.recv.damaged_bytes(std::max(shape.send, shape.recv) * size);
  }
  if (damaged > 0) {
    std::fprintf(stderr, "%s: rank %d: %zu x %s %s: %zu bytes changed outside the buffers\n",
                 collective_.program, member.rank, shape.count, pass.type.name, pass.redop,
                 damaged);
  }
  return total + static_cast<int64_t>(damaged);
}

void Bench::complain(const Pass& pass, const Shape& shape, Placement placement, int rank,
                     const char* what, const Mismatches& wrong) const {
  static std::atomic<int> complaints{0};
  if (complaints.fetch_add(1) >= kMostComplaints) return;
  std::fprintf(stderr,
               "%s: rank %d: %zu x %s %s, %s: %zu wrong elements in the %s, the first at %zu: got "
               "%#llx, expected %#llx\n",
               collective_.program, rank, shape.count, pass.type.name, pass.redop,
               placement == Placement::kInPlace ? "in place" : "out of place", wrong.count, what,
               wrong.index, static_cast<unsigned long long>(wrong.got),
               static_cast<unsigned long long>(wrong.expected));
}

}  // namespace

int64_t run_bench(const Collective& collective, const Options& options, Team& team, Report* report,
                  Watchdog* watchdog) {
  return Bench(collective, options, team, report, watchdog).run();
}

}  // namespace bench
