// pipe.hpp - two descriptors: what is written to the one makes the other readable
#pragma once

#include <cerrno>
#include <cstddef>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "soak/ledger.hpp"

namespace soak {

class pipe {
 public:
  pipe() { promise(::pipe2(ends_, O_NONBLOCK | O_CLOEXEC) == 0, "there are descriptors for a pipe"); }
  pipe(const pipe&) = delete;
  pipe& operator=(const pipe&) = delete;
  ~pipe() { close(); }

  int reader() const { return ends_[0]; }

  // How many bytes fitted.
  std::size_t write(std::size_t size) {
    const char bytes[128] = {};
    return whole([&] { return ::write(ends_[1], bytes, size < sizeof bytes ? size : sizeof bytes); });
  }
  // How many bytes there were.
  std::size_t drain() {
    char bytes[256];
    std::size_t all = 0;
    for (std::size_t some = 1; some != 0; all += some) {
      some = whole([&] { return ::read(ends_[0], bytes, sizeof bytes); });
    }
    return all;
  }
  void close() {
    for (int& end : ends_) {
      if (end >= 0) ::close(std::exchange(end, -1));
    }
  }

 private:
  template <class Call>
  static std::size_t whole(const Call& call) {
    for (;;) {
      const auto size = call();
      if (size >= 0) return static_cast<std::size_t>(size);
      if (errno != EINTR) return 0;
    }
  }

  int ends_[2];
};

}  // namespace soak
