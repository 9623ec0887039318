// Compute instances: one for each GPU instance, of its whole size, always with id 0.
#include <stdio.h>

#include "library.h"

static nvmlReturn_t open_instance(nvmlGpuInstance_t handle, struct gpu *gpu,
                                  struct gpu_instance **instance) {
    TRY(open_as(HANDLE_GPU_INSTANCE, handle, gpu));
    *instance = mig_instance(gpu, handle);
    return NVML_SUCCESS;
}

// Whether this compute profile is the one of the whole GPU instance.
static nvmlReturn_t open_profile(nvmlGpuInstance_t handle, unsigned compute_profile,
                                 struct gpu *gpu, struct gpu_instance **instance) {
    TRY(open_instance(handle, gpu, instance));
    const struct mig_profile *profile = mig_profile(gpu, (*instance)->profile);
    static const unsigned slices[] = {1, 2, 3, 4, 7};
    bool whole = compute_profile < sizeof slices / sizeof *slices &&
                 slices[compute_profile] == profile->slices;
    return whole ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

API nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t handle,
                                                  unsigned compute_profile, unsigned engines,
                                                  nvmlComputeInstanceProfileInfo_v2_t *info) {
    struct gpu gpu;
    struct gpu_instance *instance;
    nvmlGpuInstanceProfileInfo_v2_t whole;
    (void)engines;
    TRY(open_profile(handle, compute_profile, &gpu, &instance));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    TRY(mig_profile_info(&gpu, mig_profile(&gpu, instance->profile), &whole));
    *info = (nvmlComputeInstanceProfileInfo_v2_t){.version = info->version,
                                                  .id = compute_profile,
                                                  .slices = whole.slices,
                                                  .instances = 1,
                                                  .multiprocessors = whole.multiprocessors,
                                                  .copy = whole.copy,
                                                  .decoder = whole.decoder};
    snprintf(info->name, sizeof info->name, "%s", whole.name);
    return NVML_SUCCESS;
}

API nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t handle, unsigned compute_profile,
                                                 unsigned engines,
                                                 nvmlComputeInstanceProfileInfo_t *info) {
    nvmlComputeInstanceProfileInfo_v2_t whole;
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    TRY(nvmlGpuInstanceGetComputeInstanceProfileInfoV(handle, compute_profile, engines, &whole));
    *info = (nvmlComputeInstanceProfileInfo_t){.id = whole.id,
                                               .slices = whole.slices,
                                               .instances = whole.instances,
                                               .multiprocessors = whole.multiprocessors,
                                               .copy = whole.copy,
                                               .decoder = whole.decoder};
    return NVML_SUCCESS;
}

API nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t handle,
                                                       unsigned compute_profile, unsigned *count) {
    struct gpu gpu;
    struct gpu_instance *instance;
    TRY(open_profile(handle, compute_profile, &gpu, &instance));
    return give(!instance->compute, count);
}

API nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t handle, unsigned compute_profile,
                                         nvmlComputeInstance_t *made) {
    struct gpu gpu;
    struct gpu_instance *instance;
    TRY(open_profile(handle, compute_profile, &gpu, &instance));
    NEED(made, NVML_ERROR_INVALID_ARGUMENT);
    NEED(!instance->compute, NVML_ERROR_INSUFFICIENT_RESOURCES);
    instance->compute = true;
    TRY(mig_write(handle, &gpu));
    *made = handle_of(HANDLE_COMPUTE_INSTANCE, handle->gpu, handle->instance);
    return NVML_SUCCESS;
}

API nvmlComputeInstanceDestroy(nvmlComputeInstance_t compute) {
    struct gpu gpu;
    struct gpu_instance *instance;
    TRY(open_as(HANDLE_COMPUTE_INSTANCE, compute, &gpu));
    struct handle *handle = handle_of(HANDLE_GPU_INSTANCE, compute->gpu, compute->instance);
    TRY(open_instance(handle, &gpu, &instance));
    NEED(instance->compute, NVML_ERROR_NOT_FOUND);
    for (unsigned i = 0; i < gpu.process_count; i++)
        NEED(gpu.process[i].gpu_instance != compute->instance, NVML_ERROR_IN_USE);
    instance->compute = false;
    return mig_write(handle, &gpu);
}

API nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t handle, unsigned compute_profile,
                                       nvmlComputeInstance_t *instances, unsigned *count) {
    struct gpu gpu;
    struct gpu_instance *instance;
    TRY(open_profile(handle, compute_profile, &gpu, &instance));
    NEED(instances && count, NVML_ERROR_INVALID_ARGUMENT);
    *count = instance->compute;
    if (*count) *instances = handle_of(HANDLE_COMPUTE_INSTANCE, handle->gpu, handle->instance);
    return NVML_SUCCESS;
}

API nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t handle, unsigned id,
                                          nvmlComputeInstance_t *compute) {
    struct gpu gpu;
    struct gpu_instance *instance;
    TRY(open_instance(handle, &gpu, &instance));
    NEED(compute, NVML_ERROR_INVALID_ARGUMENT);
    NEED(id == 0 && instance->compute, NVML_ERROR_NOT_FOUND);
    *compute = handle_of(HANDLE_COMPUTE_INSTANCE, handle->gpu, handle->instance);
    return NVML_SUCCESS;
}

API nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t compute, nvmlComputeInstanceInfo_t *info) {
    struct gpu gpu;
    struct gpu_instance *instance;
    TRY(open_as(HANDLE_COMPUTE_INSTANCE, compute, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    struct handle *handle = handle_of(HANDLE_GPU_INSTANCE, compute->gpu, compute->instance);
    TRY(open_instance(handle, &gpu, &instance));
    const struct mig_profile *profile = mig_profile(&gpu, instance->profile);
    *info = (nvmlComputeInstanceInfo_t){.device = handle_of(HANDLE_GPU, compute->gpu, 0),
                                        .gpuInstance = handle,
                                        .profileId = profile->slices == 7 ? 4 : profile->slices - 1,
                                        .placement = {0, profile->slices}};
    return NVML_SUCCESS;
}
