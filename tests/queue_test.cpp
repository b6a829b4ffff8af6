// queue_test.cpp - what every queue of waiters promises: order, no token lost or made, and leaves that tell the truth
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/queues.hpp"
#include "support/race.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::wait_status;
namespace detail = hybridloop::detail;

namespace {

template <class Queue>
using permits_of = detail::primitive<Queue, detail::permit_account<typename Queue::traits>>;
template <class Queue>
using notices_of = detail::primitive<Queue, detail::notice_account<typename Queue::traits>>;

const char* name_of(wait_status status) {
  switch (status) {
    case wait_status::granted: return "granted";
    case wait_status::timed_out: return "timed_out";
    case wait_status::cancelled: return "cancelled";
    case wait_status::closed: return "closed";
  }
  return "?";
}

// Whatever is told writes itself down.
template <class Core>
class book {
  using traits = typename Core::traits;

 public:
  class fake : public Core::node {
   public:
    fake(book& of, char name) : Core::node(&write_down), of_(&of), name_(name) {}

   private:
    static void write_down(detail::waiter<traits>& w, detail::nudges<traits>&) noexcept {
      auto& me = static_cast<fake&>(w);
      me.of_->told_ += std::string(me.of_->told_.empty() ? "" : " ") + me.name_ + ":" + name_of(me.status);
    }
    book* of_;
    char name_;
  };

  template <class... Args>
  explicit book(Args... args) : core(args...) {}

  fake& make(char name) {
    fakes_.emplace_back(*this, name);
    return fakes_.back();
  }
  // What has been told since it was asked last.
  std::string told() { return std::exchange(told_, std::string()); }

  Core core;

 private:
  std::deque<fake> fakes_;
  std::string told_;
};

template <class Queue>
class permit_book : public book<permits_of<Queue>> {
 public:
  using typename book<permits_of<Queue>>::fake;
  explicit permit_book(std::ptrdiff_t n) : book<permits_of<Queue>>(n) {}

  // Has what there is, and joins for the rest, which is more than nothing.
  fake& join(char name, std::ptrdiff_t n = 1) {
    fake& w = this->make(name);
    rejoin(w, n);
    return w;
  }
  void rejoin(fake& w, std::ptrdiff_t n = 1) {
    owe(w, n);
    this->core.join(w);
  }
  void owe(fake& w, std::ptrdiff_t n) { w.begin(n, this->core.account.take(n)); }
  void give(std::ptrdiff_t n) { send(this->core.account.give(n)); }
  void send(std::ptrdiff_t n) { this->core.send(n, wait_status::granted); }
  void close() { this->core.send(this->core.account.close(), wait_status::closed); }
  bool leave(fake& w, wait_status why = wait_status::cancelled) { return this->core.leave(w, why); }
  std::ptrdiff_t available() const { return this->core.account.available(); }
};

template <class Queue>
class notice_book : public book<notices_of<Queue>> {
 public:
  using typename book<notices_of<Queue>>::fake;

  fake& join(char name) {
    fake& w = this->make(name);
    w.begin(1, 0);
    this->core.account.enter();
    this->core.join(w);
    return w;
  }
  void notify() { send(promise()); }
  void send(std::ptrdiff_t n) { this->core.send(n, wait_status::granted); }
  std::ptrdiff_t promise() { return this->core.account.notify(1); }
};

}  // namespace

TEST_SUITE_BEGIN("queues");

TEST_CASE("who finds the small lock held sleeps until it is given back, and one after the other has it") {
  detail::small_lock<hybridloop::default_traits> lock;
  int had = 0;
  std::vector<scoped_thread> others;
  lock.lock();
  for (int i = 0; i < 3; ++i) {
    others.emplace_back([&] {
      lock.lock();
      ++had;
      lock.unlock();
    });
  }
  std::this_thread::sleep_for(5ms);
  CHECK(had == 0);

  lock.unlock();

  for (scoped_thread& each : others) each.join();
  CHECK(had == 3);
}

TEST_CASE_TEMPLATE("queue: tokens go to whoever has waited longest", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  b.join('a');
  b.join('b');
  b.join('c');
  b.give(1);
  CHECK(b.told() == "a:granted");
  b.join('d');
  b.give(2);
  CHECK(b.told() == "b:granted c:granted");
  b.give(3);
  CHECK(b.told() == "d:granted");
  CHECK(b.available() == 2);
}

