// base/os.hpp - which kernel and which build this is, as function-like facts
#pragma once

#if __cplusplus < 201703L && !(defined(_MSVC_LANG) && _MSVC_LANG >= 201703L)
#error "hybridloop: needs C++17 or later: -std=c++17"
#endif

// A misspelt HYBRIDLOOP_OS(X) is a syntax error instead of a silent 0.
#define HYBRIDLOOP_OS(name) HYBRIDLOOP_OS_##name()

#if defined(__linux__)
#define HYBRIDLOOP_OS_LINUX() 1
#else
#define HYBRIDLOOP_OS_LINUX() 0
#endif

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HYBRIDLOOP_SANITIZED() 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || \
    __has_feature(memory_sanitizer)
#define HYBRIDLOOP_SANITIZED() 1
#else
#define HYBRIDLOOP_SANITIZED() 0
#endif
#else
#define HYBRIDLOOP_SANITIZED() 0
#endif

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define HYBRIDLOOP_EXCEPTIONS() 1
#else
#define HYBRIDLOOP_EXCEPTIONS() 0
#endif

#if !HYBRIDLOOP_OS(LINUX)
#error "hybridloop: this version knows Linux only; see Limitations in the README"
#endif
