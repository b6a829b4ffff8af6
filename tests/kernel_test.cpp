// kernel_test.cpp - the kernel seam, kept by what this system has and by what all POSIX systems have
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/running.hpp"
#include "support/support.hpp"

using namespace support;
namespace detail = hybridloop::detail;

using detail::nanos;
using detail::never;

#define KERNELS detail::native_kernel, detail::unix_kernel

namespace {

constexpr nanos ms = 1000000;

nanos now() { return detail::read_clock<std::chrono::steady_clock>(); }

// Both ends of a kernel's pipe.
template <class Kernel>
struct pipe_of {
  pipe_of() { REQUIRE(Kernel::pipe(ends) == 0); }
  pipe_of(const pipe_of&) = delete;
  pipe_of& operator=(const pipe_of&) = delete;
  ~pipe_of() {
    for (const int end : ends) Kernel::close(end);
  }
  int ends[2] = {-1, -1};
};

bool is_inherited(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0; }
bool blocks(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0; }

}  // namespace

TEST_SUITE_BEGIN("kernel");

TEST_CASE_TEMPLATE("neither end of a pipe blocks, nor is it inherited", kernel, KERNELS) {
  const pipe_of<kernel> pipe;

  for (const int end : pipe.ends) {
    CHECK_FALSE(blocks(end));
    CHECK_FALSE(is_inherited(end));
  }
  char byte = 7;
  CHECK(kernel::read(pipe.ends[0], &byte, 1) == -EAGAIN);
  CHECK(kernel::write(pipe.ends[1], &byte, 1) == 1);
  byte = 0;
  CHECK(kernel::read(pipe.ends[0], &byte, 1) == 1);
  CHECK(byte == 7);
}

TEST_CASE_TEMPLATE("a pipe that is refused is none, and leaves no descriptor", kernel, KERNELS) {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int next = ::dup(0);
  REQUIRE(next >= 0);
  ::close(next);
  int ends[2];

  for (const int room : {0, 1}) {
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(next + room);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    const int refused = kernel::pipe(ends);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(refused == -EMFILE);
    CHECK_FALSE(kernel::is_descriptor(next));
  }
}

TEST_CASE_TEMPLATE("poll answers what is ready, and waits as long as it is asked to", kernel, KERNELS) {
  const pipe_of<kernel> pipe;
  pollfd set[2] = {{pipe.ends[0], POLLIN, 0}, {pipe.ends[1], POLLOUT, 0}};

  CHECK(kernel::poll(set, 2, never) == 1);
  CHECK(set[0].revents == 0);
  CHECK(set[1].revents == POLLOUT);

  const nanos begun = now();
  CHECK(kernel::poll(set, 1, 3 * ms / 2) == 0);
  CHECK(now() - begun >= 3 * ms / 2);
  CHECK(kernel::poll(set, 1, 0) == 0);

  REQUIRE(kernel::write(pipe.ends[1], "x", 1) == 1);
  CHECK(kernel::poll(set, 1, (std::numeric_limits<nanos>::max)() - 1) == 1);
  CHECK(set[0].revents == POLLIN);
}

TEST_CASE_TEMPLATE("two numbers of one file are told from two files", kernel, KERNELS) {
  const pipe_of<kernel> one, another;
  const int same = ::dup(one.ends[0]);
  detail::file_identity a, b, c, d;

  CHECK(kernel::identify(one.ends[0], a) == 0);
  CHECK(kernel::identify(same, b) == 0);
  CHECK(kernel::identify(another.ends[0], c) == 0);
  CHECK(a == b);
  CHECK_FALSE(a == c);
  CHECK(a.pipe);
  CHECK_FALSE(a.always_ready);
  CHECK(kernel::close(same) == 0);
  CHECK(kernel::identify(same, d) == -EBADF);
  CHECK(kernel::identify(-1, d) == -EBADF);
}

TEST_CASE_TEMPLATE("what cannot be waited for is known as such", kernel, KERNELS) {
  for (const char* name : {"/dev/null", "/dev/zero", "/", "/etc/passwd"}) {
    CAPTURE(name);
    const int fd = ::open(name, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    detail::file_identity id;
    CHECK(kernel::identify(fd, id) == 0);
    CHECK(id.always_ready);
    CHECK_FALSE(id.pipe);
    ::close(fd);
  }
}

TEST_CASE_TEMPLATE("a number that is replaced names the other file, and is not inherited", kernel, KERNELS) {
  const pipe_of<kernel> one, another;
  detail::file_identity wanted, got;
  REQUIRE(kernel::identify(another.ends[0], wanted) == 0);

  CHECK(kernel::replace(one.ends[0], another.ends[0]) == one.ends[0]);

  CHECK(kernel::identify(one.ends[0], got) == 0);
  CHECK(got == wanted);
  CHECK_FALSE(is_inherited(one.ends[0]));
  CHECK(kernel::replace(one.ends[0], -1) == -EBADF);
}

TEST_CASE_TEMPLATE("pages are zero, and many cost nothing", kernel, KERNELS) {
  const std::size_t bytes = std::size_t{64} << 20;
  auto* const memory = static_cast<unsigned char*>(kernel::map(bytes));
  REQUIRE(memory != nullptr);

  CHECK(memory[0] == 0);
  CHECK(memory[bytes - 1] == 0);
  memory[bytes / 2] = 1;
  kernel::unmap(memory, bytes);
}

TEST_CASE_TEMPLATE("more pages than there are addresses are refused", kernel, KERNELS) {
  CHECK(kernel::map((std::numeric_limits<std::size_t>::max)() - 0xffff) == nullptr);
}

TEST_CASE_TEMPLATE("there is a CPU at least, and no more than the machine has", kernel, KERNELS) {
  CHECK(kernel::usable_cpus() >= 1);
  CHECK(kernel::usable_cpus() <= static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_CONF)));
}

TEST_CASE_TEMPLATE("a nap lasts", kernel, KERNELS) {
  const nanos begun = now();

  kernel::nap(2 * ms);

  CHECK(now() - begun >= 2 * ms);
  kernel::nap(-ms);
}

TEST_CASE_TEMPLATE("a thread of the library runs once, and hears no signal", kernel, KERNELS) {
  struct seen_there {
    int runs = 0;
    bool deaf = false;
  } seen;
  typename kernel::thread one;
  CHECK_FALSE(one.joinable());

  REQUIRE(one.start(
              [](void* with) {
                auto& s = *static_cast<seen_there*>(with);
                ++s.runs;
                sigset_t blocked;
                ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
                s.deaf = sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGUSR1) == 1;
              },
              &seen) == 0);
  CHECK(one.joinable());
  one.join();

  CHECK_FALSE(one.joinable());
  CHECK(seen.runs == 1);
  CHECK(seen.deaf);
  sigset_t blocked;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  CHECK(sigismember(&blocked, SIGTERM) == 0);
}

TEST_CASE_TEMPLATE("a lock lets one in at a time", kernel, KERNELS) {
  typename kernel::mutex lock;
  std::size_t count = 0;
  const std::size_t each = scaled(20000);

  {
    std::vector<scoped_thread> crowd;
    for (int t = 0; t < 3; ++t) {
      crowd.emplace_back([&] {
        for (std::size_t i = 0; i < each; ++i) {
          const typename kernel::hold held(lock);
          ++count;
        }
      });
    }
  }

  CHECK(count == 3 * each);
  CHECK(lock.try_lock());
  bool got = true;
  elsewhere([&] { got = lock.try_lock(); });
  CHECK_FALSE(got);
  lock.unlock();
}

TEST_SUITE_END();