TEST_CASE_TEMPLATE("queue: many join, all are told in order", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  std::string wanted;
  for (char c = 'a'; c <= 'z'; ++c) {
    b.join(c);
    wanted += std::string(wanted.empty() ? "" : " ") + c + ":granted";
  }
  b.give(26);
  CHECK(b.told() == wanted);
}

TEST_CASE_TEMPLATE("queue: a token may come before the one that it is for", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& early = b.make('a');
  auto& later = b.make('b');
  b.owe(early, 1);
  b.owe(later, 1);
  b.give(2);
  CHECK(b.told().empty());
  b.core.join(later);
  CHECK(b.told() == "b:granted");
  b.core.join(early);
  CHECK(b.told() == "a:granted");
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: a batch collects at the head, and those behind it wait", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  b.join('a', 2);
  b.join('b', 3);
  b.join('c');
  b.give(1);
  CHECK(b.told().empty());
  b.give(3);
  CHECK(b.told() == "a:granted");
  b.give(1);
  CHECK(b.told() == "b:granted");
  b.give(1);
  CHECK(b.told() == "c:granted");
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: a batch takes what came early and waits for the rest", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(1);
  auto& w = b.make('a');
  b.owe(w, 4);
  CHECK(w.held == 1);
  b.give(2);
  b.core.join(w);
  CHECK(b.told().empty());
  b.give(2);
  CHECK(b.told() == "a:granted");
  CHECK(w.held == 4);
  CHECK(b.available() == 1);
}

// Three permits, four threads that want two: three of them had one each, and nobody ever got the second.
TEST_CASE_TEMPLATE("queue: what was had already goes through the queue, so that only its head collects", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(3);
  CHECK(b.core.account.take(2) == 2);
  auto& one = b.make('a');
  auto& two = b.make('b');
  auto& late = b.make('c');
  const std::ptrdiff_t had_one = b.core.account.take(2);
  const std::ptrdiff_t on_its_way = b.core.account.give(1);
  CHECK(b.core.account.give(1) == 0);
  const std::ptrdiff_t had_two = b.core.account.take(2);
  CHECK(b.core.account.take(2) == 0);
  for (auto* w : {&one, &two, &late}) w->begin(2, 0);
  b.core.join(late);
  b.send(on_its_way);
  b.send(had_one);
  CHECK(b.told() == "c:granted");
  b.core.join(one);
  b.send(had_two);
  b.core.join(two);
  b.give(2);
  CHECK(b.told() == "a:granted");
  b.give(2);
  CHECK(b.told() == "b:granted");
  b.give(2);
  CHECK(b.available() == 3);
}

TEST_CASE_TEMPLATE("queue: who is closed is told so when it has all its tokens, and gives back what it held", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  b.join('a', 3);
  b.join('b');
  b.give(2);
  CHECK(b.told().empty());
  b.close();
  CHECK(b.told() == "a:closed b:closed");
  CHECK(b.available() == 2);
}

TEST_CASE_TEMPLATE("queue: closed tokens may come early, and behind granted ones", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& first = b.make('a');
  auto& second = b.make('b');
  b.owe(first, 1);
  b.owe(second, 1);
  b.give(1);
  b.close();
  CHECK(b.told().empty());
  b.core.join(first);
  b.core.join(second);
  CHECK(b.told() == "a:granted b:closed");
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: whoever leaves is told why, wherever it stands, and the others move up", Queue, SUPPORT_QUEUES) {
  for (char who : {'a', 'b', 'c', 'd'}) {
    permit_book<Queue> b(0);
    std::string wanted;
    typename permit_book<Queue>::fake* leaver = nullptr;
    for (char c = 'a'; c <= 'd'; ++c) {
      auto& w = b.join(c);
      if (c == who) leaver = &w;
      if (c != who) wanted += std::string(wanted.empty() ? "" : " ") + c + ":granted";
    }
    CHECK(b.leave(*leaver, wait_status::timed_out));
    CHECK(b.told() == std::string(1, who) + ":timed_out");
    CHECK_FALSE(b.leave(*leaver));
    b.give(3);
    CHECK(b.told() == wanted);
    b.give(1);
    CHECK(b.available() == 1);
  }
}

TEST_CASE_TEMPLATE("queue: all leave, last to first and first to last", Queue, SUPPORT_QUEUES) {
  for (const bool forwards : {true, false}) {
    permit_book<Queue> b(0);
    std::vector<typename permit_book<Queue>::fake*> all;
    for (char c = 'a'; c <= 'e'; ++c) all.push_back(&b.join(c));
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(b.leave(*all[forwards ? i : all.size() - 1 - i]));
    b.told();
    b.give(1);
    CHECK(b.available() == 1);
  }
}

