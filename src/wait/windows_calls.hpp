// wait/windows_calls.hpp - functions of Windows, looked up by name: its headers would bring their macros
#pragma once

#include "base/config.hpp"
#include "base/os.hpp"

#if HYBRIDLOOP_OS(WINDOWS)
// The two that find the others, word for word as <windows.h> declares them, so that it may be included
// before this header, behind it, or not at all.
struct HINSTANCE__;
HYBRIDLOOP_OPEN
namespace detail {

#if defined(NO_STRICT)
using module_handle = void*;
#else
using module_handle = ::HINSTANCE__*;
#endif
#if defined(_WIN64)
using any_function = long long(__stdcall*)();
#else
using any_function = int(__stdcall*)();
#endif
extern "C" __declspec(dllimport) module_handle __stdcall LoadLibraryExA(const char*, void*, unsigned long);
extern "C" __declspec(dllimport) any_function __stdcall GetProcAddress(module_handle, const char*);

// A library of the system's own. It stays loaded.
class windows_library {
 public:
  explicit windows_library(const char* name) noexcept : module_(LoadLibraryExA(name, nullptr, from_system32)) {}

  bool is_here() const noexcept { return module_ != nullptr; }

  // False, and nullptr, where there is no such function.
  template <class Function>
  bool find(Function& out, const char* name) const noexcept {
    using untyped = void (*)();  // which compilers let through
    const auto found = is_here() ? GetProcAddress(module_, name) : nullptr;
    out = reinterpret_cast<Function>(reinterpret_cast<untyped>(found));
    return found != nullptr;
  }

 private:
  static constexpr unsigned long from_system32 = 0x800;
  module_handle module_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS)
