// workloads.hpp - what is done to whoever runs tasks for others
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include <hybridloop.hpp>

#include "bench.hpp"
#include "rivals.hpp"

namespace workloads {

using bench::sample;

// Opens once; a thread sleeps until then.
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

// Counts tasks, on the thread that runs them; the last one opens the gate.
class alignas(128) tally {  // a line of its own, away from what the producers read
 public:
  explicit tally(std::size_t expected) : expected_(expected) {}
  void count() {
    if (++done_ == expected_) all_.open();
  }
  void wait() { all_.pass(); }
  std::size_t done() const { return done_; }

 private:
  const std::size_t expected_;
  std::size_t done_ = 0;
  gate all_;
};

// Posts without waiting, but for the last one: the seed's PingPong with one producer, its
// MultiProducer with several, who start together. `task(tally)` makes what is posted.
template <class Rival, class MakeTask>
sample stream(Rival& rival, std::size_t producers, std::size_t operations, MakeTask task) {
  const std::size_t each = (bench::scaled(operations) + producers - 1) / producers;
  tally all(each * producers);
  gate start;
  const auto produce = [&] {
    auto&& poster = rivals::poster_of(rival);
    start.pass();
    for (std::size_t i = 0; i < each; ++i) poster.post(task(all));
  };
  std::vector<std::thread> threads;
  if (producers > 1) {
    for (std::size_t i = 0; i < producers; ++i) threads.emplace_back(produce);
  }
  const sample s = bench::timed(each * producers, [&] {
    start.open();
    if (producers == 1) produce();
    all.wait();
  });
  for (auto& t : threads) t.join();
  bench::must(all.done() == each * producers, "every task once");
  return s;
}

template <class Rival>
sample throughput(Rival& rival, std::size_t producers) {
  return stream(rival, producers, 500000, [](tally& all) { return [&all] { all.count(); }; });
}

// One task at a time; the waiter spins until it sees the completion: the seed's PingPongLatency.
template <class Rival>
sample latency_spinning(Rival& rival) {
  const std::size_t trips = bench::scaled(20000);
  alignas(128) std::atomic<std::size_t> done{0};  // off the lines of this thread's stack
  const sample s = bench::timed(trips, [&] {
    for (std::size_t i = 1; i <= trips; ++i) {
      rival.post([&done, i] { done.store(i, std::memory_order_release); });
      while (done.load(std::memory_order_acquire) != i) hybridloop::detail::cpu_pause();
    }
  });
  bench::must(done.load() == trips, "every task once");
  return s;
}

// The same; the waiter blocks on a condition variable. The closure is two words, so none of the
// contenders needs the heap for it.
template <class Rival>
sample latency_blocking(Rival& rival) {
  struct alignas(128) {  // off the lines of this thread's stack
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t done = 0;
  } seen;
  const std::size_t trips = bench::scaled(10000);
  const sample s = bench::timed(trips, [&] {
    for (std::size_t i = 1; i <= trips; ++i) {
      rival.post([&seen, i] {
        const std::lock_guard<std::mutex> hold(seen.mutex);
        seen.done = i;
        seen.changed.notify_one();
      });
      std::unique_lock<std::mutex> hold(seen.mutex);
      seen.changed.wait(hold, [&] { return seen.done == i; });
    }
  });
  bench::must(seen.done == trips, "every task once");
  return s;
}

// A thread that takes and frees blocks of many sizes for as long as it lives.
class heap_churner {
 public:
  heap_churner() : thread_([this] { churn(); }) {}
  ~heap_churner() {
    leave_.store(true, std::memory_order_relaxed);
    thread_.join();
  }

 private:
  void churn() {
    bench::do_not_count_my_allocations();
    std::vector<void*> blocks(256);
    for (std::size_t i = 0; !leave_.load(std::memory_order_relaxed); i = (i + 7) % blocks.size()) {
      std::free(blocks[i]);
      blocks[i] = std::malloc(16 + (i * 37) % 2048);
    }
    for (void* block : blocks) std::free(block);
  }
  std::atomic<bool> leave_{false};
  std::thread thread_;
};

constexpr std::size_t pressure_tasks = 300000;
constexpr std::size_t pressure_block = 128;

// A block that nobody must leave out: what it holds is used.
inline char* take_block() {
  char* block = static_cast<char*>(std::malloc(pressure_block));
  if (block == nullptr) std::abort();
  *static_cast<volatile char*>(block) = 1;
  return block;
}

// PingPong while another thread churns the heap; each task owns a block, and frees it.
template <class Rival>
sample allocation_pressure(Rival& rival) {
  const heap_churner churner;
  return stream(rival, 1, pressure_tasks, [](tally& all) {
    return [&all, block = take_block()] {
      std::free(block);
      all.count();
    };
  });
}

// What the blocks alone cost.
inline sample bare_blocks() {
  const heap_churner churner;
  const std::size_t times = bench::scaled(pressure_tasks);
  return bench::timed(times, [&] {
    for (std::size_t i = 0; i < times; ++i) std::free(take_block());
  });
}

// What taking them here and freeing them on another thread costs, with nothing but an array between.
inline sample blocks_handed_over() {
  const heap_churner churner;
  const std::size_t times = bench::scaled(pressure_tasks);
  std::vector<char*> blocks(times);
  alignas(128) std::atomic<std::size_t> there{0};
  std::thread taker([&] {
    for (std::size_t i = 0; i < times; ++i) {
      while (there.load(std::memory_order_acquire) <= i) hybridloop::detail::cpu_pause();
      std::free(blocks[i]);
    }
  });
  const sample s = bench::timed(times, [&] {
    for (std::size_t i = 0; i < times; ++i) {
      blocks[i] = take_block();
      there.store(i + 1, std::memory_order_release);
    }
    taker.join();
  });
  return s;
}

// 1,000 tasks at once, then a wait for all of them.
constexpr std::size_t burst = 1000;
template <class Rival, class Post>
sample bursts(Rival& rival, Post post) {
  const std::size_t times = bench::scaled(200);
  std::size_t done = 0;
  const sample s = bench::timed(times * burst, [&] {
    for (std::size_t i = 0; i < times; ++i) {
      tally all(burst);
      post(rival, all);
      all.wait();
      done += all.done();
    }
  });
  bench::must(done == times * burst, "every task once");
  return s;
}

}  // namespace workloads
