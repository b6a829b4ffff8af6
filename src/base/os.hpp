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
#if defined(__APPLE__)
#define HYBRIDLOOP_OS_MACOS() 1
#else
#define HYBRIDLOOP_OS_MACOS() 0
#endif
#if defined(__FreeBSD__)
#define HYBRIDLOOP_OS_FREEBSD() 1
#else
#define HYBRIDLOOP_OS_FREEBSD() 0
#endif
#if defined(__OpenBSD__)
#define HYBRIDLOOP_OS_OPENBSD() 1
#else
#define HYBRIDLOOP_OS_OPENBSD() 0
#endif
#if defined(__NetBSD__)
#define HYBRIDLOOP_OS_NETBSD() 1
#else
#define HYBRIDLOOP_OS_NETBSD() 0
#endif
#if defined(_WIN32)
#define HYBRIDLOOP_OS_WINDOWS() 1
#else
#define HYBRIDLOOP_OS_WINDOWS() 0
#endif
// The five POSIX systems above and any other with POSIX threads, poll(2) and mmap(2).
#if !defined(_WIN32) && (defined(__unix__) || defined(__APPLE__))
#define HYBRIDLOOP_OS_POSIX() 1
#else
#define HYBRIDLOOP_OS_POSIX() 0
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

#if !HYBRIDLOOP_OS(POSIX) && !HYBRIDLOOP_OS(WINDOWS)
#error "hybridloop: knows POSIX systems and Windows only"
#endif
