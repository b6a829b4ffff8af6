// loop/companion.hpp - fast_path::mini's second thread, which sleeps in the poller for the loop
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "poller/contract.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Started by the first watch. It waits in the poller and posts what became ready; level-triggered
// registrations are one-shot, so it hears of each once until the loop thread has run the callback
// and armed it again.
//
// Edge [companion]: Z1 the stopper sets the flag (release) and rings; Z2 the companion sees it
// (acquire) and leaves. A latched bell, so a ring before the wait ends the wait. Rule: synchronises-with
// [atomics.order]; that the flag is there when the ring is heard is the kernel's order of write and wait.
template <class Traits>
class companion {
 public:
  companion() = default;
  companion(const companion&) = delete;
  companion& operator=(const companion&) = delete;

  // The loop thread. 0, or the errno of a refused thread.
  template <class Build, class Core>
  int start(Core& c) noexcept {
    if (thread_.joinable()) return 0;
    return thread_.start(&serve_loop<Build, Core>, &c);
  }

  // The destructor of the loop.
  template <class Poller>
  void stop(Poller& p) noexcept {
    if (!thread_.joinable()) return;
    leave_.store(true, std::memory_order_release);  // [companion] Z1
    if (Poller::ring(p.bell()) != 0) fail("the kernel refuses to ring the companion's bell");
    thread_.join();
  }

  void forget() noexcept { thread_.forget(); }

 private:
  // A ready descriptor on its way to the loop thread.
  template <class Core>
  struct arrival : command_base {
    arrival(Core& c, const poll_event& e) noexcept : loop(&c), event(e) {}
    void operator()() { loop->calls.deliver(*loop, event); }
    Core* loop;
    poll_event event;
  };

  bool leaving() const noexcept { return leave_.load(std::memory_order_acquire); }  // [companion] Z2

  // What is out of order now is no reason to burn a core.
  static void nap() noexcept { Traits::kernel::nap(1000000); }

  template <class Build, class Core>
  static void serve_loop(void* with) {
    Core& c = *static_cast<Core*>(with);
    c.companion_.template serve<Build>(c);
  }

  template <class Build, class Core>
  void serve(Core& c) {
    poll_event events[events_per_turn];
    while (!leaving()) {
      const int got = c.poller.wait(events, events_per_turn, never);
      if (got < 0) nap();
      for (int i = 0; i < got; ++i) report<Build>(c, events[i]);
    }
  }

  // Again and again while there is no memory for it: the kernel reports a one-shot event once.
  template <class Build, class Core>
  void report(Core& c, const poll_event& event) {
    bool told = false;
    while (!told && !leaving()) {
      trap<Build>(
          [&] {
            c.template send<Build>(arrival<Core>(c, event));
            told = true;
          },
          [](const std::exception_ptr&) { nap(); });
    }
  }

  typename Traits::template atomic<bool> leave_{false};
  typename Traits::kernel::thread thread_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
