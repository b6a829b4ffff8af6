// game_loop.cpp - sixty frames a second, and what threads load arrives in two milliseconds of each
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

using namespace std::chrono_literals;
using game_clock = hybridloop::loop::clock;

int main() {
  constexpr int frames = 60;
  constexpr int loaders = 3;
  constexpr int assets_each = 40;

  hybridloop::loop loop;
  std::vector<std::string> assets;  // of the thread that draws
  int seconds = 0;
  loop.every(500ms, [&seconds] { ++seconds; });

  std::vector<std::thread> threads;
  for (int who = 0; who < loaders; ++who) {
    threads.emplace_back([&, who] {
      for (int n = 0; n < assets_each; ++n) {
        std::this_thread::sleep_for(10ms);  // a disk
        std::string name = "asset " + std::to_string(who) + '/' + std::to_string(n);
        const auto posted = loop.post([&assets, name = std::move(name)]() mutable {
          std::this_thread::sleep_for(100us);  // to the graphics card
          assets.push_back(std::move(name));
        });
        if (posted != hybridloop::post_result::accepted) std::puts("nobody closes this loop");
      }
    });
  }

  int drawn = 0;
  std::size_t most = 0;
  for (auto next = game_clock::now(); drawn < frames; ++drawn) {
    const hybridloop::frame_report report = loop.run_budget(2ms);
    if (report.ran > most) most = report.ran;
    // Here the game would move and draw, with what has arrived.
    next += 1'000'000us / 60;
    std::this_thread::sleep_until(next);
  }
  for (std::thread& t : threads) t.join();
  loop.poll();

  std::printf("%d frames drawn, %zu of %d assets loaded, %d half seconds\n", drawn, assets.size(),
              loaders * assets_each, seconds);
  std::printf("at most %zu tasks ran in one frame\n", most);
  return assets.size() == loaders * assets_each && seconds >= 1 && most >= 1 ? 0 : 1;
}
