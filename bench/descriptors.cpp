// descriptors.cpp - readiness: tokens in rings of sockets, idle crowds, TCP echo, against a bare epoll loop
#include <cerrno>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/epoll.h>
#endif

#include "support/bench.hpp"
#include "support/libraries.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using bench::sample;

// ---- Who waits for descriptors ----
//
//   add(fd, item)   calls item.ready() whenever fd is readable; before run(), and item stays where it is
//   run()           until stop(), which is called by an item
//
// All use readiness, not the buffers that some of them offer above it: the loops are compared.

class ours {
 public:
  static constexpr const char* name = "hybridloop";
  template <class Item>
  void add(int fd, Item& item) {
    loop_.watch(fd, hybridloop::interest::readable, [&item] { item.ready(); });
  }
  void run() { loop_.run(); }
  void stop() { loop_.stop(); }

 private:
  hybridloop::loop loop_;
};

// The limit: what anybody would write who needs nothing else.
#if defined(__linux__)
class bare_epoll {
 public:
  static constexpr const char* name = "a bare epoll loop";
  bare_epoll() = default;
  bare_epoll(const bare_epoll&) = delete;
  ~bare_epoll() { ::close(epoll_); }

  template <class Item>
  void add(int fd, Item& item) {
    entries_.push_back({[](void* i) { static_cast<Item*>(i)->ready(); }, &item});
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &entries_.back();
    bench::must(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0, "every descriptor was added");
  }
  void run() {
    epoll_event ready[256];
    for (stopped_ = false; !stopped_;) {
      const int count = ::epoll_wait(epoll_, ready, 256, -1);
      for (int i = 0; i < count; ++i) {
        const entry& e = *static_cast<entry*>(ready[i].data.ptr);
        e.call(e.item);
      }
    }
  }
  void stop() { stopped_ = true; }

 private:
  struct entry {
    void (*call)(void*);
    void* item;
  };
  int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  std::deque<entry> entries_;
  bool stopped_ = false;
};
#else
struct bare_epoll : rivals::absent {
  static constexpr const char* name = "a bare epoll loop";
};
#endif

#if defined(HAVE_LIBUV)
class libuv {
 public:
  static constexpr const char* name = "libuv";
  libuv() { uv_loop_init(&loop_); }
  libuv(const libuv&) = delete;
  ~libuv() {
    for (auto& p : polls_) uv_close(reinterpret_cast<uv_handle_t*>(&p), nullptr);
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }
  template <class Item>
  void add(int fd, Item& item) {
    polls_.emplace_back();
    uv_poll_init(&loop_, &polls_.back(), fd);
    polls_.back().data = &item;
    uv_poll_start(&polls_.back(), UV_READABLE,
                  [](uv_poll_t* p, int, int) { static_cast<Item*>(p->data)->ready(); });
  }
  void run() { uv_run(&loop_, UV_RUN_DEFAULT); }
  void stop() { uv_stop(&loop_); }

 private:
  uv_loop_t loop_;
  std::deque<uv_poll_t> polls_;
};
#else
struct libuv : rivals::absent {
  static constexpr const char* name = "libuv";
};
#endif

#if defined(HAVE_ASIO)
class asio_wait {
 public:
  static constexpr const char* name = "Asio";
  asio_wait() : context_(1) {}
  asio_wait(const asio_wait&) = delete;
  ~asio_wait() {
    for (auto& d : descriptors_) d.release();
  }
  template <class Item>
  void add(int fd, Item& item) {
    descriptors_.emplace_back(context_, fd);
    wait(descriptors_.back(), item);
  }
  void run() {
    context_.restart();
    context_.run();
  }
  void stop() { context_.stop(); }

 private:
  template <class Item>
  static void wait(asio::posix::stream_descriptor& descriptor, Item& item) {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [&descriptor, &item](const asio::error_code& code) {
                            if (code) return;
                            item.ready();
                            wait(descriptor, item);
                          });
  }
  asio::io_context context_;
  std::deque<asio::posix::stream_descriptor> descriptors_;
};
#else
struct asio_wait : rivals::absent {
  static constexpr const char* name = "Asio";
};
#endif

#if defined(HAVE_LIBEVENT)
class libevent {
 public:
  static constexpr const char* name = "libevent";
  libevent() : base_(event_base_new()) {}
  libevent(const libevent&) = delete;
  ~libevent() {
    for (auto& e : events_) event_del(&e);
    event_base_free(base_);
  }
  template <class Item>
  void add(int fd, Item& item) {
    events_.emplace_back();
    const auto call = [](evutil_socket_t, short, void* i) { static_cast<Item*>(i)->ready(); };
    event_assign(&events_.back(), base_, fd, EV_READ | EV_PERSIST, call, &item);
    event_add(&events_.back(), nullptr);
  }
  void run() { event_base_loop(base_, 0); }
  void stop() { event_base_loopbreak(base_); }

