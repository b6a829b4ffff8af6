// watching.hpp - for tests of descriptors: a loop of each policy, ways to wait, a kernel with a script
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <thread>

#include "support/pollers.hpp"
#include "support/support.hpp"

namespace support {

inline hybridloop::loop_options on(hybridloop::fast_path path) {
  hybridloop::loop_options options;
  options.path = path;
  return options;
}

// A loop on another kernel, which derives from the system's and shadows what it wants.
template <class Kernel>
struct traits_of : hybridloop::default_traits {
  using kernel = Kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};
template <class Kernel>
using loop_with = hybridloop::basic_loop<traits_of<Kernel>>;

// What a refusal of the system's comes as.
inline std::error_code system_error(int number) { return hybridloop::detail::system_error_code(number); }

// Its filter for out-of-band data says nothing of a hang-up or an error.
inline bool over_kqueue() { return std::string(hybridloop::loop::poller_name()) == "kqueue"; }

// Waits for what another thread does. Hangs where it never does.
template <class Done>
void await(const Done& done) {
  while (!done()) std::this_thread::sleep_for(100us);
}

// Runs the loop until it has done something. Hangs where it never does.
template <class Loop, class Done>
void turn_until(Loop& l, const Done& done) {
  while (!done()) l.run_once();
}

// When this returns, all that the kernel had to report before the call has been told.
template <class Loop>
void settle(Loop& l) {
  for (int round = 0; round < 2; ++round) {
    const socket_pair marker;
    bool told = false;
    const auto id =
        l.watch(marker.left(), hybridloop::interest::readable, [&told] { told = true; });
    marker.write_right();
    turn_until(l, [&told] { return told; });
    l.unwatch(id);
  }
}

// Another thread is inside run() for as long as this lives.
template <class Loop>
class in_background {
 public:
  explicit in_background(Loop& l) : loop_(l), thread_([&l] { l.run(); }) {
    loop_.invoke([] {});
  }
  in_background(const in_background&) = delete;
  in_background& operator=(const in_background&) = delete;
  ~in_background() { stop(); }

  void stop() {
    if (stopped_) return;
    stopped_ = true;
    loop_.stop();
    thread_.join();
  }
  // It has gone to sleep, and everything before that is over.
  void await_park() {
    const auto parks = loop_.stats().parks;
    loop_.wake();
    await([&] { return loop_.stats().parks != parks; });
  }

 private:
  Loop& loop_;
  scoped_thread thread_;
  bool stopped_ = false;
};

// Says when the last copy of a closure that holds a token is destroyed.
class witness {
 public:
  using token = std::shared_ptr<const int>;
  token hold() const { return token_; }
  bool nobody_holds() const { return token_.use_count() == 1; }

 private:
  token token_ = std::make_shared<const int>(0);
};

#if SUPPORT_POSIX
// Two ends of a TCP connection over the loopback; the left one is non-blocking.
class tcp_pair {
 public:
  tcp_pair() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    auto* address = reinterpret_cast<sockaddr*>(&at);
    must(::bind(listener, address, size) == 0 && ::listen(listener, 1) == 0);
    must(::getsockname(listener, address, &size) == 0);
    right_ = ::socket(AF_INET, SOCK_STREAM, 0);
    keep_to_ourselves(right_);
    must(::connect(right_, address, size) == 0);
    left_ = ::accept(listener, nullptr, nullptr);
    must(left_ >= 0);
    keep_to_ourselves(left_);
    never_block(left_);
    ::close(listener);
  }
  tcp_pair(const tcp_pair&) = delete;
  tcp_pair& operator=(const tcp_pair&) = delete;
  ~tcp_pair() {
    ::close(left_);
    ::close(right_);
  }
  int left() const { return left_; }
  int right() const { return right_; }

 private:
  static void must(bool done) {
    if (!done) std::abort();
  }
  int left_ = -1;
  int right_ = -1;
};
#else
using tcp_pair = socket_pair;
#endif

// The threads that came after this did. A sanitizer's own thread comes with the first one, so that is
// before this.
class new_threads {
 public:
  std::size_t count() const {
    std::size_t fresh = 0;
    for (const std::string& id : all()) fresh += before_.count(id) == 0;
    return fresh;
  }

 private:
  static std::set<std::string> all() {
    static const bool one_was_started = (std::thread([] {}).join(), true);
    if (!one_was_started) std::abort();
    const auto ids = thread_ids();
    return {ids.begin(), ids.end()};
  }
  const std::set<std::string> before_ = all();
};

}  // namespace support

// A test case for each policy, with one body, which finds it as `path`.
#define EVERY_POLICY(sentence) EVERY_POLICY_(sentence, DOCTEST_ANONYMOUS(body_))
#define EVERY_POLICY_(sentence, body)                                 \
  static void body(hybridloop::fast_path);                            \
  TEST_CASE("full: " sentence) { body(hybridloop::fast_path::full); } \
  TEST_CASE("mini: " sentence) { body(hybridloop::fast_path::mini); } \
  TEST_CASE("off: " sentence) { body(hybridloop::fast_path::off); }   \
  static void body([[maybe_unused]] hybridloop::fast_path path)
#define FOR_POLICIES(sentence, one, two) FOR_POLICIES_(sentence, one, two, DOCTEST_ANONYMOUS(body_))
#define FOR_POLICIES_(sentence, one, two, body)                       \
  static void body(hybridloop::fast_path);                            \
  TEST_CASE(#one ": " sentence) { body(hybridloop::fast_path::one); } \
  TEST_CASE(#two ": " sentence) { body(hybridloop::fast_path::two); } \
  static void body(hybridloop::fast_path path)
