// MIG: a GPU divided into instances. A GPU instance carries at most one compute instance, of its
// whole size; together they are a MIG device.
#include <stdio.h>
#include <string.h>

#include "library.h"

#define AT(key) gpu.reading[READ_##key]

enum { WHOLE_GPU_SLICES = 8 };  // of memory, on GPUs with seven slices of compute

static const struct mig_profile seven_slices[] = {{0, 19, 1, 1, 7, 0x7f},
                                                  {9, 15, 1, 2, 4, 0x55},
                                                  {1, 14, 2, 2, 3, 0x15},
                                                  {2, 9, 3, 4, 2, 0x11},
                                                  {3, 5, 4, 4, 1, 0x01},
                                                  {4, 0, 7, 8, 1, 0x01},
                                                  {0}};
static const struct mig_profile four_slices[] = {
    {0, 14, 1, 1, 4, 0x0f}, {1, 5, 2, 2, 2, 0x05}, {3, 0, 4, 4, 1, 0x01}, {0}};

static const struct mig_profile *profiles(const struct gpu *gpu) {
    return gpu->reading[READ_mig_slices] == 4 ? four_slices : seven_slices;
}

static unsigned memory_slices(const struct gpu *gpu) {
    return gpu->reading[READ_mig_slices] == 4 ? 4 : WHOLE_GPU_SLICES;
}

const struct mig_profile *mig_profile(const struct gpu *gpu, unsigned id) {
    for (const struct mig_profile *profile = profiles(gpu); profile->slices; profile++)
        if (profile->id == id) return profile;
    return NULL;
}

static const struct mig_profile *enumerated(const struct gpu *gpu, unsigned enumeration) {
    for (const struct mig_profile *profile = profiles(gpu); profile->slices; profile++)
        if (profile->enumeration == enumeration) return profile;
    return NULL;
}

int64_t mig_memory_mib(const struct gpu *gpu, const struct mig_profile *profile) {
    return or_zero(gpu->reading[READ_memory_mib]) * profile->size / memory_slices(gpu);
}

// Ids number the places of a binary tree: the whole GPU 0, its halves 1 and 2, its quarters 3 to 6.
unsigned mig_instance_id(const struct gpu *gpu, const struct gpu_instance *instance) {
    const struct mig_profile *profile = mig_profile(gpu, instance->profile);
    if (!profile) return NVML_INSTANCE_NONE;
    return memory_slices(gpu) / profile->size - 1 + instance->start / profile->size;
}

unsigned mig_device_index(const struct gpu *gpu, const struct gpu_instance *instance) {
    unsigned index = 0;
    for (const struct gpu_instance *one = gpu->instance; one < instance; one++)
        index += one->compute;
    return index;
}

nvmlReturn_t mig_profile_info(const struct gpu *gpu, const struct mig_profile *profile,
                              nvmlGpuInstanceProfileInfo_v2_t *info) {
    NEED(profile, NVML_ERROR_NOT_SUPPORTED);
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    unsigned slices = memory_slices(gpu);
    int64_t cores = or_zero(gpu->reading[READ_multiprocessor_count]);
    int64_t gigabytes = or_zero(gpu->reading[READ_mig_memory_gb]) * profile->size;
    *info = (nvmlGpuInstanceProfileInfo_v2_t){
        .version = info->version,
        .id = profile->id,
        .slices = profile->slices,
        .instances = profile->most,
        .copy = profile->size,
        .decoder = profile->size / 2,
        .multiprocessors = (unsigned)((cores + slices) / (2 * slices) * 2 * profile->slices),
        .memoryMib = (u64)mig_memory_mib(gpu, profile)};
    snprintf(info->name, sizeof info->name, "MIG %ug.%lldgb", profile->slices,
             (long long)((2 * gigabytes + slices) / (2 * slices)));  // rounded, as names are
    return NVML_SUCCESS;
}

static nvmlReturn_t open_mig(nvmlDevice_t device, struct gpu *gpu) {
    TRY(open_gpu(device, gpu));
    NEED(gpu->reading[READ_mig_slices] != ABSENT && gpu->reading[READ_mig_mode] == 1,
         NVML_ERROR_NOT_SUPPORTED);
    return NVML_SUCCESS;
}

nvmlReturn_t mig_write(const struct handle *device, const struct gpu *gpu) {
    struct change change = {.key = "mig_instances"};
    size_t length = 0;
    for (unsigned i = 0; i < gpu->instance_count; i++)
        length += (size_t)snprintf(change.value + length, sizeof change.value - length, "%s%u:%u%s",
                                   i ? ", " : "", gpu->instance[i].profile, gpu->instance[i].start,
                                   gpu->instance[i].compute ? ":c" : "");
    return change_gpu(device, &change, 1);
}

