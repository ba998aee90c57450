// Knobs: the COMM_* settings, read from the environment, ~/.comm.conf and /etc/comm.conf.
//
// knobs.def is the one table; docs/knobs.md, `comm-info --knobs` and the warning for unknown names
// are made from it. A `Knobs` value is an immutable snapshot: every communicator takes one when it
// is created, so a knob changed later touches only later communicators.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "src/base/status.h"

namespace libcomm {

enum class Knob : int {
#define KNOB(id, name, type, fallback, range, decides, sentence) id,
#include "src/base/knobs.def"
#undef KNOB
  kCount
};

// The rows of knobs.def name these without a prefix; one of them is also the name of a type in
// clock.h.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
enum class KnobType { Bool, Int, Size, Seconds, String, Choice };
#pragma GCC diagnostic pop
enum class KnobScope { kEach, kAgreed };

struct KnobRow {
  Knob id;
  const char* name;  // without COMM_
  KnobType type;
  const char* fallback;  // default, as text
  const char* range;     // "least..most", "a|b|c" or "" for anything
  KnobScope scope;
  const char* sentence;
};

std::span<const KnobRow> knob_table();

class Knobs {
 public:
  // Reads environment, then ~/.comm.conf, then /etc/comm.conf, then what set_knob_default() said
  // (the first that sets a knob wins), checks every value, configures the log, and warns once per
  // process about unknown COMM_ names. kInvalidArgument names the knob, its value and what it may
  // be.
  static Result<std::shared_ptr<const Knobs>> load();

  bool get_bool(Knob id) const { return number(id) != 0; }
  int64_t get_int(Knob id) const { return number(id); }
  uint64_t get_size(Knob id) const { return static_cast<uint64_t>(number(id)); }
  double get_seconds(Knob id) const { return seconds_[index(id)]; }
  const std::string& get_string(Knob id) const { return text_[index(id)]; }
  // Position of the value among the row's choices.
  int get_choice(Knob id) const { return static_cast<int>(number(id)); }
  // "environment", "~/.comm.conf", "/etc/comm.conf", "default", "rank 0", or what
  // set_knob_default() was given.
  const std::string& origin(Knob id) const { return origin_[index(id)]; }
  bool is_set(Knob id) const { return origin_[index(id)] != "default"; }

  // The kAgreed knobs as text, one "NAME=value" line each, for exchange between ranks.
  std::string agreed_text() const;
  // A copy in which the kAgreed knobs have the values of `text` (from rank 0's agreed_text()).
  // `differing` receives the names whose values changed.
  Result<std::shared_ptr<const Knobs>> with_agreed(std::string_view text,
                                                   std::string* differing) const;

 private:
  static size_t index(Knob id) { return static_cast<size_t>(id); }
  int64_t number(Knob id) const { return number_[index(id)]; }
  Status set(Knob id, std::string_view value, std::string_view origin);
  friend Status set_knob_default(std::string_view knob, const char* value, std::string_view origin);

  static constexpr size_t kKnobCount = static_cast<size_t>(Knob::kCount);
  std::array<std::string, kKnobCount> text_;
  std::array<std::string, kKnobCount> origin_;
  std::array<int64_t, kKnobCount> number_{};
  std::array<double, kKnobCount> seconds_{};
};

// What a knob is, in this process, where neither the environment nor a file sets it: `knob` with
// COMM_; a null `value` takes the table's default back; `origin` is what Knobs::origin() answers
// then. kInvalidArgument: no such knob, or not a value of it; nothing is changed then.
Status set_knob_default(std::string_view knob, const char* value, std::string_view origin);

// The knob whose name is nearest to `name` (without COMM_), or nullptr when none is near.
const KnobRow* nearest_knob(std::string_view name);

// "4K", "1M", "2G", "17" to bytes; false when it is not a size.
bool parse_size(std::string_view text, uint64_t* bytes);

}  // namespace libcomm
