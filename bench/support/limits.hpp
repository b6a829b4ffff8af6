// limits.hpp - what the machine itself can do: two threads, one task in flight, and nothing around it
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>

#include <hybridloop.hpp>

#include "libraries.hpp"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace limits {

// Each looks like a rival, but holds one task: a second post comes after the first one has run. The
// task's number in `word_` says that it is there.

// A cache line that goes to a spinning thread.
class cache_line {
 public:
  static constexpr const char* name = "a bare cache line";

  cache_line() : thread_([this] { serve(); }) {}
  ~cache_line() {
    word_.store(leave, std::memory_order_release);
    thread_.join();
  }
  template <class F>
  void post(F&& f) {
    task_ = std::forward<F>(f);
    word_.store(++posted_, std::memory_order_release);
  }

 private:
  static constexpr std::uint32_t leave = ~0u;
  void serve() {
    for (std::uint32_t i = 1;; ++i) {
      std::uint32_t seen = 0;
      while ((seen = word_.load(std::memory_order_acquire)) != i && seen != leave)
        hybridloop::detail::cpu_pause();
      if (seen == leave) return;
      task_();
    }
  }
  alignas(64) std::atomic<std::uint32_t> word_{0};
  std::function<void()> task_;
  std::uint32_t posted_ = 0;
  std::thread thread_;
};

#if defined(__linux__)
class futex_wake {
 public:
  static constexpr const char* name = "a bare futex wake";

  futex_wake() : thread_([this] { serve(); }) {}
  ~futex_wake() {
    ring(leave);
    thread_.join();
  }
  template <class F>
  void post(F&& f) {
    task_ = std::forward<F>(f);
    ring(++posted_);
  }

 private:
  static constexpr std::uint32_t leave = ~0u;
  void ring(std::uint32_t value) {
    word_.store(value, std::memory_order_release);
    ::syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }
  void serve() {
    for (std::uint32_t i = 1;; ++i) {
      std::uint32_t seen = 0;
      while ((seen = word_.load(std::memory_order_acquire)) == i - 1) {
        ::syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, i - 1, nullptr, nullptr, 0);
      }
      if (seen == leave) return;
      task_();
    }
  }
  alignas(64) std::atomic<std::uint32_t> word_{0};
  std::function<void()> task_;
  std::uint32_t posted_ = 0;
  std::thread thread_;
};

// An eventfd in an epoll set, edge-triggered and never read.
class eventfd_wake {
 public:
  static constexpr const char* name = "a bare eventfd + epoll";

  eventfd_wake() {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, bell_, &event);
    thread_ = std::thread([this] { serve(); });
  }
  ~eventfd_wake() {
    post([this] { leaving_ = true; });
    thread_.join();
    ::close(bell_);
    ::close(epoll_);
  }
  template <class F>
  void post(F&& f) {
    task_ = std::forward<F>(f);
    const std::uint64_t one = 1;
    if (::write(bell_, &one, sizeof one) != static_cast<ssize_t>(sizeof one)) std::abort();
  }

 private:
  void serve() {
    while (!leaving_) {
      epoll_event event;
      if (::epoll_wait(epoll_, &event, 1, -1) == 1) task_();
    }
  }
  int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  int bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::function<void()> task_;
  bool leaving_ = false;
  std::thread thread_;
};
#else
struct futex_wake : rivals::absent {
  static constexpr const char* name = "a bare futex wake";
};
struct eventfd_wake : rivals::absent {
  static constexpr const char* name = "a bare eventfd + epoll";
};
#endif

}  // namespace limits
