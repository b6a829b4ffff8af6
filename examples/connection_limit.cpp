// connection_limit.cpp - many requests, few connections: a semaphore on one loop, without a thread that blocks
#include <algorithm>
#include <chrono>
#include <cstdio>

#include <hybridloop.hpp>

using namespace std::chrono_literals;
using hybridloop::wait_status;

int main() {
  constexpr int connections = 3;
  constexpr int requests = 20;

  hybridloop::semaphore free_connections(connections);
  hybridloop::loop loop;
  int open = 0, most_open = 0, served = 0, given_up = 0;

  const auto done = [&](int& count) {
    ++count;
    if (served + given_up == requests) loop.stop();
  };
  const auto serve = [&] {  // a request takes some time, and holds its connection that long
    most_open = std::max(most_open, ++open);
    loop.after(2ms, [&] {
      --open;
      free_connections.release();
      done(served);
    });
  };

  for (int r = 0; r < requests; ++r) {
    hybridloop::wait_options patience;
    if (r >= 15) patience.deadline = loop.now() + 1ms;  // these would rather do without
    free_connections.async_acquire(
        loop,
        [&](wait_status how) {
          how == wait_status::granted ? serve() : done(given_up);
        },
        patience);
  }

  loop.run();

  std::printf("%d served, %d given up, at most %d connections at once, %td free again\n", served, given_up, most_open,
              free_connections.available());
  const bool right = most_open == connections && served + given_up == requests && given_up == 5;
  return right && free_connections.available() == connections ? 0 : 1;
}
