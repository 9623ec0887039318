// Handles are addresses in a fixed table, so that a wrong one is told from a right one.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "library.h"

enum { INSTANCE_IDS = 16, KINDS = HANDLE_COMPUTE_INSTANCE + 1, HANG_POLL_US = 20000 };

static struct handle handles[KINDS][GPUS][INSTANCE_IDS];

struct handle *handle_of(enum handle_kind kind, unsigned gpu, unsigned instance) {
    struct handle *handle = &handles[kind][gpu][instance];
    *handle = (struct handle){.kind = kind, .gpu = gpu, .instance = instance};
    return handle;
}

static bool is_handle(const struct handle *handle) {
    const char *first = (const char *)handles, *place = (const char *)handle;
    return place >= first && place < first + sizeof handles &&
           (size_t)(place - first) % sizeof *handle == 0 && handle->kind != 0;
}

nvmlReturn_t open_as(enum handle_kind kind, const struct handle *handle, struct gpu *gpu) {
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(is_handle(handle), NVML_ERROR_INVALID_ARGUMENT);
    NEED(handle->kind == kind,
         handle->kind == HANDLE_MIG ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    bool there = read_gpu(handle->gpu, gpu);
    while (there && gpu->hung) {
        usleep(HANG_POLL_US);
        there = read_gpu(handle->gpu, gpu);
    }
    NEED(there && !gpu->lost, NVML_ERROR_GPU_IS_LOST);
    NEED(kind == HANDLE_GPU || mig_instance(gpu, handle), NVML_ERROR_NOT_FOUND);
    return NVML_SUCCESS;
}

nvmlReturn_t open_gpu(nvmlDevice_t device, struct gpu *gpu) {
    return open_as(HANDLE_GPU, device, gpu);
}

nvmlReturn_t open_device(nvmlDevice_t device, struct gpu *gpu,
                         const struct gpu_instance **instance) {
    bool mig = is_handle(device) && device->kind == HANDLE_MIG;
    TRY(open_as(mig ? HANDLE_MIG : HANDLE_GPU, device, gpu));
    *instance = mig ? mig_instance(gpu, device) : NULL;
    return NVML_SUCCESS;
}

nvmlReturn_t change_gpu(const struct handle *device, const struct change *changes, unsigned count) {
    switch (write_gpu(device->gpu, changes, count)) {
        case 0: return NVML_SUCCESS;
        case EACCES:
        case EPERM:
        case EROFS: return NVML_ERROR_NO_PERMISSION;
        default: return NVML_ERROR_UNKNOWN;
    }
}

nvmlReturn_t copy_text(const char *text, char *buffer, unsigned length) {
    NEED(*text && strcmp(text, "n/a") != 0, NVML_ERROR_NOT_SUPPORTED);
    NEED(buffer, NVML_ERROR_INVALID_ARGUMENT);
    NEED(strlen(text) < length, NVML_ERROR_INSUFFICIENT_SIZE);
    strcpy(buffer, text);
    return NVML_SUCCESS;
}

nvmlReturn_t give(int64_t value, unsigned *out) {
    NEED(out, NVML_ERROR_INVALID_ARGUMENT);
    NEED(value != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    *out = (unsigned)value;
    return NVML_SUCCESS;
}

int64_t or_zero(int64_t value) { return value == ABSENT ? 0 : value; }
