// parker_test.cpp - the parker contract, kept by every way to sleep on a word
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/support.hpp"

using namespace support;
namespace detail = hybridloop::detail;

using detail::nanos;
using detail::never;
using word = std::atomic<std::uint32_t>;

// Every way to sleep that compiles here keeps these promises.
#if SUPPORT_POSIX
using in_a_lot = detail::system_parker<detail::without_words<detail::native_kernel>>;
#define PARKERS detail::system_parker<detail::native_kernel>, in_a_lot
#else
using in_a_lot = detail::system_parker<detail::native_kernel>;
#define PARKERS in_a_lot
#endif

namespace {

constexpr nanos ms = 1000000;

nanos now() { return detail::read_clock<std::chrono::steady_clock>(); }

template <class... Parkers>
std::string names() {
  return ((std::string(" ") + Parkers::name) + ...);
}

// Sleeps on a word of its own until that says so.
template <class Parker>
class sleeper {
 public:
  sleeper() : thread_([this] { sleep(); }) {}
  sleeper(const sleeper&) = delete;
  sleeper& operator=(const sleeper&) = delete;
  ~sleeper() {
    told_ = 1;
    Parker::wake_one(told_);
  }
  int returns() const { return returns_; }

 private:
  void sleep() {
    while (told_ == 0) {
      Parker::wait(told_, 0, never);
      ++returns_;
    }
  }
  word told_{0};
  std::atomic<int> returns_{0};
  scoped_thread thread_;
};

}  // namespace

TEST_SUITE_BEGIN("parker");

TEST_CASE("the parker of the loops is one of those that are tested") {
  const std::string used = hybridloop::default_traits::parker::name;
  MESSAGE("tested:" << names<PARKERS>() << "; used by loops: " << used);

  CHECK((names<PARKERS>() + ' ').find(' ' + used + ' ') != std::string::npos);
}

TEST_CASE_TEMPLATE("a word that is another one lets nobody sleep", parker, PARKERS) {
  const word w{7};

  parker::wait(w, 6, never);
  parker::wait(w, 6, now() + 3600 * 1000 * ms);

  CHECK(w == 7);
}

TEST_CASE_TEMPLATE("a sleep ends at its deadline, and not long before", parker, PARKERS) {
  const word w{0};

  for (const nanos span : {-ms, nanos{0}, ms / 10, ms, 12 * ms}) {
    const nanos deadline = now() + span;
    while (now() < deadline) parker::wait(w, 0, deadline);
    CHECK(now() >= deadline);
  }
  parker::wait(w, 0, 0);
  parker::wait(w, 0, detail::long_ago);
}

TEST_CASE_TEMPLATE("a sleep until its deadline is one, and no CPU", parker, PARKERS) {
  const word w{0};
  const auto before = thread_usage();
  const nanos deadline = now() + 50 * ms;

  int sleeps = 0;
  for (; now() < deadline; ++sleeps) parker::wait(w, 0, deadline);

  CHECK(sleeps <= 3);
  CHECK(thread_usage().cpu - before.cpu < 30ms);
}

TEST_CASE_TEMPLATE("a wake ends the sleep behind a change of the word", parker, PARKERS) {
  for (std::size_t i = 0; i < scaled(200); ++i) {
    word w{0};
    const scoped_thread other([&w] {
      w = 1;
      parker::wake_one(w);
    });
    while (w == 0) parker::wait(w, 0, i % 2 == 0 ? never : now() + 3600 * 1000 * ms);
  }
}

TEST_CASE_TEMPLATE("threads that wake each other in turn lose no wake", parker, PARKERS) {
  const auto rounds = static_cast<std::uint32_t>(scaled(20000));
  std::array<word, 2> words = {};
  const auto say = [](word& w, std::uint32_t what) {
    w = what;
    parker::wake_one(w);
  };
  const auto hear = [](const word& w, std::uint32_t what) {
    for (std::uint32_t seen = w; seen != what; seen = w) parker::wait(w, seen, never);
  };

  {
    const scoped_thread other([&] {
      for (std::uint32_t round = 1; round <= rounds; ++round) hear(words[0], round), say(words[1], round);
    });
    for (std::uint32_t round = 1; round <= rounds; ++round) say(words[0], round), hear(words[1], round);
  }

  CHECK(words[0] == rounds);
  CHECK(words[1] == rounds);
}

