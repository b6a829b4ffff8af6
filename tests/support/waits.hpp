// waits.hpp - what tests of waiting share: queues on other traits, callbacks that report, a clock and a stage
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include <hybridloop.hpp>

#include "support/queues.hpp"
#include "support/running.hpp"
#include "support/stage.hpp"
#include "support/virtual_clock.hpp"

namespace support {

template <class Queue, class Traits>
using semaphore_on = hybridloop::basic_semaphore<rebind_queue<Queue, Traits>>;
template <class Queue, class Traits>
using condvar_on = hybridloop::basic_condvar<rebind_queue<Queue, Traits>>;

// Time stands unless it is moved, and windows can be stepped into.
struct wait_traits : virtual_traits {
  static void schedule_point(const char* name) noexcept { stage::reached(name); }
};
using wait_loop = basic_virtual_loop<wait_traits>;

// What became of a callback, however often it was moved.
struct report {
  std::atomic<int> granted{0};
  std::atomic<int> timed_out{0};
  std::atomic<int> cancelled{0};
  std::atomic<int> closed{0};
  std::atomic<int> destroyed{0};

  int ran() const { return granted + timed_out + cancelled + closed; }
  void add(hybridloop::wait_status how) {
    switch (how) {
      case hybridloop::wait_status::granted: ++granted; break;
      case hybridloop::wait_status::timed_out: ++timed_out; break;
      case hybridloop::wait_status::cancelled: ++cancelled; break;
      case hybridloop::wait_status::closed: ++closed; break;
    }
  }
};

// A callback of `Size` bytes that can only be moved. Runs, and destructions, are counted.
template <std::size_t Size = sizeof(void*)>
class listener {
 public:
  explicit listener(report& r) : report_(&r) {}
  listener(listener&& other) noexcept : report_(std::exchange(other.report_, nullptr)) {}
  listener& operator=(listener&&) = delete;
  ~listener() {
    if (report_ != nullptr) ++report_->destroyed;
  }
  void operator()(hybridloop::wait_status how) { report_->add(how); }

 private:
  report* report_;
  char ballast_[Size > sizeof(void*) ? Size - sizeof(void*) : 1] = {};
};

// Turns until nothing more comes of it.
template <class Loop>
void turn(Loop& l, int times = 4) {
  for (int i = 0; i < times; ++i) l.poll();
}

}  // namespace support
