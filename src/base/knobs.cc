#include "src/base/knobs.h"

#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "src/base/fork_mutex.h"
#include "src/base/log.h"

extern char** environ;

namespace libcomm {
namespace {

constexpr KnobRow kTable[] = {
#define KNOB(id, name, type, fallback, range, decides, sentence) \
  {Knob::id, name, KnobType::type, fallback, range, KnobScope::decides, sentence},
#include "src/base/knobs.def"
#undef KNOB
};

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

const KnobRow* find_row(std::string_view name) {
  for (const KnobRow& row : kTable)
    if (name == row.name) return &row;
  return nullptr;
}

bool parse_int(std::string_view text, int64_t* value) {
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return err == std::errc() && end == text.data() + text.size() && !text.empty();
}

bool parse_double(std::string_view text, double* value) {
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return err == std::errc() && end == text.data() + text.size() && !text.empty();
}

// Position of `value` among "a|b|c", or -1.
int choice_index(std::string_view choices, std::string_view value) {
  for (int i = 0;; ++i) {
    const size_t bar = choices.find('|');
    if (same_word(choices.substr(0, bar), value)) return i;
    if (bar == std::string_view::npos) return -1;
    choices.remove_prefix(bar + 1);
  }
}

Status bad_value(const KnobRow& row, std::string_view value, std::string_view origin) {
  return error(Code::kInvalidArgument, "COMM_{}={} ({}) is not valid: expected {}{}", row.name,
               value, origin, row.type == KnobType::Seconds ? "seconds, " : "",
               *row.range ? row.range : "text");
}

// "least..most" with sizes allowed on both sides.
bool in_range(const KnobRow& row, double value) {
  const std::string_view range = row.range;
  const size_t dots = range.find("..");
  if (dots == std::string_view::npos) return true;
  auto bound = [](std::string_view text) {
    uint64_t size = 0;
    double number = 0;
    if (parse_double(text, &number)) return number;
    return parse_size(text, &size) ? static_cast<double>(size) : 0.0;
  };
  return value >= bound(range.substr(0, dots)) && value <= bound(range.substr(dots + 2));
}

// '#' starts a comment at the start of a line or after a blank: a secret may hold one.
std::string_view without_comment(std::string_view line) {
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '#' && (i == 0 || std::isspace(static_cast<unsigned char>(line[i - 1]))))
      return line.substr(0, i);
  }
  return line;
}

// Where values come from.
struct Source {
  std::string origin;
  std::map<std::string, std::string> values;
  std::vector<int> bad_lines;  // of a file; those that are not "NAME=value"
};

// Lines "NAME=value" or "COMM_NAME=value".
Source read_conf(const std::string& path, std::string origin) {
  Source source{std::move(origin), {}, {}};
  std::ifstream file(path);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const std::string_view view = trim(without_comment(line));
    const size_t equals = view.find('=');
    if (equals == std::string_view::npos) {
      if (!view.empty()) source.bad_lines.push_back(number);
      continue;
    }
    std::string_view name = trim(view.substr(0, equals));
    if (name.starts_with("COMM_")) name.remove_prefix(5);
    source.values[std::string(name)] = std::string(trim(view.substr(equals + 1)));
  }
  return source;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// False when this process has warned of it before.
bool is_news(const std::string& what) {
  static ForkMutex mutex;
  static std::set<std::string> warned;
  std::lock_guard lock(mutex);
  return warned.insert(what).second;
}

// The lines themselves may hold a secret.
void warn_bad_lines(const Source& file) {
  if (file.bad_lines.empty()) return;
  constexpr size_t kMost = 8;
  const size_t named = std::min(file.bad_lines.size(), kMost);
  std::string text = file.bad_lines.size() == 1 ? "line" : "lines";
  for (size_t i = 0; i < named; ++i)
    text += fmt::format("{} {}", i == 0 ? "" : ",", file.bad_lines[i]);
  if (named < file.bad_lines.size()) text += ", ...";
  text += " of " + file.origin;
  if (is_news(text)) log_warn("{}: no '=', so no effect; write NAME=value", text);
}

void warn_unknown(std::string_view name, std::string_view origin) {
  if (!is_news(std::string(name))) return;
  if (const KnobRow* near = nearest_knob(name)) {
    log_warn(
        "COMM_{} ({}) is not a knob of this library; did you mean COMM_{}? See comm-info --knobs",
        name, origin, near->name);
  } else {
    log_warn("COMM_{} ({}) is not a knob of this library; see comm-info --knobs", name, origin);
  }
}