 private:
  event_base* base_;
  std::deque<event> events_;
};
#else
struct libevent : rivals::absent {
  static constexpr const char* name = "libevent";
};
#endif

#if defined(HAVE_LIBEV)
class libev {
 public:
  static constexpr const char* name = "libev";
  libev() : loop_(ev_loop_new(EVFLAG_AUTO)) {}
  libev(const libev&) = delete;
  ~libev() {
    for (auto& w : watchers_) ev_io_stop(loop_, &w);
    ev_loop_destroy(loop_);
  }
  template <class Item>
  void add(int fd, Item& item) {
    watchers_.emplace_back();
    ev_io& w = watchers_.back();
    const auto call = [](struct ev_loop*, ev_io* one, int) {
      static_cast<Item*>(one->data)->ready();
    };
    ev_io_init(&w, call, fd, rivals::libev_readable);
    w.data = &item;
    ev_io_start(loop_, &w);
  }
  void run() { ev_run(loop_, 0); }
  void stop() { ev_break(loop_, EVBREAK_ALL); }

 private:
  struct ev_loop* loop_;
  std::deque<ev_io> watchers_;
};
#else
struct libev : rivals::absent {
  static constexpr const char* name = "libev";
};
#endif

// ---- Rows ----

template <class Contender, class Measure>
void add(bench::family& table, kind role, Measure measure) {
  if constexpr (std::is_base_of_v<rivals::absent, Contender>) {
    table.skip(Contender::name);
  } else {
    table.add(role, Contender::name,
              [measure] { return measure(static_cast<Contender*>(nullptr)); });
  }
}

// `measure` takes a null pointer that names the contender's type.
template <class Measure>
void run_family(const bench::options& how, const std::string& title, const char* unit,
                Measure measure) {
  bench::family table(title, unit);
  add<ours>(table, kind::ours, measure);
  add<libuv>(table, kind::rival, measure);
  add<asio_wait>(table, kind::rival, measure);
  add<libevent>(table, kind::rival, measure);
  add<libev>(table, kind::rival, measure);
  add<bare_epoll>(table, kind::limit, measure);
  table.run(how);
}

class descriptor {
 public:
  explicit descriptor(int fd) : fd_(fd) { bench::must(fd >= 0, "a descriptor"); }
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&&) = delete;
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  void do_not_block() const { ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK); }

 private:
  int fd_;
};

// ---- Tokens ----

// Sockets in a ring: what comes in at one goes out to the next. Made for one run.
class ring_of_sockets {
 public:
  static constexpr std::size_t size = 100;

  ring_of_sockets() {
    for (std::size_t i = 0; i < size; ++i) {
      int ends[2] = {-1, -1};
      bench::must(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "a pair of sockets");
      in_.emplace_back(ends[0]);
      out_.emplace_back(ends[1]);
      in_.back().do_not_block();
      out_.back().do_not_block();
    }
  }

  // A first lap is not timed: some register a descriptor only when they first wait for it.
  template <class Contender>
  sample pass(Contender& contender, std::size_t tokens) {
    std::vector<socket<Contender>> sockets;
    std::size_t left = size;
    for (std::size_t i = 0; i < size; ++i) {
      sockets.push_back({this, &contender, in_[i].get(), out_[(i + 1) % size].get(), &left});
    }
    for (auto& s : sockets) contender.add(s.from, s);
    for (std::size_t i = 0; i < tokens; ++i) put(out_[i * size / tokens].get());
    contender.run();
    const std::size_t passes = left = bench::scaled(100000);
    const sample s = bench::timed(passes, [&] { contender.run(); });
    bench::must(left == 0, "every token was passed on");
    return s;
  }

 private:
  // Tokens that are on their way when the count is reached go on, and are not counted.
  template <class Contender>
  struct socket {
    ring_of_sockets* ring;
    Contender* contender;
    int from;
    int to;
    std::size_t* left;
    void ready() {
      char token;
      if (::read(from, &token, 1) != 1) return;
      ring->put(to);
      if (*left != 0 && --*left == 0) contender->stop();
    }
  };

  void put(int to) { bench::must(::write(to, "t", 1) == 1, "a token was written"); }

  std::vector<descriptor> in_;
  std::vector<descriptor> out_;
};

void measure_tokens(const bench::options& how, std::size_t tokens) {
  const std::string title = "descriptors: 100 socket pairs, " + std::to_string(tokens) +
                            (tokens == 1 ? " token" : " tokens");
  run_family(how, title, "ns/pass", [tokens](auto* type) {
    ring_of_sockets ring;
    std::remove_pointer_t<decltype(type)> contender;
    return ring.pass(contender, tokens);
  });
}

