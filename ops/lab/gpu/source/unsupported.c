// Functions of the library that no GPU of the simulator answers. A name alone is enough: their
// arguments are never read, but for a device that is lost or hangs, as a driver would tell first.
#include "library.h"

#define DEVICE(function)                 \
    API function(nvmlDevice_t device) {  \
        struct gpu gpu;                  \
        TRY(open_gpu(device, &gpu));     \
        return NVML_ERROR_NOT_SUPPORTED; \
    }
#define OTHER(function)                                                             \
    API function(void) {                                                            \
        return initialized() ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_UNINITIALIZED; \
    }
#include "unsupported.def"
