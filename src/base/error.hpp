// base/error.hpp - refusals: our error codes, how they are thrown, and builds without exceptions
#pragma once

#include <exception>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include "base/contract.hpp"

HYBRIDLOOP_OPEN

// What hybridloop itself refuses. What the kernel refuses comes as its own errno in
// std::system_category().
enum class errc {
  closed = 1,        // the loop takes no more
  full,              // no room, and the policy is to fail
  not_found,         // no such timer or watch
  invalid_argument,  // a value outside its range
  unsupported,       // not with this poller, path or build
  wrong_thread,      // another thread is running the loop
};

namespace detail {

class error_category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "hybridloop"; }
  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::closed: return "the loop is closed";
      case errc::full: return "the loop is full";
      case errc::not_found: return "no such timer or watch";
      case errc::invalid_argument: return "a value outside of its range: capacities go up to 16777216, spin is not negative";
      case errc::unsupported: return "not with this poller, path or build";
      case errc::wrong_thread: return "another thread is running the loop";
    }
    return "unknown error";
  }
};

}  // namespace detail

inline const std::error_category& category() noexcept {
  static const detail::error_category instance;
  return instance;
}

inline std::error_code make_error_code(errc value) noexcept {
  return {static_cast<int>(value), category()};
}

namespace detail {

// The way a file was built, as a type. A function whose body depends on it takes it as a
// template parameter: files built differently then each have a copy of their own, and the
// linker never picks one for the other. Types and layouts never depend on it.
template <bool Exceptions, bool Sanitized>
struct build {};
using build_tag = build<HYBRIDLOOP_EXCEPTIONS() == 1, HYBRIDLOOP_SANITIZED() == 1>;

#if HYBRIDLOOP_OS(WINDOWS)
// There the system's category is for numbers that are no errnos.
inline std::error_code system_error_code(int number) noexcept { return {number, std::generic_category()}; }
#else
inline std::error_code system_error_code(int number) noexcept { return {number, std::system_category()}; }
#endif

#if HYBRIDLOOP_EXCEPTIONS()

template <class Build>
[[noreturn]] void refuse(std::error_code code, const char* call) {
  throw std::system_error(code, call);
}

// Runs f; what it throws goes to the handler.
template <class Build, class F, class Handler>
void trap(F&& f, Handler&& handler) {
  try {
    std::forward<F>(f)();
  } catch (...) {
    std::forward<Handler>(handler)(std::current_exception());
  }
}

template <class Build>
[[noreturn]] void rethrow(std::exception_ptr error) {
  std::rethrow_exception(std::move(error));
}

#else

template <class Build>
[[noreturn]] void refuse(std::error_code code, const char* call) {
  if (code == std::errc::not_enough_memory) fail("out of memory");  // for a sentence as well
  const std::string sentence = std::string(call) + ": " + code.message();
  fail(sentence.c_str());
}

template <class Build, class F, class Handler>
void trap(F&& f, Handler&&) {
  std::forward<F>(f)();
}

template <class Build>
[[noreturn]] void rethrow(const std::exception_ptr&) {
  fail("an exception met a build without exceptions");
}

#endif

// Throws what an error_code twin would have answered.
template <class Build>
void throw_if(std::error_code code, const char* call) {
  if (code) refuse<Build>(code, call);
}

}  // namespace detail

HYBRIDLOOP_CLOSE

template <>
struct std::is_error_code_enum<HYBRIDLOOP_NAMESPACE::errc> : std::true_type {};
