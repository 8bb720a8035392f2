// The simulated driver's log, read back.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "simulated.h"

namespace dlferry::test {

struct LogLine {
  bool is_transfer = false;
  std::string name;
  std::uint64_t source = 0, destination = 0, bytes = 0;
  std::int64_t begin = 0, end = 0, landed = 0;
};

inline std::uint64_t number_in(const std::string& line, const char* name) {
  const std::size_t at = line.find("\"" + std::string(name) + "\":");
  return at == std::string::npos
             ? 0
             : std::strtoull(line.c_str() + line.find(':', at) + 1, nullptr, 10);
}

inline std::string text_in(const std::string& line, const char* name) {
  const std::string key = "\"" + std::string(name) + "\":\"";
  const std::size_t at = line.find(key);
  if (at == std::string::npos) return {};
  const std::size_t begin = at + key.size();
  return line.substr(begin, line.find('"', begin) - begin);
}

// The calls of a function, or the transfers "H2D" or "D2H", in the order in which they ended.
inline std::vector<LogLine> logged(const std::string& name) {
  std::string text(SIM(log)(nullptr, 0) + 1, '\0');
  text.resize(SIM(log)(text.data(), text.size()));
  std::istringstream lines(text);
  std::vector<LogLine> result;
  for (std::string line; std::getline(lines, line);) {
    if (text_in(line, "name") != name) continue;
    result.push_back({.is_transfer = text_in(line, "what") == "transfer",
                      .name = name,
                      .source = number_in(line, "source"),
                      .destination = number_in(line, "destination"),
                      .bytes = number_in(line, "bytes"),
                      .begin = static_cast<std::int64_t>(number_in(line, "begin")),
                      .end = static_cast<std::int64_t>(number_in(line, "end")),
                      .landed = static_cast<std::int64_t>(number_in(line, "landed"))});
  }
  return result;
}

}  // namespace dlferry::test
