// condvars.cpp - condition variables: herds that are woken at once, and buffers between producers and consumers
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "support/bench.hpp"
#include "support/monitors.hpp"
#include "support/queues.hpp"
#include "support/rivals.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using bench::sample;
using bench::scaled;
using hybridloop::wait_status;

namespace sync = hybridloop::sync;

template <class Monitor>
using hold = std::lock_guard<typename Monitor::mutex>;

// ---- Rows ----

template <class Monitor>
struct pick {
  using type = Monitor;
};

template <class Monitor, class Measure>
void add(bench::family& table, kind role, const std::string& name, const Measure& measure) {
  if constexpr (std::is_base_of_v<rivals::absent, Monitor>) {
    table.skip(name);
  } else {
    table.add(role, name, [measure] { return measure(pick<Monitor>()); });
  }
}

// With std::mutex, as the rival has it, so that they differ in one thing; and with a lock of ours.
template <class Measure>
void add_all(bench::family& table, const Measure& measure) {
  using own = sync::default_queue;
  queues::for_each([&](auto queue, const std::string& name) {
    add<monitors::ours<typename decltype(queue)::type>>(table, kind::ours, name, measure);
  });
  add<monitors::ours<own, hybridloop::basic_mutex<own>>>(table, kind::ours,
                                                         "hybridloop, its own mutex", measure);
  add<monitors::ours<own, hybridloop::basic_mutex<own, sync::barging>>>(
      table, kind::ours, "hybridloop, its own mutex, barging", measure);
  add<monitors::standard>(table, kind::rival, monitors::standard::name, measure);
  add<monitors::nsync_pair>(table, kind::rival, monitors::nsync_pair::name, measure);
  add<monitors::abseil>(table, kind::rival, monitors::abseil::name, measure);
}

// ---- Herds ----

// One by one is under the lock: then nobody is back before all are called, and each is called once.
enum class call { all, one_by_one };

template <class Condition>
void wake_up(Condition& of, call how, std::size_t size) {
  if (how == call::all) return of.notify_all();
  for (std::size_t i = 0; i < size; ++i) of.notify_one();
}

std::string name_of(call how) {
  return how == call::all ? "condvar: notify_all of " : "condvar: notify_one for each of ";
}

std::vector<std::size_t> herd_sizes() {
  if (bench::full) return {8, 50, 64, 200, 500, 1000};
  return {8, 64, 200};
}

// All wait; one wakes all, who take the lock one after the other and wait again. Timed is what each of them
// costs until the last is back.
template <class Monitor>
class herd {
 public:
  explicit herd(std::size_t size) : size_(size) {
    for (std::size_t i = 0; i < size; ++i) threads_.emplace_back([this] { live(); });
    until_all_wait();
  }
  herd(const herd&) = delete;
  ~herd() {
    {
      const hold<Monitor> locked(mutex_);
      leaving_ = true;
      ++round_;
    }
    go_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  void wake(call how) {
    {
      const hold<Monitor> locked(mutex_);
      waiting_ = 0;
      ++round_;
      if (how == call::one_by_one) wake_up(go_, how, size_);
    }
    if (how == call::all) wake_up(go_, how, size_);
    until_all_wait();
  }
  std::size_t woken() const { return woken_; }

 private:
  void live() {
    const hold<Monitor> locked(mutex_);
    while (!leaving_) {
      const std::size_t seen = round_;
      if (++waiting_ == size_) all_wait_.notify_one();
      while (round_ == seen) go_.wait(mutex_);
      ++woken_;
    }
  }
  void until_all_wait() {
    const hold<Monitor> locked(mutex_);
    while (waiting_ != size_) all_wait_.wait(mutex_);
  }

  const std::size_t size_;
  typename Monitor::mutex mutex_;
  typename Monitor::condition go_;
  typename Monitor::condition all_wait_;
  std::size_t waiting_ = 0;
  std::size_t round_ = 0;
  std::size_t woken_ = 0;
  bool leaving_ = false;
  std::vector<std::thread> threads_;
};

std::size_t rounds_of(std::size_t operations, std::size_t size) {
  return (std::max)(std::size_t{2}, scaled(operations) / size);
}

void herds_of_threads(const bench::options& how, call to) {
  for (const std::size_t size : herd_sizes()) {
    bench::family table(name_of(to) + std::to_string(size) + " threads");
    add_all(table, [size, to](auto chosen) {
      herd<typename decltype(chosen)::type> all(size);
      const std::size_t rounds = rounds_of(8000, size);
      const sample s = bench::timed(rounds * size, [&] {
        for (std::size_t i = 0; i < rounds; ++i) all.wake(to);
      });
      bench::must(all.woken() == rounds * size, "each was woken in each round");
      return s;
    });
    table.run(how);
  }
}

// Callbacks on two loops that take the lock, and wait again.
template <class Queue>
class grazing {
 public:
  explicit grazing(std::size_t size) : size_(size) {
    const std::lock_guard<std::mutex> locked(mutex_);
    for (std::size_t i = 0; i < size; ++i) wait(loops_[i % loops_.size()].loop());
  }
  void wake(call how) {
    std::unique_lock<std::mutex> locked(mutex_);
    back_ = 0;
    wake_up(go_, how, size_);
    all_back_.wait(locked, [this] { return back_ == size_; });
  }
  std::size_t woken() const { return woken_; }

