// What a GPU is: names, addresses, architecture, capability.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

static const char *const architectures[] = {
    // by NVML's number
    "",       "",       "kepler", "maxwell", "pascal",    "volta",
    "turing", "ampere", "ada",    "hopper",  "blackwell",
};

static const struct {
    const char *prefix;
    unsigned brand;
} brands[] = {
    {"NVIDIA GeForce RTX", 15},
    {"NVIDIA RTX", 13},
    {"Tesla", 2},
    {"NVIDIA", 14},
};

API nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    char mig[TEXT_LENGTH * 2];
    TRY(open_device(device, &gpu, &instance));
    if (!instance) return copy_text(gpu.text[TEXT_name], name, length);
    const struct mig_profile *profile = mig_profile(&gpu, instance->profile);
    nvmlGpuInstanceProfileInfo_v2_t info;
    TRY(mig_profile_info(&gpu, profile, &info));
    snprintf(mig, sizeof mig, "%s %s", gpu.text[TEXT_name], info.name);
    return copy_text(mig, name, length);
}

// A MIG device's UUID is its GPU's, with the instance written over the last two digits.
API nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    char *own = gpu.text[TEXT_uuid], mig[TEXT_LENGTH + 8];
    if (!instance || strlen(own) < 8) return copy_text(own, uuid, length);
    snprintf(mig, sizeof mig, "MIG-%.*s%02x", (int)strlen(own) - 6, own + 4,
             device->instance + 0xa0);
    return copy_text(mig, uuid, length);
}

API nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    return give(instance ? mig_device_index(&gpu, instance) : device->gpu, index);
}

API nvmlDeviceGetBrand(nvmlDevice_t device, unsigned *brand) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    for (size_t i = 0; i < sizeof brands / sizeof *brands; i++)
        if (!strncmp(gpu.text[TEXT_name], brands[i].prefix, strlen(brands[i].prefix)))
            return give(brands[i].brand, brand);
    return give(0, brand);
}

API nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned *architecture) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    for (unsigned i = 2; i < sizeof architectures / sizeof *architectures; i++)
        if (!strcmp(gpu.text[TEXT_architecture], architectures[i])) return give(i, architecture);
    return give(UINT32_MAX, architecture);
}

API nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    NEED(major && minor, NVML_ERROR_INVALID_ARGUMENT);
    bool read = sscanf(gpu.text[TEXT_compute_capability], "%d.%d", major, minor) == 2;
    return read ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

API nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info) {
    struct gpu gpu;
    unsigned function = 0;
    TRY(open_gpu(device, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    *info = (nvmlPciInfo_t){0};
    NEED(sscanf(gpu.text[TEXT_pci], "%x:%x:%x.%x", &info->domain, &info->bus, &info->device,
                &function) >= 3,
         NVML_ERROR_UNKNOWN);
    info->pciDeviceId = (unsigned)strtoul(gpu.text[TEXT_device_id], NULL, 16) << 16 | 0x10de;
    info->pciSubSystemId = info->pciDeviceId;
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.%X",
             info->domain & 0xffff, info->bus & 0xff, info->device & 0xff, function & 7);
    snprintf(info->busId, sizeof info->busId, "%08X:%02X:%02X.%X", info->domain, info->bus,
             info->device, function);
    return NVML_SUCCESS;
}

API nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_v2_t *info) {
    nvmlPciInfo_t whole;
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    TRY(nvmlDeviceGetPciInfo_v3(device, &whole));
    *info = (nvmlPciInfo_v2_t){.domain = whole.domain,
                               .bus = whole.bus,
                               .device = whole.device,
                               .pciDeviceId = whole.pciDeviceId,
                               .pciSubSystemId = whole.pciSubSystemId};
    memcpy(info->busId, whole.busIdLegacy, sizeof info->busId);
    return NVML_SUCCESS;
}

API nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_v2_t *info) {
    return nvmlDeviceGetPciInfo_v2(device, info);
}

API nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *info) {
    nvmlPciInfo_t whole;
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    TRY(nvmlDeviceGetPciInfo_v3(device, &whole));
    *info = (nvmlPciInfoExt_t){.version = info->version,
                               .domain = whole.domain,
                               .bus = whole.bus,
                               .device = whole.device,
                               .pciDeviceId = whole.pciDeviceId,
                               .pciSubSystemId = whole.pciSubSystemId,
                               .baseClass = 3,
                               .subClass = 2};
    memcpy(info->busId, whole.busId, sizeof info->busId);
    return NVML_SUCCESS;
}

API nvmlDeviceGetBoardId(nvmlDevice_t device, unsigned *board) {
    nvmlPciInfo_t info;
    TRY(nvmlDeviceGetPciInfo_v3(device, &info));
    return give((int64_t)(info.domain << 16 | info.bus << 8 | info.device), board);
}

API nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    return nvmlSystemGetDriverVersion(version, 64);
}

API nvmlDeviceGetGspFirmwareMode(nvmlDevice_t device, unsigned *enabled, unsigned *usual) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    TRY(give(1, enabled));
    return give(1, usual);
}

API nvmlDeviceOnSameBoard(nvmlDevice_t first, nvmlDevice_t second, int *same) {
    struct gpu gpu;
    TRY(open_gpu(first, &gpu));
    TRY(open_gpu(second, &gpu));
    NEED(same, NVML_ERROR_INVALID_ARGUMENT);
    *same = first == second;
    return NVML_SUCCESS;
}
