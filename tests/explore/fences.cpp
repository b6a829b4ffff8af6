// fences.cpp - scenarios: a loop that changes who pays for [sleep], while posters are on their way
#include "explore/scene.hpp"

using namespace explore;

namespace {

using adaptive_loop = hybridloop::basic_loop<adaptive_traits>;

// So many tasks go by, then the loop turns once more as if it were about to sleep.
void live_through(adaptive_loop& l, unsigned tasks) {
  for (; tasks != 0; --tasks) {
    if (l.post([] {}) != hybridloop::post_result::accepted) engine::the().fail("a post was refused");
  }
  l.poll();
}
void almost_park(adaptive_loop& l) {
  l.wake();
  l.run_once();
}

template <class Loop>
void two_posts_each(Loop& l) {
  ledger book;
  book.after(2, [&] { l.close(); });
  start("loop", [&] { l.run(); });
  start("one", [&] { book.post(l, 1); });
  start("two", [&] { book.post(l, 2); });
  play();
  book.check();
}

}  // namespace

// More than 64 posts a park: the next park makes it asymmetric.
EXPLORE(to_asymmetric, 2) {
  adaptive_loop l(small_loop(1024));
  live_through(l, 520);
  two_posts_each(l);
}

// And back, when it has fallen below 16.
EXPLORE(to_symmetric, 2) {
  adaptive_loop l(small_loop(1024));
  live_through(l, 520);
  for (int parks = 0; parks != 11; ++parks) almost_park(l);
  two_posts_each(l);
}

// The kernel has come to refuse the barrier (a sandbox, a restored checkpoint).
EXPLORE(barrier_refused, 2) {
  hybridloop::basic_loop<asymmetric_traits> l(small_loop());
  l.wake();
  l.run_once();
  barrier::refused = true;
  two_posts_each(l);
}
