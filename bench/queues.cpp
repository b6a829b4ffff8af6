// queues.cpp - what a phase's queue costs by itself: waiters that nobody has to wake, storms of cancels, and threads
// that are stopped inside
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/bench.hpp"
#include "support/crowd.hpp"
#include "support/place.hpp"
#include "support/queues.hpp"
#include "support/stops.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using bench::sample;
using bench::scaled;
using hybridloop::wait_status;

namespace sync = hybridloop::sync;

template <class Queue>
using permits = hybridloop::detail::permits<Queue, sync::fifo>;

// ---- Waiters that count ----

enum class answer : std::uint32_t { none, waits, granted, cancelled };

// Told, it says how; nobody is woken.
template <class Queue>
class counting : public permits<Queue>::node {
  using node = typename permits<Queue>::node;

 public:
  counting() : node(&note_it) {}

  answer now() const { return answer_.load(std::memory_order_acquire); }
  void wait(permits<Queue>& of) {
    answer_.store(answer::waits, std::memory_order_relaxed);
    const std::ptrdiff_t had = of.take(1);
    if (of.queue_up(*this, 1, had)) note();
  }

 private:
  using traits = typename Queue::traits;
  static void note_it(hybridloop::detail::waiter<traits>& w, hybridloop::detail::nudges<traits>&) noexcept {
    static_cast<counting&>(static_cast<node&>(w)).note();
  }
  void note() noexcept {
    const bool granted = this->status == wait_status::granted;
    answer_.store(granted ? answer::granted : answer::cancelled, std::memory_order_release);
  }
  std::atomic<answer> answer_{answer::none};
};

// One thread's share of the mix. It owes as many releases as it has waits that were not cancelled, and between 1
// and `most` of them: so there is never a permit, and all that is done goes through the queue.
template <class Queue>
class mixer {
 public:
  struct mix {
    std::size_t waits, releases, cancels;  // of 100
  };

  mixer(permits<Queue>& of, mix shares, std::size_t seed)
      : of_(of), shares_(shares), random_(seed) {
    wait();
  }
  mixer(mixer&& other) = delete;
  ~mixer() {
    while (owed_ != 0) release();
    for (const waiter& w : waiters_) {
      while (w.now() == answer::waits) std::this_thread::yield();
    }
  }

  void operator()() {
    const std::size_t roll = random_.below(100);
    if (roll < shares_.cancels) {
      cancel();
    } else if (owed_ == 1 || (owed_ < most && roll < shares_.cancels + shares_.waits)) {
      wait();
    } else {
      release();
    }
  }

 private:
  using waiter = counting<Queue>;
  static constexpr std::size_t most = 8;
  static constexpr std::size_t room = 256;

  // Those of a thread are served in order, or nearly so.
  void wait() {
    latest_ = (latest_ + 1) % room;
    while (waiters_[latest_].now() == answer::waits) std::this_thread::yield();
    waiters_[latest_].wait(of_);
    ++owed_;
  }
  void release() {
    --owed_;
    of_.give(1);
  }
  void cancel() {
    if (of_.leave(waiters_[latest_], wait_status::cancelled)) --owed_;
    if (owed_ == 0) wait();
  }

  permits<Queue>& of_;
  const mix shares_;
  crowd::dice random_;
  std::size_t owed_ = 0;
  std::size_t latest_ = 0;
  waiter waiters_[room];
};

template <class Queue>
sample mixed(std::size_t threads, typename mixer<Queue>::mix shares) {
  alignas(128) permits<Queue> of(0);
  const sample s = crowd::run(threads, [&](std::size_t i) {
    return [mine = std::make_unique<mixer<Queue>>(of, shares, i)] { (*mine)(); };
  });
  bench::must(of.account.available() == 0 && of.account.withdraw(1) == 0,
              "what was owed was given");
  return s;
}

// What no queue can do without: the account is one word, the queue another.
sample bare(std::size_t threads) {
  alignas(128) std::atomic<std::ptrdiff_t> account{0};
  alignas(128) std::atomic<std::ptrdiff_t> queue{0};
  return crowd::run(threads, [&](std::size_t) {
    return [&] {
      account.fetch_sub(1, std::memory_order_acq_rel);
      queue.fetch_add(1, std::memory_order_acq_rel);
    };
  });
}