TEST_CASE_TEMPLATE("one wake for all ends every sleep on a word", parker, PARKERS) {
  word w{0};
  std::vector<scoped_thread> crowd;
  for (int i = 0; i < 20; ++i) {
    crowd.emplace_back([&w] {
      while (w == 0) parker::wait(w, 0, never);
    });
  }
  std::this_thread::sleep_for(5ms);

  w = 1;
  parker::wake_all(w);

  for (scoped_thread& each : crowd) each.join();
}

TEST_CASE_TEMPLATE("as many wakes as sleepers end all sleeps, one by one", parker, PARKERS) {
  for (std::size_t round = 0; round < scaled(100); ++round) {
    word tickets{0};
    std::vector<scoped_thread> crowd;
    for (int i = 0; i < 4; ++i) {
      crowd.emplace_back([&tickets] {
        for (;;) {
          std::uint32_t seen = tickets;
          if (seen == 0) {
            parker::wait(tickets, 0, never);
          } else if (tickets.compare_exchange_strong(seen, seen - 1)) {
            return;
          }
        }
      });
    }
    for (int i = 0; i < 4; ++i) {
      ++tickets;
      parker::wake_one(tickets);
    }
    for (scoped_thread& each : crowd) each.join();
  }
}

TEST_CASE_TEMPLATE("who gives up leaves the others asleep, and a later wake reaches them", parker, PARKERS) {
  const sleeper<parker> before;
  word w{0};
  const scoped_thread first([&w] {
    while (w == 0) parker::wait(w, 0, never);
  });
  std::this_thread::sleep_for(2ms);

  for (int i = 0; i < 20; ++i) parker::wait(w, 0, now() + ms / 10);

  w = 1;
  parker::wake_one(w);
}

TEST_CASE("more words than are kept for a herd are all woken") {
  struct traits : hybridloop::default_traits {
    using parker = in_a_lot;
  };
  constexpr std::size_t crowd = 40;
  struct sleep_of {
    detail::notice<traits> told;
    bool heard = false;
    scoped_thread thread{[this] { heard = told.wait(never); }};
  };
  std::vector<std::unique_ptr<sleep_of>> all;
  for (std::size_t i = 0; i < crowd; ++i) all.push_back(std::make_unique<sleep_of>());
  std::this_thread::sleep_for(2ms);

  {
    detail::nudges<traits> later;
    for (auto& each : all) each->told.tell(1, later);
  }

  for (auto& each : all) each->thread.join();
  for (auto& each : all) CHECK(each->heard);
}

TEST_CASE_TEMPLATE("a wake is for its word alone, however many sleep", parker, PARKERS) {
  const std::size_t crowd = 200;  // more than there are spots in the parking lot
  std::vector<std::unique_ptr<sleeper<parker>>> all;
  for (std::size_t i = 0; i < crowd; ++i) all.push_back(std::make_unique<sleeper<parker>>());
  std::this_thread::sleep_for(5ms);

  for (int i = 0; i < 50; ++i) all.front() = std::make_unique<sleeper<parker>>();

  for (std::size_t i = 1; i < crowd; ++i) CHECK(all[i]->returns() <= early_returns);
}

TEST_CASE_TEMPLATE("a wake on a word that is gone is harmless", parker, PARKERS) {
  static std::optional<word> gone;
  const word& there = gone.emplace(0u);
  gone.reset();

  parker::wake_one(there);
  parker::wake_all(there);
}

TEST_CASE("a thread that is kept on a CPU of its own counts those of the others, which wake it") {
  const unsigned all = detail::system_kernel::usable_cpus();
  unsigned of_the_kept = 0;

  scoped_thread([&of_the_kept] {
    keep_on_first_cpu();
    of_the_kept = detail::system_kernel::usable_cpus();
  }).join();

  CHECK(of_the_kept == all);
}

#if SUPPORT_POSIX
TEST_CASE_TEMPLATE("the child of a fork sleeps and wakes, whatever the others were about", parker, PARKERS) {
  std::atomic<bool> over{false};
  std::vector<scoped_thread> busy;
  for (int i = 0; i < 3; ++i) {
    busy.emplace_back([&over] {
      std::array<word, 64> mine = {};
      while (!over) {
        for (word& w : mine) parker::wake_all(w), parker::wait(w, 0, now() + ms / 100);
      }
    });
  }
  for (std::size_t i = 0; i < scaled(20); ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::array<word, 64> mine = {};
      for (word& w : mine) parker::wake_one(w), parker::wait(w, 0, now() + ms / 10);
      ::_exit(0);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  over = true;
}
#endif

TEST_SUITE_END();