struct GivenDefault {
  std::string value;
  std::string origin;
};

// What set_knob_default() was told.
class GivenDefaults {
 public:
  // Made while the library is loaded: a fork must not find it half made.
  static GivenDefaults& instance() {
    static GivenDefaults* const given = new GivenDefaults;
    return *given;
  }
  void put(Knob id, std::string_view value, std::string_view origin) {
    std::lock_guard lock(mutex_);
    of_[id] = {std::string(value), std::string(origin)};
  }
  void take_back(Knob id) {
    std::lock_guard lock(mutex_);
    of_.erase(id);
  }
  std::map<Knob, GivenDefault> all() {
    std::lock_guard lock(mutex_);
    return of_;
  }

 private:
  ForkMutex mutex_;
  std::map<Knob, GivenDefault> of_;
};

[[maybe_unused]] const GivenDefaults& g_made_early = GivenDefaults::instance();

// Names that belong to programs of this project rather than to the library.
bool belongs_to_programs(std::string_view name) { return name.starts_with("TESTS_"); }

}  // namespace

std::span<const KnobRow> knob_table() { return kTable; }

bool parse_size(std::string_view text, uint64_t* bytes) {
  text = trim(text);
  if (!text.empty() && (text.back() == 'B' || text.back() == 'b') && text.size() > 1)
    text.remove_suffix(1);
  int shift = 0;
  if (!text.empty()) {
    switch (text.back()) {
      case 'k':
      case 'K':
        shift = 10;
        break;
      case 'm':
      case 'M':
        shift = 20;
        break;
      case 'g':
      case 'G':
        shift = 30;
        break;
      case 't':
      case 'T':
        shift = 40;
        break;
      default:
        break;
    }
  }
  if (shift) text.remove_suffix(1);
  int64_t value = 0;
  if (!parse_int(text, &value) || value < 0) return false;
  if (value > (std::numeric_limits<int64_t>::max() >> shift)) return false;
  *bytes = static_cast<uint64_t>(value) << shift;
  return true;
}

const KnobRow* nearest_knob(std::string_view name) {
  const KnobRow* best = nullptr;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const KnobRow& row : kTable) {
    const size_t distance = edit_distance(name, row.name);
    if (distance < best_distance) {
      best_distance = distance;
      best = &row;
    }
  }
  return best;
}

Status Knobs::set(Knob id, std::string_view raw, std::string_view origin) {
  const KnobRow& row = kTable[index(id)];
  const std::string_view value = trim(raw);
  // Values travel between ranks as lines.
  if (std::any_of(value.begin(), value.end(), [](unsigned char c) { return std::iscntrl(c); }))
    return error(Code::kInvalidArgument, "COMM_{} ({}) is not valid: it holds a control character",
                 row.name, origin);
  int64_t number = 0;
  double seconds = 0;
  switch (row.type) {
    case KnobType::Bool:
      if (same_word(value, "1") || same_word(value, "true") || same_word(value, "yes")) {
        number = 1;
      } else if (!same_word(value, "0") && !same_word(value, "false") && !same_word(value, "no")) {
        return bad_value(row, value, origin);
      }
      break;
    case KnobType::Int:
      if (!parse_int(value, &number) || !in_range(row, static_cast<double>(number)))
        return bad_value(row, value, origin);
      break;
    case KnobType::Size: {
      uint64_t size = 0;
      if (!parse_size(value, &size) || !in_range(row, static_cast<double>(size)))
        return bad_value(row, value, origin);
      number = static_cast<int64_t>(size);
      break;
    }
    case KnobType::Seconds:
      if (!parse_double(value, &seconds) || !in_range(row, seconds))
        return bad_value(row, value, origin);
      break;
    case KnobType::Choice:
      number = choice_index(row.range, value);
      if (number < 0) return bad_value(row, value, origin);
      break;
    case KnobType::String:
      break;
  }
  text_[index(id)] = std::string(value);
  origin_[index(id)] = std::string(origin);
  number_[index(id)] = number;
  seconds_[index(id)] = seconds;
  return Status::ok();
}

