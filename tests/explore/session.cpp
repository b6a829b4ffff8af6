// session.cpp - learning, walking, wandering, replaying, and what is said of a failure
#include "explore/session.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

namespace explore {

namespace {

session* current = nullptr;

void on_signal(int number) {
  if (number == SIGALRM) engine::the().fail("a thread hangs between two steps");
  engine::the().fail(number == SIGABRT ? "abort()" : "a crash");
}

void watch_signals() {
  static unsigned char stack[1 << 16];
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  ::sigaltstack(&alternate, nullptr);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK | static_cast<int>(SA_RESETHAND);
  for (const int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) ::sigaction(s, &action, nullptr);
}

}  // namespace

void session::run() {
  current = this;
  watch_signals();
  engine& e = engine::the();
  e.on_failure([](const char* what) { current->report(what); });
  hybridloop::set_failure_handler([](const char* sentence) { engine::the().fail(sentence); });
  // loop_frame keeps one word for each thread, and answers its address.
  e.own_for_each_thread(static_cast<void**>(const_cast<void*>(hybridloop::detail::loop_frame::thread())));
  hybridloop::detail::pauses_per_1024_ns() = 1;

  replayer first({});
  phase_ = "the first schedule";
  play_one(first, true);
  scenes_ = 0;
  warm_ = true;
  learn();
  const unsigned bound = orders_.preemptions < 0 ? which_.preemptions : static_cast<unsigned>(orders_.preemptions);
  const std::uint64_t walked = walk(bound);
  wander(orders_.random, orders_.seed, false);
  if (orders_.replays) report("the schedule was not reached");
  summary_ = std::to_string(walked) + " schedules with up to " + std::to_string(bound) + " preemptions, " +
             std::to_string(orders_.random) + " by chance";
}

// What is contended must be known before schedules are counted. The same in each process.
void session::learn() {
  wander(50, 1, true);
  wander(150, 1, false);
  if (orders_.preemptions != 0) walk(1);
}

void session::play_one(strategy& how, bool everything) {
  if (orders_.replays && warm_ && scenes_ == orders_.replay_after) replay();
  engine& e = engine::the();
  everything_ = everything;
  settings s;
  s.rouses = which_.rouses;
  s.everything = everything;
  files::begin_again();
  barrier::refused = false;
  e.begin(how, s);
  ::alarm(20);
  e.perform(which_.play);
  ::alarm(0);
  e.end();
  ++scenes_;
  if (e.ticks() > usual_ticks_) usual_ticks_ = e.ticks();
  if (e.found_contention()) learned_after_ = scenes_;
}

std::uint64_t session::walk(unsigned bound) {
  for (;;) {
    walker all(bound);
    std::uint64_t count = 0;
    bool learned = false;
    do {
      phase_ = "schedule " + std::to_string(++count) + " with up to " + std::to_string(bound) + " preemptions";
      play_one(all, false);
      learned = engine::the().found_contention();
    } while (!learned && all.next());
    if (!learned) return count;
  }
}

void session::wander(std::uint64_t count, std::uint64_t seed, bool everything) {
  for (std::uint64_t run = 0; run < count; ++run) {
    phase_ = "by chance, seed " + std::to_string(seed) + ", run " + std::to_string(run);
    wanderer one(seed, run, usual_ticks_);
    play_one(one, everything);
  }
}

void session::replay() {
  engine& e = engine::the();
  replayer again(orders_.replay);
  everything_ = orders_.replay_after == 0;
  settings s;
  s.rouses = which_.rouses;
  s.everything = everything_;
  s.narrate = true;
  phase_ = "replayed";
  files::begin_again();
  barrier::refused = false;
  e.begin(again, s);
  ::alarm(20);
  e.perform(which_.play);
  e.end();
  std::printf("%s: nothing fails on this schedule\n", which_.name);
  std::fflush(stdout);
  ::_exit(0);
}

std::string session::schedule() const {
  std::string text = which_.name;
  text += '@' + std::to_string(everything_ ? 0 : orders_.replays ? orders_.replay_after : learned_after_) + ':';
  const char* comma = "";
  for (const deviation& d : engine::the().deviations()) {
    text += comma + std::to_string(d.tick) + '.' + std::to_string(d.option);
    comma = ",";
  }
  return text;
}

void session::report(const char* what) const {
  ::alarm(0);
  const engine& e = engine::the();
  std::printf("FAILED  %s: %s\n        in %s, by %s\n        --replay '%s'\n", which_.name, what, phase_.c_str(),
              e.name_of(e.running()), schedule().c_str());
  std::fflush(stdout);
  ::_exit(1);
}

}  // namespace explore
