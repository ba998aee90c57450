#include "tools/info/knob_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "src/topology/json.h"

namespace libcomm {
namespace {

const char* name_of(KnobType type) {
  switch (type) {
    case KnobType::Bool:
      return "0 or 1";
    case KnobType::Int:
      return "integer";
    case KnobType::Size:
      return "size";
    case KnobType::Seconds:
      return "seconds";
    case KnobType::String:
      return "text";
    case KnobType::Choice:
      return "word";
  }
  return "";
}

// What may be shown of a value: the job's secret stays one.
std::string shown_value(const Knobs& knobs, const KnobRow& row) {
  const std::string& value = knobs.get_string(row.id);
  return row.id == Knob::kSecret && !value.empty() ? "(hidden)" : value;
}

std::string or_dash(std::string_view text) { return text.empty() ? "-" : std::string(text); }

std::string range_of(const KnobRow& row) {
  return *row.range != '\0' ? std::string(row.range) : "any text";
}

// A table cell: '|' would end it.
std::string cell(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

constexpr const char* kMarkdownHead =
    R"(# Knobs

This page is made from the knob table (`src/base/knobs.def`) by `./dev docs`; do not edit it.

A knob is a setting whose name starts with `COMM_`. It comes from, strongest first: the environment,
`~/.comm.conf`, `/etc/comm.conf`, the program (`commSetKnobDefault`; [nccl.md](nccl.md) for NCCL programs), this table's
default. The files hold lines `NAME=value` (with or without `COMM_`); `#` starts a comment. An empty value asks for the
table's default. A communicator reads all knobs when it is
created and keeps them.

`build/bin/comm-info --knobs` shows the values in force and where each comes from. A value out of range is
an error that names the knob; an unknown `COMM_` name is one warning that names the nearest knob. Sizes
take K, M, G and T (powers of 1024).

"Decided by rank 0": ranks must act alike, so all ranks of a communicator use rank 0's value, and a rank
whose own value differs says so once. "Each rank": every process follows its own.

| name | value | default | may be | decided by | meaning |
|---|---|---|---|---|---|
)";

}  // namespace

std::string knobs_as_text(const Knobs& knobs) {
  using Line = std::array<std::string, 6>;
  std::vector<Line> lines = {{"NAME", "VALUE", "FROM", "DEFAULT", "MAY BE", "MEANING"}};
  for (const KnobRow& row : knob_table()) {
    lines.push_back({fmt::format("COMM_{}", row.name), or_dash(shown_value(knobs, row)),
                     knobs.origin(row.id), or_dash(row.fallback), range_of(row), row.sentence});
  }
  std::array<size_t, 5> width{};
  for (const Line& line : lines) {
    for (size_t i = 0; i < width.size(); ++i) width[i] = std::max(width[i], line[i].size());
  }
  std::string text;
  for (const Line& line : lines) {
    for (size_t i = 0; i < width.size(); ++i) text += fmt::format("{:<{}}  ", line[i], width[i]);
    text += line.back() + "\n";
  }
  return text;
}

std::string knobs_as_json(const Knobs& knobs) {
  std::string text = "[";
  for (const KnobRow& row : knob_table()) {
    text += fmt::format(
        "{}\n    {{\"name\": {}, \"value\": {}, \"from\": {}, \"default\": {}, \"range\": {}, "
        "\"decided_by\": {}, \"meaning\": {}}}",
        text.size() == 1 ? "" : ",", json_quoted(fmt::format("COMM_{}", row.name)),
        json_quoted(shown_value(knobs, row)), json_quoted(knobs.origin(row.id)),
        json_quoted(row.fallback), json_quoted(row.range),
        json_quoted(row.scope == KnobScope::kAgreed ? "rank 0" : "each rank"),
        json_quoted(row.sentence));
  }
  return text + "\n  ]";
}

std::string knobs_as_markdown() {
  std::string text = kMarkdownHead;
  for (const KnobRow& row : knob_table()) {
    text +=
        fmt::format("| `COMM_{}` | {} | {} | {} | {} | {} |\n", row.name, name_of(row.type),
                    *row.fallback != '\0' ? fmt::format("`{}`", row.fallback) : "empty",
                    *row.range != '\0' ? fmt::format("`{}`", cell(row.range)) : "any text",
                    row.scope == KnobScope::kAgreed ? "rank 0" : "each rank", cell(row.sentence));
  }
  return text;
}

}  // namespace libcomm