void mixes(const bench::options& how) {
  for (const std::size_t cancels : {0u, 10u}) {
    const std::size_t share = (100 - cancels) / 2;
    for (const std::size_t threads : {1u, 2u, 4u, 8u, 16u, 32u, 64u}) {
      bench::family table("queue: " + std::to_string(share) + " % wait, " + std::to_string(share) +
                          " % release, " + std::to_string(cancels) +
                          " % cancel, threads: " + std::to_string(threads));
      queues::for_each([&](auto queue, const std::string& name) {
        using type = typename decltype(queue)::type;
        table.add(kind::ours, name, [=] { return mixed<type>(threads, {share, share, cancels}); });
      });
      table.add(kind::limit, "two bare read-modify-writes", [threads] { return bare(threads); });
      table.run(how);
    }
  }
}

// ---- Storms of cancels ----

enum class order { first_first, last_first, random };

const char* name_of(order o) {
  constexpr const char* names[] = {"first come, first gone", "last come, first gone",
                                   "in random order"};
  return names[static_cast<int>(o)];
}

constexpr std::size_t at_once = 1000;

std::vector<std::size_t> in_order(order o) {
  std::vector<std::size_t> who(at_once);
  for (std::size_t i = 0; i < at_once; ++i) who[i] = o == order::last_first ? at_once - 1 - i : i;
  if (o == order::random) std::shuffle(who.begin(), who.end(), std::mt19937(2024));
  return who;
}

// A thousand at a time, all of whom leave. Aside: by how much the heap had grown at the most.
template <class Queue>
sample storm(order o, bool behind_one_who_stays) {
  permits<Queue> of(0);
  counting<Queue> stays;
  std::deque<counting<Queue>> waiters(at_once);
  const std::vector<std::size_t> who = in_order(o);
  const std::size_t rounds = (std::max)(std::size_t{1}, scaled(1000000) / at_once);
  std::size_t left = 0;
  const std::size_t before = bench::heap_bytes();
  std::size_t most = before;
  if (behind_one_who_stays) stays.wait(of);
  const sample timed = bench::timed(rounds * at_once, [&] {
    for (std::size_t round = 0; round < rounds; ++round) {
      for (counting<Queue>& w : waiters) w.wait(of);
      if (round % 16 == 0) most = (std::max)(most, bench::heap_bytes());
      for (const std::size_t i : who) {
        if (of.leave(waiters[i], wait_status::timed_out)) ++left;
      }
    }
  });
  most = (std::max)(most, bench::heap_bytes());
  bench::must(left == rounds * at_once, "everybody left");
  for (const counting<Queue>& w : waiters)
    bench::must(w.now() == answer::cancelled, "everybody was told");
  of.give(1);
  bench::must((stays.now() == answer::granted) == behind_one_who_stays,
              "who stayed got its permit");
  bench::must(of.account.available() == (behind_one_who_stays ? 0 : 1), "every permit once");
  sample s = timed;
  s.aside = static_cast<double>(most - before);
  return s;
}

void storms(const bench::options& how) {
  for (const bool behind : {false, true}) {
    for (const order o : {order::first_first, order::last_first, order::random}) {
      bench::family table(std::string("queue: wait and leave, 1000 at once, ") + name_of(o) +
                          (behind ? ", behind one who stays" : ""));
      queues::for_each([&](auto queue, const std::string& name) {
        using type = typename decltype(queue)::type;
        table.add(kind::ours, name, [=] { return storm<type>(o, behind); });
      });
      if (bench::heap_known) table.aside(": the heap had grown by", "bytes");
      table.run(how);
    }
  }
}

// ---- Cancels against releases ----

// Does as it is told on a thread of its own, again and again, and both sides begin at once.
class opponent {
 public:
  template <class Move>
  explicit opponent(Move move) : thread_([this, move] {
    for (std::size_t round = 1; reach(asked_, round); ++round) {
      move();
      done_.store(round, std::memory_order_release);
    }
  }) {}
  opponent(const opponent&) = delete;
  ~opponent() {
    over_.store(true, std::memory_order_release);
    thread_.join();
  }

  void begin() { asked_.store(++round_, std::memory_order_release); }
  void finish() { static_cast<void>(reach(done_, round_)); }

 private:
  bool reach(const std::atomic<std::size_t>& count, std::size_t round) const {
    while (count.load(std::memory_order_acquire) != round) {
      if (over_.load(std::memory_order_acquire)) return false;
      std::this_thread::yield();
    }
    return true;
  }
  std::size_t round_ = 0;
  alignas(128) std::atomic<std::size_t> asked_{0};
  std::atomic<bool> over_{false};
  alignas(128) std::atomic<std::size_t> done_{0};
  std::thread thread_;  // last: it uses the others
};

