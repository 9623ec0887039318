// What the parts of the library share: handles, and the way from a handle to a GPU's readings.
#ifndef RACKHAND_LIBRARY_H
#define RACKHAND_LIBRARY_H

#include "description.h"
#include "nvml.h"

enum handle_kind { HANDLE_GPU = 1, HANDLE_MIG, HANDLE_GPU_INSTANCE, HANDLE_COMPUTE_INSTANCE };

struct handle {
    enum handle_kind kind;
    unsigned gpu;
    unsigned instance;  // id of the GPU instance; 0 for a whole GPU
};

// The one handle that stands for this GPU, or for this part of it.
struct handle *handle_of(enum handle_kind kind, unsigned gpu, unsigned instance);

// The readings behind a handle of a whole GPU. Waits while the GPU hangs.
// Errors: UNINITIALIZED, INVALID_ARGUMENT, GPU_IS_LOST; NOT_SUPPORTED for a MIG device.
nvmlReturn_t open_gpu(nvmlDevice_t device, struct gpu *gpu);

// The same for a handle of this kind; an instance that is gone gives NOT_FOUND.
nvmlReturn_t open_as(enum handle_kind kind, const struct handle *handle, struct gpu *gpu);

// A whole GPU or a MIG device. For the latter `instance` is where it lies in gpu->instance.
nvmlReturn_t open_device(nvmlDevice_t device, struct gpu *gpu,
                         const struct gpu_instance **instance);

bool initialized(void);
nvmlReturn_t copy_text(const char *text, char *buffer, unsigned length);
nvmlReturn_t give(int64_t value, unsigned *out);
int64_t or_zero(int64_t value);
nvmlReturn_t change_gpu(const struct handle *device, const struct change *changes, unsigned count);

// Which NVLink links lead anywhere, and where.
enum link_peer { LINK_DOWN, LINK_TO_GPU, LINK_TO_SWITCH };
enum link_peer link_peer(const struct gpu *gpu, unsigned index, unsigned link, unsigned *peer);

// MIG geometry: sizes and names follow from the GPU's slices and memory.
struct mig_profile {
    unsigned enumeration, id;  // NVML's profile number; the id that people name
    unsigned slices, size;     // of compute; of memory
    unsigned most, starts;     // instances at once; a bit for each place it may start
};
const struct mig_profile *mig_profile(const struct gpu *gpu, unsigned id);
struct gpu_instance *mig_instance(struct gpu *gpu, const struct handle *handle);
nvmlReturn_t mig_write(const struct handle *device, const struct gpu *gpu);
unsigned mig_device_index(const struct gpu *gpu, const struct gpu_instance *instance);
nvmlReturn_t mig_profile_info(const struct gpu *gpu, const struct mig_profile *profile,
                              nvmlGpuInstanceProfileInfo_v2_t *info);
int64_t mig_memory_mib(const struct gpu *gpu, const struct mig_profile *profile);
unsigned mig_instance_id(const struct gpu *gpu, const struct gpu_instance *instance);
int64_t memory_used_mib(const struct gpu *gpu, const struct gpu_instance *instance);

#define TRY(call)                                \
    do {                                         \
        nvmlReturn_t code_ = (call);             \
        if (code_ != NVML_SUCCESS) return code_; \
    } while (0)
#define NEED(condition, error)            \
    do {                                  \
        if (!(condition)) return (error); \
    } while (0)

#endif
