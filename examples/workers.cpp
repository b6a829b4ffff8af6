// workers.cpp - threads compute, the results meet on the loop, and nothing is locked
#include <cstdio>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

namespace {

bool is_prime(unsigned n) {
  for (unsigned d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return n >= 2;
}

unsigned count_primes(unsigned from, unsigned to) {
  unsigned found = 0;
  for (; from < to; ++from) found += is_prime(from) ? 1u : 0u;
  return found;
}

}  // namespace

int main() {
  constexpr unsigned workers = 4;
  constexpr unsigned portions = 25;
  constexpr unsigned span = 1000;

  hybridloop::loop loop;
  unsigned primes = 0;  // of the loop thread
  unsigned answers = 0;

  std::vector<std::thread> threads;
  for (unsigned w = 0; w < workers; ++w) {
    // The guard keeps run_until_idle() from returning while this worker is at work.
    threads.emplace_back([&, w, guard = loop.hold()] {
      for (unsigned p = w; p < workers * portions; p += workers) {
        const unsigned found = count_primes(p * span, (p + 1) * span);
        const auto posted = loop.post([&, found] {
          primes += found;
          ++answers;
        });
        if (posted != hybridloop::post_result::accepted) std::puts("nobody closes this loop");
      }
    });
  }

  loop.run_until_idle();
  for (std::thread& t : threads) t.join();

  std::printf("%u primes below %u, in %u answers\n", primes, workers * portions * span, answers);
  return primes == 9592 && answers == workers * portions ? 0 : 1;
}