 private:
  void wait(hybridloop::loop& loop) {
    go_.async_wait(loop, [this, &loop](wait_status) {
      const std::lock_guard<std::mutex> locked(mutex_);
      wait(loop);
      ++woken_;
      if (++back_ == size_) all_back_.notify_one();
    });
  }
  const std::size_t size_;
  std::mutex mutex_;
  hybridloop::basic_condvar<Queue> go_;
  std::condition_variable all_back_;
  std::size_t back_ = 0;
  std::size_t woken_ = 0;
  std::deque<rivals::ours<>> loops_{2};  // last: their end is that of the waits
};

void herds_of_callbacks(const bench::options& how, call to) {
  std::vector<std::size_t> sizes = herd_sizes();
  if (bench::full) sizes.push_back(10000);
  for (const std::size_t size : sizes) {
    bench::family table(name_of(to) + std::to_string(size) + " callbacks on 2 loops");
    queues::for_each([&](auto queue, const std::string& name) {
      using type = typename decltype(queue)::type;
      table.add(kind::ours, name, [size, to] {
        grazing<type> all(size);
        const std::size_t rounds = rounds_of(20000, size);
        const sample s = bench::timed(rounds * size, [&] {
          for (std::size_t i = 0; i < rounds; ++i) all.wake(to);
        });
        bench::must(all.woken() == rounds * size, "each was woken in each round");
        return s;
      });
    });
    table.add(kind::limit, "a bare post to each", [size] {
      std::deque<rivals::ours<>> loops(2);
      const std::size_t rounds = rounds_of(20000, size);
      return bench::timed(rounds * size, [&] {
        for (std::size_t i = 0; i < rounds; ++i) {
          workloads::gate done;
          std::atomic<std::size_t> left{size};
          for (std::size_t n = 0; n < size; ++n) {
            loops[n % 2].post([&] {
              if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) done.open();
            });
          }
          done.pass();
        }
      });
    });
    table.run(how);
  }
}

// ---- Buffers ----

template <class Monitor>
class buffer {
 public:
  void put(std::size_t value) {
    {
      const hold<Monitor> locked(mutex_);
      while (count_ == room) not_full_.wait(mutex_);
      values_[(first_ + count_++) % room] = value;
    }
    not_empty_.notify_one();
  }
  std::size_t get() {
    std::size_t value = 0;
    {
      const hold<Monitor> locked(mutex_);
      while (count_ == 0) not_empty_.wait(mutex_);
      value = values_[first_];
      first_ = (first_ + 1) % room;
      --count_;
    }
    not_full_.notify_one();
    return value;
  }

 private:
  static constexpr std::size_t room = 16;
  typename Monitor::mutex mutex_;
  typename Monitor::condition not_full_;
  typename Monitor::condition not_empty_;
  std::size_t values_[room] = {};
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

template <class Monitor>
sample through_buffer(std::size_t pairs) {
  alignas(128) buffer<Monitor> between;
  const std::size_t each = (scaled(40000) + pairs - 1) / pairs;
  std::atomic<std::uint64_t> sum{0};
  workloads::gate start;
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < pairs; ++i) {
    all.emplace_back([&] {
      start.pass();
      for (std::size_t n = 1; n <= each; ++n) between.put(n);
    });
    all.emplace_back([&] {
      start.pass();
      std::uint64_t mine = 0;
      for (std::size_t n = 0; n < each; ++n) mine += between.get();
      sum.fetch_add(mine, std::memory_order_relaxed);
    });
  }
  const sample s = bench::timed(each * pairs, [&] {
    start.open();
    for (std::thread& t : all) t.join();
  });
  bench::must(sum.load() == pairs * each * (each + 1) / 2, "every value once");
  return s;
}

void buffers(const bench::options& how) {
  for (const std::size_t pairs : {1u, 4u, 16u}) {
    const std::string side = std::to_string(pairs);
    bench::family table("condvar: a buffer of 16, " + side + " x " + side);
    add_all(table, [pairs](auto chosen) {
      return through_buffer<typename decltype(chosen)::type>(pairs);
    });
    table.run(how);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  for (const call to : {call::all, call::one_by_one}) herds_of_threads(how, to);
  for (const call to : {call::all, call::one_by_one}) herds_of_callbacks(how, to);
  buffers(how);
}