// A thousand wait; a thread releases as many permits while another cancels all of them. Each hears one of the two,
// and the permits of those who left are there in the end. Aside: the share of those who left.
template <class Queue>
sample race(order o) {
  alignas(128) permits<Queue> of(0);
  std::deque<counting<Queue>> waiters(at_once);
  const std::vector<std::size_t> who = in_order(o);
  const std::size_t rounds = (std::max)(std::size_t{1}, scaled(100000) / at_once);
  std::size_t all_left = 0;
  sample s;
  {
    opponent releaser([&of] {
      for (std::size_t i = 0; i < at_once; ++i) of.give(1);
    });
    s = bench::timed(rounds * at_once, [&] {
      for (std::size_t round = 0; round < rounds; ++round) {
        for (counting<Queue>& w : waiters) w.wait(of);
        releaser.begin();
        std::size_t left = 0;
        for (const std::size_t i : who) {
          if (of.leave(waiters[i], wait_status::cancelled)) ++left;
        }
        releaser.finish();
        std::size_t told = 0;
        for (const counting<Queue>& w : waiters) {
          bench::must(w.now() != answer::waits, "everybody was told");
          if (w.now() == answer::cancelled) ++told;
        }
        bench::must(told == left, "who left was told so, and nobody else");
        bench::must(of.account.available() == static_cast<std::ptrdiff_t>(left),
                    "every permit once");
        bench::must(left == 0 || of.try_take(static_cast<std::ptrdiff_t>(left)), "permits are had");
        all_left += left;
      }
    });
  }
  s.aside = static_cast<double>(all_left) / static_cast<double>(rounds * at_once);
  return s;
}

void races(const bench::options& how) {
  for (const order o : {order::first_first, order::last_first, order::random}) {
    bench::family table(std::string("queue: 1000 wait, cancels against releases, ") + name_of(o));
    queues::for_each([&](auto queue, const std::string& name) {
      using type = typename decltype(queue)::type;
      table.add(kind::ours, name, [=] { return race<type>(o); });
    });
    table.aside(": share that left", "share").run(how);
  }
}

// ---- Threads that are stopped inside ----

// Four threads a core take half as many permits in turn, and now and then one of them loses its core for a
// millisecond in the middle of an operation. Timed are the passes of the others. Aside: the 99.9th percentile.
template <class Queue>
sample stopped_inside(bool stops_on) {
  struct taker {
    explicit taker(std::size_t i, bool on) : stop(i, on), random(i) {}
    stops::chance stop;
    crowd::dice random;
    std::vector<double> passes;
  };
  const std::size_t threads = 4 * (std::max)(std::size_t{2}, bench::cpus().size());
  const std::size_t each = (std::max)(std::size_t{16}, scaled(64000) / threads);
  const auto permits = static_cast<std::ptrdiff_t>(threads / 2);
  const crowd::work busy(crowd::work::amount::some);
  alignas(128) hybridloop::basic_semaphore<Queue, sync::fifo> semaphore(permits);
  std::deque<taker> takers;
  for (std::size_t i = 0; i < threads; ++i) takers.emplace_back(i, stops_on).passes.reserve(each);
  workloads::gate start;
  std::vector<std::thread> all;
  for (taker& one : takers) {
    all.emplace_back([&] {
      start.pass();
      stops::mine = &one.stop;
      for (std::size_t n = 0; n < each; ++n) {
        one.stop.begin_operation();
        const auto begun = bench::steady::now();
        static_cast<void>(semaphore.acquire());
        busy(one.random);
        semaphore.release();
        const double took = bench::nanos_between(begun, bench::steady::now());
        if (!one.stop.stopped()) one.passes.push_back(took);
        busy(one.random);
      }
      stops::mine = nullptr;
    });
  }
  const sample timed = bench::timed(each * threads, [&] {
    start.open();
    for (std::thread& t : all) t.join();
  });
  bench::must(semaphore.available() == permits, "every permit came back");
  std::vector<double> values;
  for (const taker& one : takers)
    values.insert(values.end(), one.passes.begin(), one.passes.end());
  sample s = bench::spread_of(values, timed);
  std::sort(values.begin(), values.end());
  s.aside = values[(values.size() - 1) * 999 / 1000];
  return s;
}

void stopped_threads(const bench::options& how) {
  bench::family table("queue: 4 threads a core, 2 permits a core, some stopped inside for 1 ms", "ns");
  for (const bool on : {true, false}) {
    queues::for_each_of<stops::traits>([&](auto queue, const std::string& name) {
      using type = typename decltype(queue)::type;
      table.add(kind::ours, on ? name : name + ", nobody is stopped",
                [=] { return stopped_inside<type>(on); });
    });
  }
  table.aside(": p99.9", "ns").run(how);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  mixes(how);
  storms(how);
  races(how);
  stopped_threads(how);
}
