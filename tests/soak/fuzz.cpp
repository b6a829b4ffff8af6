// fuzz.cpp - the same random programs for libFuzzer: one thread, a clock that it moves, a loop made of bytes
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "support/virtual_clock.hpp"

#include "soak/actor.hpp"
#include "soak/round.hpp"

namespace {

using loop = support::virtual_loop;
using namespace std::chrono_literals;

class program {
 public:
  explicit program(soak::choices c) : choose_(c), options_(soak::some_options(choose_, true)) {
    loop_.emplace(options_);
    stage_.reset(new soak::stage<loop>{*loop_, options_.when_full, true, 0, {}, soak::some_permits(*loop_, choose_),
                                      soak::some_company(*loop_, choose_, false)});
    actor_.emplace(*stage_, choose_);
  }

  void run() {
    const bool drained = choose_.one_in(2);
    while (choose_.left()) step();
    actor_->finish();
    drained ? loop_->close() : loop_->stop();
    loop_->run();
    if (drained) loop_->run();  // which may have been stopped
    loop_.reset();
    stage_->company->end();
    actor_->settle(drained);
    stage_->shared->settle();
    stage_->company->settle();
  }

 private:
  void step() {
    const std::size_t times = choose_.between(1, 8);
    switch (choose_.below(8)) {
      case 0: loop_->poll(); break;
      case 1: loop_->run_budget(10us); break;
      case 2: support::virtual_clock::advance(std::chrono::microseconds(choose_.below(200))); break;
      case 3: loop_->run_for(std::chrono::microseconds(choose_.below(200))); break;
      case 4: inside(times); break;
      default: for (std::size_t i = 0; i < times; ++i) actor_->step();
    }
  }
  // From the loop thread.
  void inside(std::size_t times) {
    static_cast<void>(loop_->post([this, times] {
      for (std::size_t i = 0; i < times; ++i) actor_->step();
    }));
    loop_->poll();
  }

  soak::choices choose_;
  const hybridloop::loop_options options_;
  std::optional<loop> loop_;
  std::unique_ptr<soak::stage<loop>> stage_;
  std::optional<soak::actor<loop>> actor_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  support::virtual_clock::reset();
  program(soak::choices(bytes, size)).run();
  return 0;
}
