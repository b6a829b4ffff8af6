// foreign_poll.cpp - a program that has its own poll(2) loop takes hybridloop in as one more descriptor
#include <chrono>
#include <cstdio>
#include <thread>

#include <hybridloop.hpp>

#include <poll.h>
#include <unistd.h>

using namespace std::chrono_literals;
using std::chrono::milliseconds;

int main() {
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) return 1;

  hybridloop::loop loop;
  int ticks = 0;
  int posts = 0;
  loop.every(10ms, [&ticks] { ++ticks; });

  std::thread worker([&] {
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(5ms);
      const auto posted = loop.post([&posts] { ++posts; });
      if (posted != hybridloop::post_result::accepted) std::puts("nobody closes this loop");
      if (::write(pipe_ends[1], "x", 1) != 1) std::perror("write");
    }
  });

  // The loop that was here before. It waits for its own pipe, and for hybridloop's handle.
  const int handle = loop.backend_handle();
  int bytes = 0;
  int returns = 0;
  while (bytes < 20 || posts < 20 || ticks < 10) {
    pollfd both[] = {{pipe_ends[0], POLLIN, 0}, {handle, POLLIN, 0}};
    const auto left = loop.next_timeout();  // nothing: no deadline, the handle will tell
    ::poll(both, 2, left ? static_cast<int>(std::chrono::ceil<milliseconds>(*left).count()) : -1);
    ++returns;

    char byte = 0;
    if ((both[0].revents & POLLIN) != 0) bytes += static_cast<int>(::read(pipe_ends[0], &byte, 1));
    loop.poll();  // never sleeps: runs what is there
  }
  worker.join();

  std::printf("%d bytes of its own, %d posts and %d ticks of hybridloop\n", bytes, posts, ticks);
  std::printf("poll(2) returned %d times\n", returns);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  return bytes == 20 && posts == 20 && returns < 200 ? 0 : 1;
}
