#include "ws_platform.h"
typedef int ws_utf8_neon_unused;