TEST_CASE_TEMPLATE("queue: who was granted cannot leave, nor who never joined", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& w = b.join('a');
  b.give(1);
  CHECK(b.told() == "a:granted");
  CHECK_FALSE(b.leave(w));
  auto& other = b.make('b');
  CHECK_FALSE(b.leave(other));
  CHECK(b.told().empty());
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: one that leaves the head frees those behind it", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& batch = b.join('a', 3);
  b.join('b');
  b.join('c', 2);
  b.give(2);
  CHECK(b.told().empty());
  CHECK(b.leave(batch));
  // It held two: they are b's, and c's; who is told first is not said.
  const std::string told = b.told();
  CHECK((told == "a:cancelled b:granted" || told == "b:granted a:cancelled"));
  b.give(1);
  CHECK(b.told() == "c:granted");
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: who leaves while some of its tokens are on their way stays for them, and gives them back", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& batch = b.join('a', 3);
  b.give(1);
  const std::ptrdiff_t on_their_way = b.core.account.give(1);
  CHECK(on_their_way == 1);
  CHECK(b.leave(batch));
  CHECK_FALSE(b.leave(batch, wait_status::timed_out));
  CHECK(b.told().empty());
  b.send(on_their_way);
  CHECK(b.told() == "a:cancelled");
  CHECK(b.available() == 2);
}

TEST_CASE_TEMPLATE("queue: a token on its way is for whoever stays", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& first = b.join('a');
  const std::ptrdiff_t on_their_way = b.core.account.give(1);
  b.join('b');
  CHECK(b.leave(first));
  CHECK(b.told() == "a:cancelled");
  b.send(on_their_way);
  CHECK(b.told() == "b:granted");
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: a leave when all tokens are on their way is refused, or kept and the token passed on", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& first = b.join('a');
  b.join('b');
  const std::ptrdiff_t on_their_way = b.core.account.give(2);
  CHECK(on_their_way == 2);
  const bool left = b.leave(first);
  CHECK(b.told().empty());
  b.join('c');
  b.send(on_their_way);
  CHECK(b.told() == (left ? "a:cancelled b:granted c:granted" : "a:granted b:granted"));
  b.give(1);
  CHECK(b.told() == (left ? "" : "c:granted"));
  CHECK(b.available() == (left ? 1 : 0));
}

TEST_CASE_TEMPLATE("queue: a leave and a close", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& w = b.join('a', 2);
  b.give(1);
  const std::ptrdiff_t on_their_way = b.core.account.close();
  CHECK(on_their_way == 1);
  const bool left = b.leave(w, wait_status::timed_out);
  b.core.send(on_their_way, wait_status::closed);
  CHECK(b.told() == (left ? "a:timed_out" : "a:closed"));
  CHECK(b.available() == 1);
}

TEST_CASE_TEMPLATE("queue: a waiter waits again", Queue, SUPPORT_QUEUES) {
  permit_book<Queue> b(0);
  auto& w = b.make('a');
  for (int i = 0; i < 3; ++i) {
    b.rejoin(w);
    CHECK(b.leave(w));
    CHECK(b.told() == "a:cancelled");
    b.rejoin(w, 2);
    b.give(2);
    CHECK(b.told() == "a:granted");
  }
  CHECK(b.available() == 0);
}

TEST_CASE_TEMPLATE("queue: a notification is one waiter's, and is passed on by one who has left", Queue, SUPPORT_QUEUES) {
  notice_book<Queue> b;
  auto& a = b.join('a');
  auto& c = b.join('c');
  const std::ptrdiff_t on_their_way = b.promise();
  CHECK(on_their_way == 1);
  const bool left = b.core.leave(a, wait_status::timed_out);
  if (left) {
    // The debt was c's or a's; in each case one of them is told.
    b.send(on_their_way);
    const std::string told = b.told();
    CHECK((told == "a:timed_out c:granted" || told == "c:granted a:timed_out"));
  } else {
    b.send(on_their_way);
    CHECK(b.told() == "a:granted");
    b.notify();
    CHECK(b.told() == "c:granted");
  }
  CHECK_FALSE(b.core.leave(c, wait_status::timed_out));
  CHECK(b.core.account.nobody());
}

