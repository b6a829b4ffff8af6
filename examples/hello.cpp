// hello.cpp - a task and a timer from another thread, and a loop that runs both
#include <chrono>
#include <cstdio>
#include <thread>

#include <hybridloop.hpp>

int main() {
  // [readme]
  hybridloop::loop loop;
  std::thread worker([&loop] {
    const auto answer = loop.post([] { std::puts("hello from another thread"); });
    if (answer != hybridloop::post_result::accepted) std::puts("the loop is closed");
    loop.after(std::chrono::milliseconds(100), [&loop] { loop.close(); });
  });
  loop.run();  // here, asleep while there is nothing to do, until close()
  worker.join();
  // [/readme]
  return loop.stats().tasks == 2 ? 0 : 1;
}
