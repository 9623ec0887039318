// Starting and stopping, versions, and the ways to a device's handle.
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "library.h"

enum { VERSION_LENGTH = 32 };

static atomic_int users;

// Errors in NVML's words.
static const struct {
    nvmlReturn_t code;
    const char *words;
} errors[] = {
    {NVML_SUCCESS, "Success"},
    {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
    {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
    {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
    {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
    {NVML_ERROR_NOT_FOUND, "Not Found"},
    {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
    {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
    {NVML_ERROR_TIMEOUT, "Timeout"},
    {NVML_ERROR_LIBRARY_NOT_FOUND, "NVML Shared Library Not Found"},
    {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
    {NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Driver/library version mismatch"},
    {NVML_ERROR_IN_USE, "In use by another client"},
    {NVML_ERROR_MEMORY, "Insufficient Memory"},
    {NVML_ERROR_NO_DATA, "No data"},
    {NVML_ERROR_INSUFFICIENT_RESOURCES, "Insufficient Resources"},
    {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch"},
};

// The highest CUDA version of a driver branch, as 1000 * major + 10 * minor.
static const struct {
    int branch, cuda;
} cuda_of[] = {
    {610, 13030}, {595, 13020}, {590, 13010}, {580, 13000}, {575, 12090},
    {570, 12080}, {565, 12070}, {560, 12060}, {555, 12050}, {550, 12040},
    {545, 12030}, {535, 12020}, {530, 12010}, {525, 12000}, {470, 11040},
};

static bool is_version(const char *word) {
    return strchr(word, '.') && strspn(word, "0123456789.") == strlen(word);
}

static bool loaded_version(char *version) {
    char path[PATH_LENGTH], line[512], *rest = NULL;
    host_path(path, sizeof path, "/proc/driver/nvidia/version");
    FILE *file = fopen(path, "re");
    bool found = false;
    if (file && fgets(line, sizeof line, file))
        for (char *word = strtok_r(line, " \t\n", &rest); word && !found;
             word = strtok_r(NULL, " \t\n", &rest))
            if ((found = is_version(word))) snprintf(version, VERSION_LENGTH, "%s", word);
    if (file) fclose(file);
    return found;
}

static bool library_version(char *version) {  // from the name of the file that this code is in
    Dl_info self;
    char path[PATH_MAX];
    if (!dladdr((void *)library_version, &self) || !realpath(self.dli_fname, path)) return false;
    const char *mark = ".so.", *name = strstr(basename(path), mark);
    if (!name || !is_version(name + strlen(mark))) return false;
    snprintf(version, VERSION_LENGTH, "%s", name + strlen(mark));
    return true;
}

bool initialized(void) { return atomic_load(&users) > 0; }

API nvmlInitWithFlags(unsigned flags) {
    char loaded[VERSION_LENGTH], own[VERSION_LENGTH];
    (void)flags;
    NEED(loaded_version(loaded), NVML_ERROR_DRIVER_NOT_LOADED);
    NEED(library_version(own) && !strcmp(loaded, own), NVML_ERROR_LIB_RM_VERSION_MISMATCH);
    atomic_fetch_add(&users, 1);
    return NVML_SUCCESS;
}

API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void) {
    int before = atomic_load(&users);
    while (before > 0)
        if (atomic_compare_exchange_weak(&users, &before, before - 1)) return NVML_SUCCESS;
    return NVML_ERROR_UNINITIALIZED;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t code) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) return errors[i].words;
    return "Unknown Error";
}

API nvmlSystemGetDriverVersion(char *version, unsigned length) {
    char loaded[VERSION_LENGTH];
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(loaded_version(loaded), NVML_ERROR_DRIVER_NOT_LOADED);
    return copy_text(loaded, version, length);
}

API nvmlSystemGetNVMLVersion(char *version, unsigned length) {  // answers without nvmlInit
    char own[VERSION_LENGTH], full[VERSION_LENGTH + 8];
    NEED(library_version(own), NVML_ERROR_UNKNOWN);
    snprintf(full, sizeof full, "%d.%s", atoi(own) >= 580 ? 13 : 12, own);
    return copy_text(full, version, length);
}

API nvmlSystemGetDriverBranch(nvmlSystemDriverBranchInfo_t *info, unsigned length) {
    char loaded[VERSION_LENGTH], branch[VERSION_LENGTH];
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    NEED(loaded_version(loaded), NVML_ERROR_DRIVER_NOT_LOADED);
    snprintf(branch, sizeof branch, "r%d_00", atoi(loaded));
    return copy_text(branch, info->branch, length);
}

API nvmlSystemGetCudaDriverVersion_v2(int *version) {
    char loaded[VERSION_LENGTH];
    NEED(version, NVML_ERROR_INVALID_ARGUMENT);
    NEED(loaded_version(loaded), NVML_ERROR_DRIVER_NOT_LOADED);
    for (size_t i = 0; i < sizeof cuda_of / sizeof *cuda_of; i++)
        if (atoi(loaded) >= cuda_of[i].branch) {
            *version = cuda_of[i].cuda;
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_SUPPORTED;
}

API nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

API nvmlDeviceGetCount_v2(unsigned *count) {
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = gpu_count();
    return NVML_SUCCESS;
}

API nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

API nvmlGetExcludedDeviceCount(unsigned *count) {
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = 0;
    return NVML_SUCCESS;
}

API nvmlUnitGetCount(unsigned *count) { return nvmlGetExcludedDeviceCount(count); }

API nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    struct gpu gpu;
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(device && index < gpu_count(), NVML_ERROR_INVALID_ARGUMENT);
    *device = handle_of(HANDLE_GPU, index, 0);
    return open_gpu(*device, &gpu);
}

API nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

// The first GPU whose text is this one.
static nvmlReturn_t handle_by(enum text key, const char *wanted, nvmlDevice_t *device) {
    struct machine machine;
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(wanted && device, NVML_ERROR_INVALID_ARGUMENT);
    read_machine(&machine);
    for (unsigned i = 0; i < machine.gpu_count; i++)
        if (!strcasecmp(machine.gpu[i].text[key], wanted))
            return nvmlDeviceGetHandleByIndex_v2(i, device);
    return NVML_ERROR_NOT_FOUND;
}

API nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) {
    return handle_by(TEXT_serial, serial, device);
}

API nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *device) {
    unsigned domain = 0, bus, slot, function = 0;
    char wanted[TEXT_LENGTH];
    NEED(address, NVML_ERROR_INVALID_ARGUMENT);
    if (sscanf(address, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
        domain = 0;
        NEED(sscanf(address, "%x:%x.%x", &bus, &slot, &function) >= 2, NVML_ERROR_NOT_FOUND);
    }
    snprintf(wanted, sizeof wanted, "%04x:%02x:%02x.%x", domain, bus, slot, function);
    return handle_by(TEXT_pci, wanted, device);
}

API nvmlDeviceGetHandleByPciBusId(const char *address, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(address, device);
}

API nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    char found[TEXT_LENGTH];
    nvmlDevice_t gpu, mig;
    NEED(uuid && device, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned i = 0; strncmp(uuid, "MIG-", 4) == 0 && i < gpu_count(); i++)
        for (unsigned j = 0; j < INSTANCES; j++)
            if (!nvmlDeviceGetHandleByIndex_v2(i, &gpu) &&
                !nvmlDeviceGetMigDeviceHandleByIndex(gpu, j, &mig) &&
                !nvmlDeviceGetUUID(mig, found, sizeof found) && !strcmp(found, uuid)) {
                *device = mig;
                return NVML_SUCCESS;
            }
    return handle_by(TEXT_uuid, uuid, device);
}

API nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device) {
    NEED(uuid, NVML_ERROR_INVALID_ARGUMENT);
    NEED(uuid->type == 1, NVML_ERROR_NOT_SUPPORTED);  // the text form
    return nvmlDeviceGetHandleByUUID(uuid->value.text, device);
}