struct gpu_instance *mig_instance(struct gpu *gpu, const struct handle *handle) {
    for (unsigned i = 0; i < gpu->instance_count; i++)
        if (mig_instance_id(gpu, &gpu->instance[i]) == handle->instance) return &gpu->instance[i];
    return NULL;
}

static bool in_use(const struct gpu *gpu, unsigned instance) {
    for (unsigned i = 0; i < gpu->process_count; i++)
        if (instance == NVML_INSTANCE_NONE || gpu->process[i].gpu_instance == instance) return true;
    return false;
}

API nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned mode, nvmlReturn_t *activation) {
    struct gpu gpu;
    struct change changes[] = {{"mig_mode_pending", ""}, {"mig_mode", ""}};
    TRY(open_gpu(device, &gpu));
    NEED(activation && mode <= 1, NVML_ERROR_INVALID_ARGUMENT);
    NEED(AT(mig_mode) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    bool busy = in_use(&gpu, NVML_INSTANCE_NONE) || (!mode && gpu.instance_count);
    for (int i = 0; i < 2; i++) strcpy(changes[i].value, mode ? "enabled" : "disabled");
    *activation = busy && AT(mig_mode) != mode ? NVML_ERROR_IN_USE : NVML_SUCCESS;
    return change_gpu(device, changes, *activation == NVML_SUCCESS ? 2 : 1);
}

API nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    return give(AT(mig_mode) == 1 ? AT(mig_slices) : 0, count);
}

API nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *mig) {
    struct gpu gpu;
    TRY(open_mig(device, &gpu));
    NEED(mig, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned i = 0; i < gpu.instance_count; i++) {
        if (!gpu.instance[i].compute || mig_device_index(&gpu, &gpu.instance[i]) != index) continue;
        *mig = handle_of(HANDLE_MIG, device->gpu, mig_instance_id(&gpu, &gpu.instance[i]));
        return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}

API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    struct gpu gpu;
    TRY(open_as(HANDLE_MIG, mig, &gpu));
    NEED(device, NVML_ERROR_INVALID_ARGUMENT);
    *device = handle_of(HANDLE_GPU, mig->gpu, 0);
    return NVML_SUCCESS;
}

API nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_mig) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    return give(instance != NULL, is_mig);
}

API nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id) {
    struct gpu gpu;
    TRY(open_as(HANDLE_MIG, device, &gpu));
    return give(device->instance, id);
}

API nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id) {
    struct gpu gpu;
    TRY(open_as(HANDLE_MIG, device, &gpu));
    return give(0, id);
}

API nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    struct gpu gpu;
    nvmlGpuInstanceProfileInfo_v2_t info;
    TRY(open_as(HANDLE_MIG, device, &gpu));
    NEED(attributes, NVML_ERROR_INVALID_ARGUMENT);
    TRY(mig_profile_info(&gpu, mig_profile(&gpu, mig_instance(&gpu, device)->profile), &info));
    *attributes = (nvmlDeviceAttributes_t){.multiprocessors = info.multiprocessors,
                                           .copy = info.copy,
                                           .decoder = info.decoder,
                                           .gpuSlices = info.slices,
                                           .computeSlices = info.slices,
                                           .memoryMib = info.memoryMib};
    return NVML_SUCCESS;
}

API nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned enumeration,
                                         nvmlGpuInstanceProfileInfo_v2_t *info) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(AT(mig_slices) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    return mig_profile_info(&gpu, enumerated(&gpu, enumeration), info);
}

API nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned id,
                                             nvmlGpuInstanceProfileInfo_v2_t *info) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(AT(mig_slices) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    return mig_profile_info(&gpu, mig_profile(&gpu, id), info);
}

API nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned enumeration,
                                        nvmlGpuInstanceProfileInfo_t *info) {
    nvmlGpuInstanceProfileInfo_v2_t whole;
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    TRY(nvmlDeviceGetGpuInstanceProfileInfoV(device, enumeration, &whole));
    *info = (nvmlGpuInstanceProfileInfo_t){.id = whole.id,
                                           .slices = whole.slices,
                                           .instances = whole.instances,
                                           .multiprocessors = whole.multiprocessors,
                                           .copy = whole.copy,
                                           .decoder = whole.decoder,
                                           .memoryMib = whole.memoryMib};
    return NVML_SUCCESS;
}

API nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned id,
                                                  nvmlPlacement_t *placements, unsigned *count) {
    struct gpu gpu;
    TRY(open_mig(device, &gpu));
    const struct mig_profile *profile = mig_profile(&gpu, id);
    NEED(profile && count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    for (unsigned start = 0; start < WHOLE_GPU_SLICES; start++) {
        if (!(profile->starts >> start & 1)) continue;
        if (placements) placements[*count] = (nvmlPlacement_t){start, profile->size};
        ++*count;
    }
    return NVML_SUCCESS;
}

// One bit for each slice of memory that an instance has.
static unsigned occupied(const struct gpu *gpu) {
    unsigned slices = 0;
    for (unsigned i = 0; i < gpu->instance_count; i++) {
        const struct mig_profile *profile = mig_profile(gpu, gpu->instance[i].profile);
        if (profile) slices |= ((1u << profile->size) - 1) << gpu->instance[i].start;
    }
    return slices;
}

static bool fits(const struct mig_profile *profile, unsigned start, unsigned taken) {
    return (profile->starts >> start & 1) && !(taken & ((1u << profile->size) - 1) << start);
}

API nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned id, unsigned *count) {
    struct gpu gpu;
    TRY(open_mig(device, &gpu));
    const struct mig_profile *profile = mig_profile(&gpu, id);
    NEED(profile && count, NVML_ERROR_INVALID_ARGUMENT);
    unsigned taken = occupied(&gpu);
    *count = 0;
    for (unsigned start = 0; start < WHOLE_GPU_SLICES; start++)
        *count += fits(profile, start, taken);
    return NVML_SUCCESS;
}

static nvmlReturn_t create(nvmlDevice_t device, unsigned id, unsigned first, unsigned last,
                           nvmlGpuInstance_t *made) {
    struct gpu gpu;
    TRY(open_mig(device, &gpu));
    const struct mig_profile *profile = mig_profile(&gpu, id);
    NEED(made && first < WHOLE_GPU_SLICES, NVML_ERROR_INVALID_ARGUMENT);
    NEED(profile, NVML_ERROR_NOT_SUPPORTED);
    unsigned start = first + 1, taken = occupied(&gpu);
    while (start-- > last)
        if (fits(profile, start, taken)) {
            gpu.instance[gpu.instance_count++] = (struct gpu_instance){id, start, false};
            TRY(mig_write(device, &gpu));
            *made = handle_of(HANDLE_GPU_INSTANCE, device->gpu,
                              mig_instance_id(&gpu, &gpu.instance[gpu.instance_count - 1]));
            return NVML_SUCCESS;
        }
    return NVML_ERROR_INSUFFICIENT_RESOURCES;
}

API nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *made) {
    return create(device, id, WHOLE_GPU_SLICES - 1, 0,
                  made);  // the last place first, as drivers do
}

API nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned id,
                                             const nvmlPlacement_t *where,
                                             nvmlGpuInstance_t *made) {
    NEED(where, NVML_ERROR_INVALID_ARGUMENT);
    return create(device, id, where->start, where->start, made);
}

API nvmlGpuInstanceDestroy(nvmlGpuInstance_t handle) {
    struct gpu gpu;
    TRY(open_as(HANDLE_GPU_INSTANCE, handle, &gpu));
    struct gpu_instance *instance = mig_instance(&gpu, handle);
    NEED(!instance->compute && !in_use(&gpu, handle->instance), NVML_ERROR_IN_USE);
    gpu.instance_count--;
    memmove(instance, instance + 1,
            (size_t)(&gpu.instance[gpu.instance_count] - instance) * sizeof *instance);
    return mig_write(handle, &gpu);
}

API nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *instances,
                              unsigned *count) {
    struct gpu gpu;
    TRY(open_mig(device, &gpu));
    NEED(instances && count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    for (unsigned i = 0; i < gpu.instance_count; i++)
        if (gpu.instance[i].profile == id)
            instances[(*count)++] = handle_of(HANDLE_GPU_INSTANCE, device->gpu,
                                              mig_instance_id(&gpu, &gpu.instance[i]));
    return NVML_SUCCESS;
}

API nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *instance) {
    struct gpu gpu;
    TRY(open_mig(device, &gpu));
    NEED(instance && id < 2 * WHOLE_GPU_SLICES, NVML_ERROR_INVALID_ARGUMENT);
    struct handle *handle = handle_of(HANDLE_GPU_INSTANCE, device->gpu, id);
    NEED(mig_instance(&gpu, handle), NVML_ERROR_NOT_FOUND);
    *instance = handle;
    return NVML_SUCCESS;
}

static nvmlPlacement_t placement(const struct gpu *gpu, const struct gpu_instance *instance) {
    return (nvmlPlacement_t){instance->start, mig_profile(gpu, instance->profile)->size};
}

API nvmlGpuInstanceGetInfo(nvmlGpuInstance_t handle, nvmlGpuInstanceInfo_t *info) {
    struct gpu gpu;
    TRY(open_as(HANDLE_GPU_INSTANCE, handle, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    const struct gpu_instance *instance = mig_instance(&gpu, handle);
    *info = (nvmlGpuInstanceInfo_t){handle_of(HANDLE_GPU, handle->gpu, 0), handle->instance,
                                    instance->profile, placement(&gpu, instance)};
    return NVML_SUCCESS;
}
