// wait/kernel_macos.hpp - the kernel seam on macOS: os_sync where the system has it
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "wait/kernel_unix.hpp"

#if HYBRIDLOOP_OS(MACOS)
HYBRIDLOOP_OPEN
namespace detail {

// <os/os_sync_wait_on_address.h> came with macOS 14.4. Declared here, so that older headers do and older
// systems too, where these are null. Names of our own, so that they do not clash with that header's.
int os_sync_wait(void* word, std::uint64_t expected, std::size_t size, std::uint32_t flags) noexcept
    __asm("_os_sync_wait_on_address") __attribute__((weak_import));
int os_sync_wait_for(void* word, std::uint64_t expected, std::size_t size, std::uint32_t flags, std::uint32_t clock,
                     std::uint64_t span) noexcept
    __asm("_os_sync_wait_on_address_with_timeout") __attribute__((weak_import));
int os_sync_wake_one(void* word, std::size_t size, std::uint32_t flags) noexcept
    __asm("_os_sync_wake_by_address_any") __attribute__((weak_import));
int os_sync_wake_all(void* word, std::size_t size, std::uint32_t flags) noexcept
    __asm("_os_sync_wake_by_address_all") __attribute__((weak_import));

struct macos_kernel : unix_kernel {
  static constexpr const char* parking = "os_sync, or condvar before macOS 14.4";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (!has_os_sync()) return parking_lot::wait(word, expected, deadline);
    if (deadline == never) return answer(os_sync_wait(of(word), expected, sizeof expected, 0));
    const nanos span = time_between(read_clock<std::chrono::steady_clock>(), deadline);
    if (span == 0) return -ETIMEDOUT;  // none at all would be refused
    return answer(os_sync_wait_for(of(word), expected, sizeof expected, 0, mach_absolute_time,
                                   static_cast<std::uint64_t>(span)));
  }
  static int futex_wake(const void* word, int count) noexcept {
    if (!has_os_sync()) return parking_lot::wake(word, count);
    return answer((count == 1 ? os_sync_wake_one : os_sync_wake_all)(of(word), sizeof(std::uint32_t), 0));
  }

 private:
  static constexpr std::uint32_t mach_absolute_time = 32;  // OS_CLOCK_MACH_ABSOLUTE_TIME

  // The same all the time, or those who sleep here would be woken there.
  static bool has_os_sync() noexcept {
    return &os_sync_wait != nullptr && &os_sync_wait_for != nullptr && &os_sync_wake_one != nullptr &&
           &os_sync_wake_all != nullptr;
  }
  static void* of(const void* word) noexcept { return const_cast<void*>(word); }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(MACOS)