struct silent {
  void ready() { bench::must(false, "an idle descriptor was ready"); }
};

// The same among 10,000 descriptors to which nothing happens.
void measure_crowd(const bench::options& how) {
  constexpr std::size_t idle = 10000;
  rlimit room{};
  ::getrlimit(RLIMIT_NOFILE, &room);
  room.rlim_cur = room.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &room);
  if (room.rlim_cur < idle + 1000) {
    std::fprintf(stderr, "descriptors: only %llu may be open, the idle crowd is left out\n",
                 static_cast<unsigned long long>(room.rlim_cur));
    return;
  }
  run_family(how, "descriptors: 10000 idle + 100 busy", "ns/pass", [](auto* type) {
    int pipe[2] = {-1, -1};
    bench::must(::pipe(pipe) == 0, "a pipe");
    const descriptor silent_end(pipe[0]), other_end(pipe[1]);
    std::vector<descriptor> crowd;
    for (std::size_t i = 0; i < idle; ++i) crowd.emplace_back(::dup(silent_end.get()));
    ring_of_sockets ring;
    silent nobody;
    std::remove_pointer_t<decltype(type)> contender;
    for (const descriptor& d : crowd) contender.add(d.get(), nobody);
    return ring.pass(contender, ring_of_sockets::size);
  });
}

// ---- TCP ----

// Both ends of a connection over loopback; nothing is held back, and 64 KiB fit on the way.
struct connection {
  descriptor client;
  descriptor server;
};
connection connect_to_myself() {
  const descriptor listener(::socket(AF_INET, SOCK_STREAM, 0));
  const int room = 1 << 18;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &room,
               sizeof room);  // accepted ones inherit it
  ::setsockopt(listener.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const plain = reinterpret_cast<sockaddr*>(&address);
  bench::must(::bind(listener.get(), plain, size) == 0 && ::listen(listener.get(), 1) == 0,
              "a port to listen on");
  ::getsockname(listener.get(), plain, &size);
  descriptor client(::socket(AF_INET, SOCK_STREAM, 0));
  ::setsockopt(client.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  ::setsockopt(client.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  bench::must(::connect(client.get(), plain, size) == 0, "a connection");
  descriptor server(::accept(listener.get(), nullptr, nullptr));
  server.do_not_block();
  const int yes = 1;
  ::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  ::setsockopt(server.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return {std::move(client), std::move(server)};
}

// Sends back what it reads; the end of the stream stops the loop.
template <class Contender>
struct echo {
  Contender* contender;
  int fd;
  std::vector<char> bytes = std::vector<char>(1 << 16);

  void ready() {
    const ssize_t got = ::read(fd, bytes.data(), bytes.size());
    if (got == 0) return contender->stop();
    if (got > 0)
      bench::must(::write(fd, bytes.data(), static_cast<std::size_t>(got)) == got,
                  "all was sent back");
  }
};

template <class Contender>
sample echo_round_trips(std::size_t size) {
  const connection both = connect_to_myself();
  const int client = both.client.get();
  Contender contender;
  echo<Contender> item{&contender, both.server.get()};
  contender.add(both.server.get(), item);
  std::thread thread([&] { contender.run(); });
  const std::size_t trips = bench::scaled(size < 10000 ? 4000 : 1500);
  const std::vector<char> sent(size, 'e');
  std::vector<char> received(size);
  std::size_t total = 0;
  const auto trip = [&] {
    if (::write(client, sent.data(), size) != static_cast<ssize_t>(size)) return;
    for (std::size_t have = 0; have < size;) {
      const ssize_t got = ::read(client, received.data() + have, size - have);
      if (got <= 0) return;
      have += static_cast<std::size_t>(got);
    }
    total += size;
  };
  trip();
  const sample s = bench::timed(trips, [&] {
    for (std::size_t i = 0; i < trips; ++i) trip();
  });
  ::shutdown(client, SHUT_WR);
  thread.join();
  bench::must(total == (trips + 1) * size, "every byte came back");
  return s;
}

void measure_echo(const bench::options& how, std::size_t size) {
  const std::string title =
      "descriptors: TCP echo, " +
      (size < 1024 ? std::to_string(size) + " B" : std::to_string(size / 1024) + " KiB");
  run_family(how, title, "ns/trip", [size](auto* type) {
    return echo_round_trips<std::remove_pointer_t<decltype(type)>>(size);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  measure_tokens(how, 1);
  measure_tokens(how, 50);
  measure_crowd(how);
  for (const std::size_t size : {64u, 1024u, 16384u, 65536u}) measure_echo(how, size);
}
