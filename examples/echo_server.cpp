// echo_server.cpp - a TCP echo server on one thread, and a client on another that checks it
#include <cerrno>
#include <cstdio>
#include <string>
#include <thread>

#include <hybridloop.hpp>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

using hybridloop::interest;
// One connection lives in the closure of its watch: it reads while it owes nothing, else it writes.
struct connection {
  hybridloop::loop& loop;
  int fd;
  std::string owed{};
  void operator()(hybridloop::ready now) {
    char buffer[4096];
    const ssize_t got = owed.empty() ? ::recv(fd, buffer, sizeof buffer, 0) : 0;
    if (got > 0) owed.assign(buffer, static_cast<std::size_t>(got));
    const ssize_t put = owed.empty() ? got : ::send(fd, owed.data(), owed.size(), MSG_NOSIGNAL);
    if (put > 0) owed.erase(0, static_cast<std::size_t>(put));
    if (put == 0 || (put < 0 && errno != EAGAIN)) {  // the client is done, or gone
      loop.unwatch(now.id, [ended = fd] { ::close(ended); });
    } else {
      loop.modify(now.id, owed.empty() ? interest::readable : interest::writable);
    }
  }
};

int main() {
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const address = reinterpret_cast<sockaddr*>(&place);
  socklen_t size = sizeof place;
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (::bind(listener, address, size) != 0 || ::listen(listener, 16) != 0) return 1;
  if (::getsockname(listener, address, &size) != 0) return 1;
  hybridloop::loop loop;
  loop.watch(listener, interest::readable, [&] {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) loop.watch(fd, interest::readable, connection{loop, fd});
  });
  std::string text(50000, '*'), echo(text.size(), ' ');
  std::thread client([&] {  // what fails here is seen in the echo
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::connect(fd, address, size);
    ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    ::recv(fd, echo.data(), echo.size(), MSG_WAITALL);
    ::close(fd);
    loop.close();
  });
  loop.run();
  client.join();
  std::puts(echo == text ? "50000 bytes came back" : "the echo is wrong");
  return echo == text ? 0 : 1;
}
