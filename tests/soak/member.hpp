// member.hpp - what one thread of a random program does in its company: turns, and values to send
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>

#include <hybridloop.hpp>

#include "soak/choices.hpp"
#include "soak/company.hpp"
#include "soak/ledger.hpp"

namespace soak {

template <class Loop>
class member {
 public:
  member(company_for<Loop>& all, Loop& l, choices& c) : all_(all), loop_(l), choose_(c) {}
  member(const member&) = delete;
  member& operator=(const member&) = delete;

  // From one thread at a time. `may_wait`: it is not the loop's, and there are others.
  void take_turn(bool may_wait) {
    const kind by = choose_.any_of(kinds_of_turns);
    if (choose_.one_in(3)) return all_.take_turn(by, may_wait ? some_span() : nothing);
    pending& p = pending_.emplace_back(by, told_.open(nullptr));
    p.id = all_.take_turn_on(loop_, by, p.what, some_options());
    p.what.accepted = static_cast<bool>(p.id);
    promise(p.what.accepted || by == kind::condvar || loop_.closed(), "only a closed loop refuses a wait");
  }
  void cancel() {
    if (pending_.empty()) return;
    pending& p = pending_[choose_.below(pending_.size())];
    const bool heard = all_.cancel(p.by, p.id);
    promise(!heard || !p.cancelled, "a cancel is heard once");
    p.cancelled = p.cancelled || heard;
  }
  void ask(bool may_wait) {
    if (!may_wait) return;
    entry& e = sent_.open(order());
    e.accepted = all_.ask(e, some_span(), choose_.any_of(kinds_of_answers));
  }
  void send(bool may_wait) {
    if (may_wait || choose_.one_in(2)) {
      entry& e = sent_.open(order());
      e.accepted = all_.send(e, may_wait ? some_span() : nothing);
      return;
    }
    entry& told = told_.open(nullptr);
    entry& e = sent_.open(nullptr);
    told.accepted = static_cast<bool>(all_.send_on(loop_, told, e, some_options()));
  }
  void receive() {
    if (all_.in_order()) return;
    entry& told = told_.open(nullptr);
    told.accepted = static_cast<bool>(all_.receive_on(loop_, told, some_options()));
  }

  // Calls await(done) for each wait that must end.
  template <class Await>
  void finish(const Await& await) {
    for (pending& p : pending_) {
      if (p.what.accepted) await([&p] { return p.what.ran != 0; });
    }
  }
  // The loop is gone, every thread but this one, and the company has ended.
  void settle() const {
    told_.settle(false);
    sent_.settle(true);
  }

 private:
  using options = typename company_for<Loop>::options;
  using span = typename company_for<Loop>::span;
  static constexpr std::chrono::nanoseconds nothing{0};

  struct pending {
    pending(kind k, entry& e) : by(k), what(e) {}
    const kind by;
    entry& what;
    typename company_for<Loop>::ticket id;
    bool cancelled = false;  // and it was answered so
  };

  std::chrono::nanoseconds some_time() { return std::chrono::nanoseconds(choose_.below(16) * choose_.below(16) * 1000); }
  span some_span() { return choose_.one_in(2) ? span() : span(some_time()); }
  options some_options() {
    options how;
    if (choose_.one_in(3)) how.deadline = Loop::clock::now() + some_time();
    return how;
  }
  line* order() { return all_.in_order() ? &line_ : nullptr; }

  company_for<Loop>& all_;
  Loop& loop_;
  choices& choose_;
  ledger told_;  // callbacks
  ledger sent_;  // values
  line line_;
  std::deque<pending> pending_;
};

}  // namespace soak