Result<std::shared_ptr<const Knobs>> Knobs::load() {
  auto knobs = std::make_shared<Knobs>();
  for (const KnobRow& row : kTable) COMM_TRY(knobs->set(row.id, row.fallback, "default"));
  for (const auto& [id, given] : GivenDefaults::instance().all())
    COMM_TRY(knobs->set(id, given.value, given.origin));

  // Weakest source first, so that stronger ones overwrite it.
  std::vector<Source> sources;
  sources.push_back(read_conf("/etc/comm.conf", "/etc/comm.conf"));
  if (const char* home = std::getenv("HOME"))
    sources.push_back(read_conf(std::string(home) + "/.comm.conf", "~/.comm.conf"));
  std::map<std::string, std::string> from_environment;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view pair = *entry;
    const size_t equals = pair.find('=');
    if (!pair.starts_with("COMM_") || equals == std::string_view::npos) continue;
    from_environment[std::string(pair.substr(5, equals - 5))] =
        std::string(pair.substr(equals + 1));
  }
  sources.push_back({"environment", std::move(from_environment), {}});

  std::vector<std::pair<std::string, std::string>> unknown;
  Status first_bad;
  for (const Source& source : sources) {
    for (const auto& [name, value] : source.values) {
      const KnobRow* row = find_row(name);
      if (row == nullptr) {
        if (!belongs_to_programs(name)) unknown.emplace_back(name, source.origin);
        continue;
      }
      // Launchers export empty variables: they ask for the table's default.
      const std::string_view wanted = trim(value).empty() ? row->fallback : std::string_view(value);
      Status status = knobs->set(row->id, wanted, source.origin);
      if (!status && first_bad.is_ok()) first_bad = std::move(status);
    }
  }

  std::string unknown_subsystem;
  const unsigned subsystems =
      parse_subsystems(knobs->get_string(Knob::kDebugSubsys), &unknown_subsystem);
  configure_log(static_cast<LogLevel>(knobs->get_choice(Knob::kDebug)), subsystems,
                knobs->get_string(Knob::kDebugFile));
  for (const Source& source : sources) warn_bad_lines(source);
  for (const auto& [name, origin] : unknown) warn_unknown(name, origin);
  if (!unknown_subsystem.empty() && first_bad.is_ok()) {
    first_bad = error(Code::kInvalidArgument,
                      "COMM_DEBUG_SUBSYS={}: {} is not one of the parts that log; see "
                      "comm-info --knobs",
                      knobs->get_string(Knob::kDebugSubsys), unknown_subsystem);
  }
  if (!first_bad) return first_bad;
  for (const KnobRow& row : kTable) {
    if (knobs->is_set(row.id))
      log_info(Subsys::kEnv, "COMM_{}={} ({})", row.name,
               row.id == Knob::kSecret ? "(hidden)" : knobs->text_[index(row.id)],
               knobs->origin_[index(row.id)]);
  }
  return std::shared_ptr<const Knobs>(std::move(knobs));
}

Status set_knob_default(std::string_view knob, const char* value, std::string_view origin) {
  const KnobRow* row = knob.starts_with("COMM_") ? find_row(knob.substr(5)) : nullptr;
  if (row == nullptr)
    return error(Code::kInvalidArgument, "{} is not a knob of this library; see comm-info --knobs",
                 knob);
  if (value == nullptr) {
    GivenDefaults::instance().take_back(row->id);
    return Status::ok();
  }
  Knobs scratch;
  COMM_TRY(scratch.set(row->id, value, origin));
  GivenDefaults::instance().put(row->id, value, origin);
  return Status::ok();
}

std::string Knobs::agreed_text() const {
  std::string text;
  for (const KnobRow& row : kTable) {
    if (row.scope == KnobScope::kAgreed && is_set(row.id))
      text += fmt::format("{}={}\n", row.name, text_[index(row.id)]);
  }
  return text;
}

Result<std::shared_ptr<const Knobs>> Knobs::with_agreed(std::string_view text,
                                                        std::string* differing) const {
  auto copy = std::make_shared<Knobs>(*this);
  std::map<std::string, std::string> wanted;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    wanted[std::string(line.substr(0, equals))] = std::string(line.substr(equals + 1));
  }
  for (const KnobRow& row : kTable) {
    if (row.scope != KnobScope::kAgreed) continue;
    const auto it = wanted.find(row.name);
    const bool is_set_there = it != wanted.end();
    const std::string& value = is_set_there ? it->second : std::string(row.fallback);
    const bool same = value == text_[index(row.id)];
    // Whether a knob is set at all is agreed too.
    if (same && is_set_there == is_set(row.id)) continue;
    COMM_TRY(copy->set(row.id, value, is_set_there ? "rank 0" : "default"));
    if (differing && !same)
      *differing += fmt::format("{}COMM_{}", differing->empty() ? "" : ", ", row.name);
  }
  return std::shared_ptr<const Knobs>(std::move(copy));
}

}  // namespace libcomm