TEST_CASE_TEMPLATE("queue: with nobody else to notify, who leaves late has the notification vanish", Queue, SUPPORT_QUEUES) {
  notice_book<Queue> b;
  auto& a = b.join('a');
  const std::ptrdiff_t on_their_way = b.promise();
  const bool left = b.core.leave(a, wait_status::timed_out);
  b.send(on_their_way);
  CHECK(b.told() == (left ? "a:timed_out" : "a:granted"));
  b.join('b');
  CHECK(b.told().empty());
  b.notify();
  CHECK(b.told() == "b:granted");
}

TEST_CASE_TEMPLATE("queue: programs of chance neither lose nor make a permit", Queue, SUPPORT_QUEUES) {
  for (std::size_t seed = 0; seed < scaled(200); ++seed) {
    dice chance(seed + 1);
    permit_book<Queue> b(0);
    std::deque<typename permit_book<Queue>::fake*> all;
    std::ptrdiff_t given = 0, on_their_way = 0;
    for (int step = 0; step < 60; ++step) {
      const auto n = static_cast<std::ptrdiff_t>(1 + chance.roll(3));
      switch (chance.roll(4)) {
        case 0:
          if (b.available() < n) all.push_back(&b.join('a', n));
          break;
        case 1:
          given += n;
          on_their_way += b.core.account.give(n);
          break;
        case 2:
          b.send(std::exchange(on_their_way, 0));
          break;
        case 3:
          if (!all.empty()) static_cast<void>(b.leave(*all[chance.roll(all.size())]));
          break;
      }
    }
    b.send(on_their_way);
    b.close();
    std::ptrdiff_t held = 0;
    for (auto* w : all) held += w->held;
    CHECK(held + b.available() == given);
    std::size_t tells = 0;
    for (char c : b.told()) tells += c == ':' ? 1u : 0u;
    CHECK(tells == all.size());
  }
}

// ---- Threads ----

