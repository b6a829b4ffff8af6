// timers.cpp - once, again and again, moved, cancelled; never early, and in order
#include <chrono>
#include <cstdio>
#include <string>

#include <hybridloop.hpp>

namespace {

using namespace std::chrono_literals;
using time_source = hybridloop::loop::clock;

int failures = 0;
void expect(bool kept, const char* promise) {
  std::printf("%-4s %s\n", kept ? "ok" : "NO", promise);
  if (!kept) ++failures;
}

}  // namespace

int main() {
  hybridloop::loop loop;
  const auto start = time_source::now();
  std::string order;

  const auto deadline = start + 20ms;
  loop.at(deadline, [&] { order += 'a'; });
  loop.at(deadline, [&] { order += 'b'; });
  loop.at(start, [&] { order += '0'; });  // is over already: the next turn runs it

  int ticks = 0;
  bool early = false;
  hybridloop::timer_id ticker;
  ticker = loop.every(10ms, [&] {
    early = early || time_source::now() < start + ++ticks * 10ms;
    if (ticks == 5) loop.cancel(ticker);  // its own last run
  });

  const auto never = loop.after(30ms, [&] { order += 'x'; });
  const auto later = loop.after(1h, [&] { order += 'c'; });
  const bool cancelled = loop.cancel(never);
  const bool moved = loop.reschedule(later, start + 40ms);

  const std::size_t ran = loop.run_until_idle();  // returns when no timer is left

  expect(order == "0abc", "deadlines in order, equal ones first come first served");
  expect(ticks == 5 && !early, "a repeating timer ticks every 10 ms and is never early");
  expect(cancelled && !loop.cancel(never), "a cancelled timer is cancelled once and never runs");
  expect(moved && time_source::now() - start < 1h, "an hour became 40 ms");
  expect(ran == 9, "nine timers ran");
  return failures;
}
