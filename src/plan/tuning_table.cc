#include "src/plan/tuning_table.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>

#include "src/base/fd.h"
#include "src/base/knobs.h"

namespace libcomm {
namespace {

constexpr std::string_view kTitle = "libcomm tuning table ";
constexpr std::string_view kVersion = "1";
constexpr size_t kFields = 10;
constexpr int kMostLanes = 16;
constexpr int kMostRanks = 1 << 20;

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

// A piece of a stranger's text, short enough for a message.
std::string_view excerpt(std::string_view text) { return text.substr(0, 60); }

// Reads the fields of one row, each with the reason why it is not good.
class RowReader {
 public:
  RowReader(const std::string& source, int line) : source_(source), line_(line) {}

  Status read(std::string_view text, TuningRow* row) {
    std::array<std::string_view, kFields> field;
    size_t count = 0;
    for (;; ++count) {
      const size_t comma = text.find(',');
      if (count < kFields) field[count] = trim(text.substr(0, comma));
      if (comma == std::string_view::npos) break;
      text.remove_prefix(comma + 1);
    }
    if (++count != kFields)
      return bad(
          "{} fields; expected ten: collective, least bytes, most bytes, ranks, hosts, path, "
          "algorithm, lanes, window, microseconds",
          count);
    row->line = line_;
    COMM_TRY(collective(field[0], &row->collective));
    COMM_TRY(size("least bytes", field[1], 0, SIZE_MAX, &row->min_bytes));
    if (field[2] != "*") COMM_TRY(size("most bytes", field[2], 0, SIZE_MAX, &row->max_bytes));
    if (row->min_bytes > row->max_bytes)
      return bad("least bytes {} are more than most bytes {}", row->min_bytes, row->max_bytes);
    COMM_TRY(number("ranks", field[3], kMostRanks, &row->nranks));
    COMM_TRY(number("hosts", field[4], kMostRanks, &row->hosts));
    if (field[5] != "*") {
      row->medium = find_medium(field[5]);
      if (!row->medium)
        return bad("path '{}' is not one of: memory, sockets, network, *", excerpt(field[5]));
    }
    COMM_TRY(way(field[6], &row->way));
    COMM_TRY(number("lanes", field[7], kMostLanes, &row->lanes));
    if (field[8] != "*")
      COMM_TRY(size("window", field[8], kLeastWindow, kMostWindow, &row->window));
    if (field[9] != "*") COMM_TRY(microseconds(field[9], &row->microseconds));
    return Status::ok();
  }

  template <typename... Args>
  Status bad(fmt::format_string<Args...> format, Args&&... args) const {
    return error(Code::kInvalidArgument, "{}, line {}: {}", source_, line_,
                 fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  Status collective(std::string_view text, Collective* value) const {
    for (int i = 0; i < kNumCollectives; ++i) {
      *value = static_cast<Collective>(i);
      if (*value != Collective::kSendRecv && text == name_of(*value)) return Status::ok();
    }
    std::string names;
    for (int i = 0; i < kNumCollectives; ++i)
      if (static_cast<Collective>(i) != Collective::kSendRecv)
        names += std::string(names.empty() ? "" : ", ") + name_of(static_cast<Collective>(i));
    return bad("collective '{}' is not one of: {}", excerpt(text), names);
  }

  Status way(std::string_view text, Way* value) const {
    if (const auto found = find_way(text)) {
      *value = *found;
      return Status::ok();
    }
    std::string names;
    for (int i = 0; i < kNumWays; ++i)
      names += std::string(names.empty() ? "" : ", ") + name_of(static_cast<Way>(i));
    return bad("algorithm '{}' is not one of: {}", excerpt(text), names);
  }

  Status size(const char* what, std::string_view text, size_t least, size_t most,
              size_t* value) const {
    uint64_t bytes = 0;
    if (!parse_size(text, &bytes) || bytes < least || bytes > most)
      return bad("{} '{}': expected a size{} such as 4096 or 64K", what, excerpt(text),
                 most == SIZE_MAX ? "" : fmt::format(" from {} to {}", least, most));
    *value = bytes;
    return Status::ok();
  }

  Status number(const char* what, std::string_view text, int most, int* value) const {
    if (text == "*") return Status::ok();
    const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value);
    if (err != std::errc() || end != text.data() + text.size() || *value < 1 || *value > most)
      return bad("{} '{}': expected a number from 1 to {}, or * for any", what, excerpt(text),
                 most);
    return Status::ok();
  }

  Status microseconds(std::string_view text, double* value) const {
    const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value);
    if (err != std::errc() || end != text.data() + text.size() || !std::isfinite(*value) ||
        *value < 0)
      return bad("microseconds '{}': expected a number, or * when unknown", excerpt(text));
    return Status::ok();
  }

