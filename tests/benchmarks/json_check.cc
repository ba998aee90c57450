#include "tests/benchmarks/json_check.h"

#include <cctype>

namespace bench {
namespace {

class Checker {
 public:
  explicit Checker(std::string_view text) : text_(text) {}

  std::string run() {
    if (!value()) return "at byte " + std::to_string(at_) + ": not a value";
    space();
    return at_ == text_.size() ? "" : "at byte " + std::to_string(at_) + ": more text";
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  void space() {
    while (at_ < text_.size() &&
           std::string_view(" \t\r\n").find(peek()) != std::string_view::npos) {
      ++at_;
    }
  }
  bool word(std::string_view wanted) {
    if (text_.substr(at_, wanted.size()) != wanted) return false;
    at_ += wanted.size();
    return true;
  }
  bool digits() {
    const size_t start = at_;
    while (std::isdigit(static_cast<unsigned char>(peek())) != 0) ++at_;
    return at_ > start;
  }
  bool number() {
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      return digits();
    }
    return true;
  }
  bool string() {
    if (!take('"')) return false;
    while (peek() != '"') {
      const auto byte = static_cast<unsigned char>(peek());
      if (byte < 0x20) return false;
      ++at_;
      if (byte != '\\') continue;
      if (take('u')) {
        for (int i = 0; i < 4; ++i, ++at_) {
          if (std::isxdigit(static_cast<unsigned char>(peek())) == 0) return false;
        }
      } else {
        if (std::string_view("\"\\/bfnrt").find(peek()) == std::string_view::npos) return false;
        ++at_;
      }
    }
    return take('"');
  }
  // Items between brackets, separated by commas.
  template <typename Item>
  bool list(char close, Item item) {
    ++at_;
    space();
    if (take(close)) return true;
    do {
      if (!item()) return false;
      space();
    } while (take(','));
    return take(close);
  }
  bool member() {
    space();
    if (!string()) return false;
    space();
    return take(':') && value();
  }
  bool value() {
    space();
    switch (peek()) {
      case '{':
        return list('}', [this] { return member(); });
      case '[':
        return list(']', [this] { return value(); });
      case '"':
        return string();
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::string json_error(std::string_view text) { return Checker(text).run(); }

}  // namespace bench
