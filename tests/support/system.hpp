// system.hpp - what tests ask of the system they run on
#pragma once

// Whether it forks, sends signals, and has threads, pipes and poll() by their POSIX names.
#if defined(_WIN32)
#define SUPPORT_POSIX 0
#include "support/system_windows.hpp"
#else
#define SUPPORT_POSIX 1
#include "support/system_posix.hpp"
#endif
