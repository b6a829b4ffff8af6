// pingpong.cpp - posts without waiting (throughput) and one at a time (latency), against the rivals
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "support/bench.hpp"
#include "support/rivals.hpp"

namespace {

constexpr std::size_t stream = 1000000;
constexpr std::size_t round_trips = 20000;

// One producer, no waiting but for the last: the seed's PingPong.
template <class Rival>
double throughput(Rival& rival, std::size_t producers) {
  std::atomic<std::size_t> done{0};
  const std::size_t each = stream / producers;
  const auto produce = [&] {
    for (std::size_t i = 0; i < each; ++i) {
      rival.post([&done] {
        done.store(done.load(std::memory_order_relaxed) + 1, std::memory_order_release);
      });
    }
  };
  const double figure = bench::time_per_op(each * producers, [&] {
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < producers; ++i) others.emplace_back(produce);
    produce();
    for (auto& t : others) t.join();
    while (done.load(std::memory_order_acquire) != each * producers) std::this_thread::yield();
  });
  bench::must(done.load() == each * producers, "every task once");
  return figure;
}

// One task at a time, the waiter spins until it sees the completion.
template <class Rival>
double latency_spinning(Rival& rival, std::size_t trips) {
  std::atomic<std::size_t> done{0};
  return bench::time_per_op(trips, [&] {
    for (std::size_t i = 1; i <= trips; ++i) {
      rival.post([&done, i] { done.store(i, std::memory_order_release); });
      while (done.load(std::memory_order_acquire) != i) __builtin_ia32_pause();
    }
  });
}

// The same, the waiter blocks on a condition variable.
template <class Rival>
double latency_blocking(Rival& rival) {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t done = 0;
  return bench::time_per_op(round_trips, [&] {
    for (std::size_t i = 1; i <= round_trips; ++i) {
      rival.post([&, i] {
        const std::lock_guard<std::mutex> hold(mutex);
        done = i;
        changed.notify_one();
      });
      std::unique_lock<std::mutex> hold(mutex);
      changed.wait(hold, [&] { return done == i; });
    }
  });
}

// The limit: a cache line between two spinning threads, there and back.
double bare_round_trip() {
  alignas(64) std::atomic<std::size_t> there{0};
  alignas(64) std::atomic<std::size_t> back{0};
  std::thread other([&] {
    for (std::size_t i = 1; i <= round_trips; ++i) {
      while (there.load(std::memory_order_acquire) != i) __builtin_ia32_pause();
      back.store(i, std::memory_order_release);
    }
  });
  const double figure = bench::time_per_op(round_trips, [&] {
    for (std::size_t i = 1; i <= round_trips; ++i) {
      there.store(i, std::memory_order_release);
      while (back.load(std::memory_order_acquire) != i) __builtin_ia32_pause();
    }
  });
  other.join();
  return figure;
}

// A fresh rival for each repetition, so that none inherits another's state, and a few tasks to see it
// running.
template <class Rival, class Measure>
bench::row contender(const char* name, Measure measure) {
  return {name, [measure] {
            Rival rival;
            latency_spinning(rival, 100);
            return measure(rival);
          }};
}

template <class Measure>
std::vector<bench::row> everybody(Measure measure) {
  std::vector<bench::row> rows;
  rows.push_back(contender<rivals::ours<>>("hybridloop post", measure));
#if defined(HAVE_LIBUV)
  rows.push_back(contender<rivals::libuv>("libuv async + mutex + vector", measure));
#endif
#if defined(HAVE_ASIO)
  rows.push_back(contender<rivals::asio_post>("Asio post", measure));
#endif
  rows.push_back(contender<rivals::condvar>("condvar + deque", measure));
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  bench::head_line();
  for (const std::size_t producers : {1u, 2u, 4u, 10u}) {
    const std::string title = "PingPong, " + std::to_string(producers) + " producer(s)";
    bench::family(how, title.c_str(),
                  everybody([producers](auto& rival) { return throughput(rival, producers); }));
  }
  auto spinning = everybody([](auto& rival) { return latency_spinning(rival, round_trips); });
  spinning.push_back({"(limit: a bare cache-line round trip)", bare_round_trip});
  bench::family(how, "PingPongLatency, waiter spins", std::move(spinning));
  bench::family(how, "PingPongLatency, waiter blocks",
                everybody([](auto& rival) { return latency_blocking(rival); }));
}
