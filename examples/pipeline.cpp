// pipeline.cpp - read, transform, collect: three threads and two channels that hold a few values each
#include <cstdio>
#include <string>
#include <thread>
#include <utility>

#include <hybridloop.hpp>

using hybridloop::wait_status;

int main() {
  constexpr int lines = 10000;

  hybridloop::channel<std::string> raw(8);
  hybridloop::channel<std::size_t> lengths(8);

  std::thread reader([&] {
    for (int i = 0; i < lines; ++i) {
      std::string line(static_cast<std::size_t>(i % 80), 'x');
      if (raw.send(std::move(line)) != wait_status::granted) std::puts("nobody closes this channel before");
    }
    raw.close();  // what is in it is still received
  });

  std::thread counter([&] {
    while (const auto line = raw.receive()) {
      if (lengths.send(line->size()) != wait_status::granted) std::puts("nobody closes this channel before");
    }
    lengths.close();
  });

  std::size_t sum = 0;
  int count = 0;
  for (auto length = lengths.receive(); length; length = lengths.receive()) {
    sum += *length;
    ++count;
  }
  reader.join();
  counter.join();

  std::printf("%d lines, %zu characters\n", count, sum);
  return count == lines && sum == 395000 ? 0 : 1;
}
