// support.hpp - what many tests need: scale, start gates, accepted posts, pairs of sockets
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "support/system.hpp"

// What stands in a list of descriptors that should have been another one.
template <>
struct doctest::StringMaker<support::descriptor_list> {
  static doctest::String convert(const support::descriptor_list& all) {
    std::string line;
    for (const std::string& each : all) line += ' ' + each;
    return line.c_str();
  }
};

namespace support {

using namespace std::chrono_literals;

// TEST_SCALE=0.1 for a slow build (sanitizers), 10 and more for a soak.
inline double scale() {
  static const double value = [] {
    const char* text = std::getenv("TEST_SCALE");
    return text == nullptr ? 1.0 : std::atof(text);
  }();
  return value;
}
inline std::size_t scaled(std::size_t n, std::size_t least = 1) {
  const auto want = static_cast<std::size_t>(static_cast<double>(n) * scale());
  return want < least ? least : want;
}

// Threads that start together.
class gate {
 public:
  void open() {
    const std::lock_guard<std::mutex> hold(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

// A thread that is joined when its scope ends.
class scoped_thread {
 public:
  template <class F>
  explicit scoped_thread(F&& f) : thread_(std::forward<F>(f)) {}
  scoped_thread(scoped_thread&&) = default;
  ~scoped_thread() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::thread thread_;
};

template <class Loop, class F>
void must_post(Loop& l, F&& f) {
  if (l.post(std::forward<F>(f)) != hybridloop::post_result::accepted) std::abort();
}

// Two ends of a connection, non-blocking, closed with the scope.
class socket_pair {
 public:
  socket_pair() { connect_two(ends_); }
  socket_pair(const socket_pair&) = delete;
  socket_pair& operator=(const socket_pair&) = delete;
  ~socket_pair() {
    close_left();
    close_right();
  }
  descriptor left() const { return ends_[0]; }
  descriptor right() const { return ends_[1]; }
  void write_right() const {
    if (send_bytes(ends_[1], "x", 1) != 1) std::abort();
  }
  std::size_t drain_left() const {
    char buffer[4096];
    return receive_bytes(ends_[0], buffer, sizeof buffer);
  }
  void close_left() { close_end(0); }
  void close_right() { close_end(1); }
#if !SUPPORT_POSIX
  // As if the other process had died.
  void reset_right() {
    close_by_reset(ends_[1]);
    ends_[1] = -1;
  }
#endif

 private:
  void close_end(int i) {
    if (ends_[i] >= 0) close_socket(ends_[i]);
    ends_[i] = -1;
  }
  descriptor ends_[2] = {-1, -1};
};

// The parking lot takes a lock, which a signal handler may have interrupted.
inline bool handlers_may_wake() {
  return std::string(hybridloop::default_traits::parker::name).find("condvar") == std::string::npos;
}

}  // namespace support
