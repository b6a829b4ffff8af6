// thread_pool.cpp - a game at 60 frames a second, and threads that compute paths for it in the background
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include <hybridloop.hpp>

using namespace std::chrono_literals;

namespace {

struct request {
  int unit = 0;
  int distance = 0;
};

int find_path(const request& r) {  // takes its time
  int steps = 0;
  for (int i = 0; i < 20000; ++i) steps = (steps * 31 + r.distance + i) % 1009;
  return steps;
}

}  // namespace

int main() {
  constexpr int units = 200;

  hybridloop::loop loop;
  hybridloop::channel<request> requests(16);
  std::vector<int> paths(units, -1);  // of the game's thread
  int found = 0;

  std::vector<std::thread> pool;
  for (int t = 0; t < 3; ++t) {
    pool.emplace_back([&] {
      while (const auto r = requests.receive()) {
        const int steps = find_path(*r);
        const auto posted = loop.post([&, unit = r->unit, steps] {
          paths[static_cast<std::size_t>(unit)] = steps;
          ++found;
        });
        if (posted != hybridloop::post_result::accepted) std::puts("nobody closes this loop");
      }
    });
  }

  int asked = 0, frames = 0;
  auto next = loop.now();
  while (found != units) {
    // The game never blocks: what does not fit into the channel is asked for in the next frame.
    while (asked != units && requests.try_send({asked, asked * 7})) ++asked;
    loop.run_until(next += 16ms);
    ++frames;
  }
  requests.close();
  for (std::thread& t : pool) t.join();

  std::printf("%d paths in %d frames\n", found, frames);
  return found == units && frames > 1 ? 0 : 1;
}