  const std::string& source_;
  int line_;
};

template <typename T>
std::string or_star(T value, T star) {
  return value == star ? "*" : fmt::format("{}", value);
}

}  // namespace

Result<TuningTable> TuningTable::parse(std::string_view text, std::string source) {
  if (text.size() > kMostTableBytes)
    return error(Code::kInvalidArgument, "{}: {} bytes; a tuning table has at most {}", source,
                 text.size(), kMostTableBytes);
  TuningTable table(std::move(source));
  for (int line = 1; line == 1 || !text.empty(); ++line) {
    const size_t end = text.find('\n');
    const std::string_view content = trim(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    RowReader reader(table.source_, line);
    for (const unsigned char c : content)
      if (std::iscntrl(c) && c != '\t')
        return reader.bad("it holds a control character; a tuning table is plain text");
    if (line == 1) {
      const size_t colon = content.find(':');
      if (!content.starts_with(kTitle) || colon == std::string_view::npos)
        return reader.bad("'{}': expected '{}{}: MACHINE', as comm-tune writes it",
                          excerpt(content), kTitle, kVersion);
      const std::string_view version = content.substr(0, colon).substr(kTitle.size());
      if (version != kVersion)
        return reader.bad("version '{}'; this library reads version {}: run its comm-tune again",
                          excerpt(version), kVersion);
      table.machine_ = std::string(trim(content.substr(colon + 1)));
      continue;
    }
    if (content.empty() || content.front() == '#') continue;
    if (table.rows_.size() == kMostTableRows)
      return reader.bad("a tuning table has at most {} rows", kMostTableRows);
    TuningRow row;
    COMM_TRY(reader.read(content, &row));
    table.rows_.push_back(row);
  }
  return table;
}

Result<std::string> read_table_file(const std::string& path, const std::string& source) {
  const auto refuse = [&](std::string_view why) {
    return error(Code::kInvalidArgument,
                 "{}: {}; name a file that comm-tune wrote, readable for rank 0", source, why);
  };
  // Without waiting for a writer, should the name be a pipe's.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return refuse(std::strerror(errno));
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) return refuse(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return refuse("it is no plain file");
  std::string text(kMostTableBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refuse(std::strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMostTableBytes)
    return refuse(fmt::format("it has more than the {} bytes of a tuning table", kMostTableBytes));
  text.resize(size);
  return text;
}

std::string TuningTable::place_of(const TuningRow& row) const {
  return row.line == 0 ? source_ : fmt::format("{}, line {}", source_, row.line);
}

const TuningRow* TuningTable::find(const TuningKey& key) const {
  const auto row = std::find_if(rows_.begin(), rows_.end(),
                                [&](const TuningRow& candidate) { return candidate.fits(key); });
  return row == rows_.end() ? nullptr : &*row;
}

std::string TuningTable::to_text() const {
  std::string text = fmt::format("{}{}: {}\n", kTitle, kVersion, machine_);
  text +=
      "# collective, least bytes, most bytes, ranks, hosts, path, algorithm, lanes, window, "
      "microseconds\n";
  for (const TuningRow& row : rows_) {
    text += fmt::format("{}, {}, {}, {}, {}, {}, {}, {}, {}, {}\n", name_of(row.collective),
                        row.min_bytes, or_star(row.max_bytes, SIZE_MAX), or_star(row.nranks, 0),
                        or_star(row.hosts, 0), row.medium ? name_of(*row.medium) : "*",
                        name_of(row.way), or_star(row.lanes, 0), or_star(row.window, size_t{0}),
                        row.microseconds < 0 ? "*" : fmt::format("{:.4g}", row.microseconds));
  }
  return text;
}

}  // namespace libcomm
