// round.hpp - one life of a loop: made, run in all manners, used by many threads, ended, accounted for
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <signal.h>
#include <time.h>

#include <hybridloop.hpp>

#include "soak/actor.hpp"

namespace soak {

inline hybridloop::loop_options some_options(choices& c, bool alone) {
  constexpr std::size_t rings[] = {2, 4, 16, 256, 4096};
  constexpr std::size_t arenas[] = {0, 4, 64, 65536};
  constexpr hybridloop::fast_path paths[] = {hybridloop::fast_path::full, hybridloop::fast_path::off,
                                             hybridloop::fast_path::mini, hybridloop::fast_path::full};
  constexpr overflow answers[] = {overflow::spill, overflow::fail, overflow::block};
  hybridloop::loop_options options;
  options.ring_capacity = c.any_of(rings);
  options.arena_capacity = c.any_of(arenas);
  options.path = paths[c.below(alone ? 2 : 4)];  // a companion would be a second thread
  options.when_full = answers[c.below(alone ? 2 : 3)];   // and who waits for room would wait for itself
  options.caller_runs = c.one_in(2);
  if (c.one_in(2)) options.spin = std::chrono::nanoseconds(0);
  options.on_exception = [](std::exception_ptr) {};
  return options;
}

// Stops threads in the middle of whatever they do: a signal whose handler sleeps. One of the two
// interrupts a sleep in the channel, and so would heal a lost wake; the other does not.
class staller {
 public:
  static void install() {
    install(SIGUSR1, 0);
    install(SIGUSR2, SA_RESTART);
  }

  staller(std::vector<pthread_t> who, choices c)
      : signal_(c.one_in(3) ? SIGUSR1 : SIGUSR2), thread_([this, who, c]() mutable { stall(who, c); }) {}
  staller(const staller&) = delete;
  staller& operator=(const staller&) = delete;
  ~staller() {
    over_ = true;
    thread_.join();
  }

 private:
  static void install(int signal, int flags) {
    struct sigaction action {};
    action.sa_flags = flags;
    action.sa_handler = [](int) {
      const int kept = errno;
      const timespec span{0, 300000};
      ::nanosleep(&span, nullptr);
      errno = kept;
    };
    ::sigaction(signal, &action, nullptr);
  }
  void stall(const std::vector<pthread_t>& who, choices& c) {
    while (!over_) {
      ::pthread_kill(who[c.below(who.size())], signal_);
      std::this_thread::sleep_for(std::chrono::microseconds(c.between(50, 2000)));
    }
  }
  const int signal_;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

template <class Loop>
class round {
 public:
  round(std::uint64_t seed, std::size_t threads) : choose_(seed), options_(some_options(choose_, false)) {
    loop_.emplace(options_);
    stage_.reset(new stage<Loop>{*loop_, options_.when_full, false, 0, {}, some_permits(*loop_, choose_),
                                 some_company(*loop_, choose_, true)});
    for (std::size_t i = 0; i < threads; ++i) {
      actors_.push_back(std::make_unique<actor<Loop>>(*stage_, theirs_.emplace_back(seed + 1 + i)));
    }
  }
  round(const round&) = delete;
  round& operator=(const round&) = delete;

  // How many operations it made.
  std::uint64_t play(std::size_t steps) {
    drained_ = !choose_.one_in(4);
    const bool early = drained_ && choose_.one_in(3);
    std::thread driver([this, c = choose_]() mutable { drive(c); });
    std::vector<std::thread> threads;
    std::vector<pthread_t> stalled{driver.native_handle()};
    std::atomic<std::size_t> at_work{actors_.size()};
    std::atomic<bool> leave{false};
    for (auto& a : actors_) {
      threads.emplace_back([&, &mine = *a] {
        for (std::size_t i = 0; i < steps; ++i) mine.step();
        mine.finish();
        --at_work;
        while (!leave) std::this_thread::sleep_for(50us);  // it may still be stalled
      });
      stalled.push_back(threads.back().native_handle());
    }
    {
      const staller stall(stalled, choices(choose_.below(std::size_t{1} << 60)));
      if (early) std::this_thread::sleep_for(std::chrono::microseconds(choose_.below(3000)));
      if (early) loop_->close();
      while (at_work != 0) std::this_thread::sleep_for(50us);
    }
    leave = true;
    for (std::thread& t : threads) t.join();
    stage_->company->end();
    ending_ = true;
    drained_ ? loop_->close() : loop_->stop();
    driver.join();
    loop_.reset();
    for (const auto& a : actors_) a->settle(drained_);
    stage_->shared->settle();
    stage_->company->settle();
    return stage_->operations;
  }

 private:
  // The loop thread: all manners of running, until the actors are gone; then to the end.
  void drive(choices& c) {
    const std::size_t manners = c.one_in(2) ? 6 : 1;  // a run that ends by itself would heal a lost wake
    while (!ending_) {
      switch (c.below(manners)) {
        case 1: loop_->run_once(); break;
        case 2: loop_->run_for(std::chrono::microseconds(c.below(500))); break;
        case 3: loop_->run_budget(std::chrono::microseconds(c.below(500))); break;
        case 4: loop_->run_until_idle(); break;
        case 5: loop_->poll(); break;
        default: loop_->run(); break;
      }
    }
    if (!drained_) return;
    loop_->run();  // which an actor may have stopped
    loop_->run();
  }

  choices choose_;
  const hybridloop::loop_options options_;
  std::optional<Loop> loop_;
  std::unique_ptr<stage<Loop>> stage_;
  std::deque<choices> theirs_;
  std::vector<std::unique_ptr<actor<Loop>>> actors_;
  bool drained_ = false;
  std::atomic<bool> ending_{false};
};

}  // namespace soak
