// Conf: what NCCL's configuration files say, by NCCL's rules: NCCL_CONF_FILE in place of
// ~/.nccl.conf, where that is the home folder of the user database; then /etc/nccl.conf. A line is
// NAME=value without blanks around the '=', a '#' in its first column makes it a comment, and the
// first line that sets a name wins. The environment is stronger, also where it sets a name to
// nothing.
#pragma once

#include <map>
#include <string>

namespace nccl_binding {

class Conf {
 public:
  // Reads the files. Of a line without '=' the log gets a warning, once as long as the files stay
  // as they are.
  static Conf read();

  struct Setting {
    std::string value;
    std::string origin;  // for logs: "NAME" or "NAME in FILE"
  };
  // What the environment or a file says; null: nothing. Valid until the next call.
  const Setting* find(const char* name);

 private:
  void add(const std::string& path);

  std::map<std::string, Setting> settings_;
  std::string bad_lines_;  // "lines 3, 7 of FILE"
  Setting from_environment_;
};

}  // namespace nccl_binding