namespace {

// Two threads that meet, and a moment of chance.
template <class One, class Two>
void race(std::size_t rounds, const One& one, const Two& two) {
  rendezvous both(2);
  scoped_thread other([&] {
    dice chance(17);
    for (std::size_t i = 0; i < rounds; ++i) {
      both.meet();
      dawdle(chance.roll(60));
      two();
      both.meet();
    }
  });
  dice chance(4);
  for (std::size_t i = 0; i < rounds; ++i) {
    one.before();
    both.meet();
    dawdle(chance.roll(60));
    one.race();
    both.meet();
    one.after();
  }
}

template <class Before, class Race, class After>
struct side {
  Before before;
  Race race;
  After after;
};
template <class Before, class Race, class After>
side(Before, Race, After) -> side<Before, Race, After>;

template <class Core>
using sleeper = detail::thread_waiter<Core>;

// As a semaphore does.
template <class Core>
wait_status acquire(Core& core, std::ptrdiff_t n, bool gives_up) {
  const std::ptrdiff_t had = core.account.take(n);
  if (had == n) return wait_status::granted;
  if (had < 0) return wait_status::closed;
  sleeper<Core> w(core, true);
  w.begin(n, 0);
  core.send(had, wait_status::granted);
  core.join(w);
  if (gives_up) static_cast<void>(core.leave(w, wait_status::timed_out));
  w.wait(detail::never);
  return w.status;
}
template <class Core>
void release(Core& core, std::ptrdiff_t n) {
  core.send(core.account.give(n), wait_status::granted);
}

template <class Queue>
void leave_races_send(std::size_t rounds) {
  using core_type = permits_of<Queue>;
  std::unique_ptr<core_type> core;
  std::unique_ptr<sleeper<core_type>> w;
  bool left = false;
  race(rounds,
       side{[&] {
              core = std::make_unique<core_type>(std::ptrdiff_t{0});
              w = std::make_unique<sleeper<core_type>>(*core, true);
              w->begin(1, core->account.take(1));
              core->join(*w);
            },
            [&] { left = core->leave(*w, wait_status::timed_out); },
            [&] {
              w->wait(detail::never);
              REQUIRE((w->status == wait_status::timed_out) == left);
              REQUIRE(core->account.available() == (left ? 1 : 0));
            }},
       [&] { release(*core, 1); });
}

template <class Queue>
void close_races_join(std::size_t rounds) {
  using core_type = permits_of<Queue>;
  std::unique_ptr<core_type> core;
  race(rounds,
       side{[&] { core = std::make_unique<core_type>(std::ptrdiff_t{0}); },
            [&] { REQUIRE(acquire(*core, 1, false) == wait_status::closed); },
            [&] { REQUIRE(core->account.available() == 0); }},
       [&] { core->send(core->account.close(), wait_status::closed); });
}

template <class Queue>
void destroyed_by_who_was_told(std::size_t rounds) {
  using core_type = permits_of<Queue>;
  std::unique_ptr<core_type> core;
  core_type* of = nullptr;
  race(rounds,
       side{[&] {
              core = std::make_unique<core_type>(std::ptrdiff_t{0});
              of = core.get();
            },
            [&] {
              REQUIRE(acquire(*core, 1, false) == wait_status::granted);
              core.reset();
            },
            [] {}},
       [&] { release(*of, 1); });
}

// Permits go round among threads that take one or two, some of which give up.
template <class Queue>
void permits_go_round(std::size_t rounds) {
  constexpr std::ptrdiff_t there = 3;
  permits_of<Queue> core(there);
  std::atomic<std::ptrdiff_t> out{0};
  std::atomic<std::size_t> had{0};
  {
    std::vector<scoped_thread> crowd;
    for (unsigned who = 0; who < 4; ++who) {
      crowd.emplace_back([&, who] {
        dice chance(who + 1);
        for (std::size_t i = 0; i < rounds; ++i) {
          const auto n = static_cast<std::ptrdiff_t>(1 + chance.roll(2));
          if (acquire(core, n, chance.roll(3) == 0) != wait_status::granted) continue;
          const std::ptrdiff_t before = out.fetch_add(n);
          if (before + n > there) std::abort();
          ++had;
          if (chance.roll(4) == 0) std::this_thread::yield();
          out.fetch_sub(n);
          release(core, n);
        }
      });
    }
  }
  CHECK(core.account.available() == there);
  CHECK(had >= rounds);
}

// Each notification that was sent is heard, or was sent when nobody waited.
template <class Queue>
void notifications_arrive(std::size_t rounds) {
  notices_of<Queue> core;
  std::atomic<std::size_t> heard{0};
  std::atomic<unsigned> here{3};
  std::size_t sent = 0;
  {
    std::vector<scoped_thread> crowd;
    for (unsigned who = 0; who < 3; ++who) {
      crowd.emplace_back([&, who] {
        dice chance(who + 1);
        for (std::size_t i = 0; i < rounds; ++i) {
          sleeper<notices_of<Queue>> w(core, true);
          w.begin(1, 0);
          core.account.enter();
          core.join(w);
          if (chance.roll(2) == 0) static_cast<void>(core.leave(w, wait_status::timed_out));
          w.wait(detail::never);
          if (w.status == wait_status::granted) ++heard;
        }
        --here;
      });
    }
    while (here != 0) {
      const std::ptrdiff_t n = core.account.notify(1);
      sent += static_cast<std::size_t>(n);
      core.send(n, wait_status::granted);
      if (n == 0) std::this_thread::yield();
    }
  }
  CHECK(core.account.nobody());
  CHECK(heard <= sent);
}

template <class Queue>
using stuttering = rebind_queue<Queue, stuttering_traits>;

}  // namespace

TEST_CASE_TEMPLATE("queue: a leave races the permit", Queue, SUPPORT_QUEUES) {
  leave_races_send<Queue>(scaled(4000));
  leave_races_send<stuttering<Queue>>(scaled(2000));
}

TEST_CASE_TEMPLATE("queue: a close races a join", Queue, SUPPORT_QUEUES) {
  close_races_join<Queue>(scaled(4000));
  close_races_join<stuttering<Queue>>(scaled(2000));
}

TEST_CASE_TEMPLATE("queue: whoever was told last destroys it", Queue, SUPPORT_QUEUES) {
  destroyed_by_who_was_told<Queue>(scaled(4000));
  destroyed_by_who_was_told<stuttering<Queue>>(scaled(2000));
}

TEST_CASE_TEMPLATE("queue: permits go round among threads, some of which give up", Queue, SUPPORT_QUEUES) {
  permits_go_round<Queue>(scaled(5000, 10));
  permits_go_round<stuttering<Queue>>(scaled(1000, 10));
}

TEST_CASE_TEMPLATE("queue: notifications reach somebody though waiters give up", Queue, SUPPORT_QUEUES) {
  notifications_arrive<Queue>(scaled(5000, 10));
  notifications_arrive<stuttering<Queue>>(scaled(1000, 10));
}

TEST_SUITE_END();
