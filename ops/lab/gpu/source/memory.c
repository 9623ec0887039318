// Frame buffer, BAR1, and the errors of the memory: ECC, retired pages, remapped rows.
#include "library.h"

#define MIB (1024ULL * 1024ULL)
#define AT(key) gpu.reading[READ_##key]

enum { RETIRED_FIRST_PAGE = 0x7c80, PAGE_SHIFT = 12 };

// What is in use: what the description says, and at least what the processes hold.
int64_t memory_used_mib(const struct gpu *gpu, const struct gpu_instance *instance) {
    int64_t held = 0;
    for (unsigned i = 0; i < gpu->process_count; i++)
        if (!instance || gpu->process[i].gpu_instance == mig_instance_id(gpu, instance))
            held += gpu->process[i].memory_mib;
    int64_t said = instance ? 0 : or_zero(gpu->reading[READ_memory_used_mib]);
    return said > held ? said : held;
}

static nvmlReturn_t read_memory(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    NEED(memory, NVML_ERROR_INVALID_ARGUMENT);
    int64_t total = AT(memory_mib), reserved = or_zero(AT(memory_reserved_mib));
    NEED(total != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    if (instance) {
        const struct mig_profile *profile = mig_profile(&gpu, instance->profile);
        NEED(profile, NVML_ERROR_NOT_FOUND);
        total = mig_memory_mib(&gpu, profile), reserved = 0;
    }
    int64_t used = memory_used_mib(&gpu, instance), room = total - reserved - used;
    memory->total = (u64)total * MIB, memory->reserved = (u64)reserved * MIB;
    memory->used = (u64)used * MIB, memory->free = room > 0 ? (u64)room * MIB : 0;
    return NVML_SUCCESS;
}

API nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    return read_memory(device, memory);
}

API nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlMemory_v2_t whole = {0};
    NEED(memory, NVML_ERROR_INVALID_ARGUMENT);
    TRY(read_memory(device, &whole));  // the first version counts the reserve as used
    *memory = (nvmlMemory_t){whole.total, whole.free, whole.used + whole.reserved};
    return NVML_SUCCESS;
}

API nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    NEED(memory, NVML_ERROR_INVALID_ARGUMENT);
    NEED(AT(bar1_mib) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    u64 total = (u64)AT(bar1_mib) * MIB, used = (u64)or_zero(AT(bar1_used_mib)) * MIB;
    *memory = (nvmlBAR1Memory_t){total, used < total ? total - used : 0, used};
    return NVML_SUCCESS;
}

// The GPU's life holds at least what happened since the driver was loaded.
static int64_t ecc_total(const struct gpu *gpu, unsigned error, unsigned counter) {
    bool corrected = error == NVML_MEMORY_ERROR_CORRECTED;
    int64_t now = gpu->reading[corrected ? READ_ecc_corrected : READ_ecc_uncorrected];
    int64_t life =
        gpu->reading[corrected ? READ_ecc_corrected_aggregate : READ_ecc_uncorrected_aggregate];
    return counter == NVML_VOLATILE_ECC || life < now ? now : life;
}

static nvmlReturn_t open_ecc(nvmlDevice_t device, struct gpu *gpu, unsigned error,
                             unsigned counter) {
    TRY(open_gpu(device, gpu));
    NEED(error <= 1 && counter <= 1, NVML_ERROR_INVALID_ARGUMENT);
    bool counts = gpu->reading[READ_ecc_mode] == 1 && ecc_total(gpu, error, counter) != ABSENT;
    return counts ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

API nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned error, unsigned counter, u64 *count) {
    struct gpu gpu;
    TRY(open_ecc(device, &gpu, error, counter));
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    *count = (u64)ecc_total(&gpu, error, counter);
    return NVML_SUCCESS;
}

API nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned error, unsigned counter,
                                    unsigned location, u64 *count) {
    struct gpu gpu;
    TRY(open_ecc(device, &gpu, error, counter));
    NEED(count && location < NVML_MEMORY_LOCATION_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    NEED(location == NVML_MEMORY_LOCATION_DRAM || location == NVML_MEMORY_LOCATION_SRAM,
         NVML_ERROR_NOT_SUPPORTED);
    bool uncorrected = error == NVML_MEMORY_ERROR_UNCORRECTED;
    int64_t sram = uncorrected ? or_zero(AT(ecc_uncorrected_sram)) : 0;
    int64_t dram = ecc_total(&gpu, error, counter) - sram;
    *count = (u64)(location == NVML_MEMORY_LOCATION_SRAM ? sram : dram > 0 ? dram : 0);
    return NVML_SUCCESS;
}

API nvmlDeviceGetDetailedEccErrors(nvmlDevice_t device, unsigned error, unsigned counter,
                                   nvmlEccErrorCounts_t *counts) {
    NEED(counts, NVML_ERROR_INVALID_ARGUMENT);
    *counts = (nvmlEccErrorCounts_t){0};
    return nvmlDeviceGetMemoryErrorCounter(device, error, counter, NVML_MEMORY_LOCATION_DRAM,
                                           &counts->memory);
}

API nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *status) {
    struct gpu gpu;
    TRY(open_ecc(device, &gpu, NVML_MEMORY_ERROR_UNCORRECTED, NVML_VOLATILE_ECC));
    NEED(status, NVML_ERROR_INVALID_ARGUMENT);
    u64 errors = (u64)or_zero(AT(ecc_uncorrected_sram));
    *status = (nvmlEccSramErrorStatus_t){.version = status->version,
                                         .aggregateSecDed = errors,
                                         .volatileSecDed = errors,
                                         .bucketL2 = errors,
                                         .thresholdExceeded = AT(ecc_sram_threshold_exceeded) == 1};
    return NVML_SUCCESS;
}

API nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, unsigned *mode) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    return give(AT(ecc_mode) == ABSENT ? ABSENT : 1, mode);
}

API nvmlDeviceClearEccErrorCounts(nvmlDevice_t device, unsigned counter) {
    struct gpu gpu;
    static const char *const keys[2][2] = {
        {"ecc_corrected", "ecc_uncorrected"},
        {"ecc_corrected_aggregate", "ecc_uncorrected_aggregate"}};
    TRY(open_ecc(device, &gpu, NVML_MEMORY_ERROR_CORRECTED, counter));
    struct change changes[] = {
        {keys[counter][0], "0"}, {keys[counter][1], "0"}, {"ecc_uncorrected_sram", "0"}};
    return change_gpu(device, changes, 3);
}

API nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, unsigned cause, unsigned *count,
                                 u64 *addresses, u64 *times) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(count && cause <= 1, NVML_ERROR_INVALID_ARGUMENT);
    int64_t pages = cause ? AT(retired_pages_uncorrected) : AT(retired_pages_corrected);
    NEED(pages != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    unsigned room = addresses ? *count : 0;
    *count = (unsigned)pages;
    NEED(room >= pages, NVML_ERROR_INSUFFICIENT_SIZE);
    for (int64_t i = 0; i < pages; i++) {
        addresses[i] = (u64)(RETIRED_FIRST_PAGE + i) << PAGE_SHIFT;
        if (times) times[i] = 0;
    }
    return NVML_SUCCESS;
}

API nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *count,
                              u64 *addresses) {
    return nvmlDeviceGetRetiredPages_v2(device, cause, count, addresses, NULL);
}

API nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failure) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    TRY(give(AT(remapped_rows_corrected), corrected));
    TRY(give(AT(remapped_rows_uncorrected), uncorrected));
    TRY(give(AT(remapped_rows_pending), pending));
    return give(AT(remapped_rows_failure), failure);
}

API nvmlDeviceGetRemappedRows_v2(nvmlDevice_t device, nvmlRemappedRowsInfo_v2_t *rows) {
    NEED(rows, NVML_ERROR_INVALID_ARGUMENT);
    *rows = (nvmlRemappedRowsInfo_v2_t){0};
    return nvmlDeviceGetRemappedRows(device, &rows->correctedActive, &rows->uncorrectedActive,
                                     &rows->pending, &rows->failure);
}

API nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogram_t *banks) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(banks, NVML_ERROR_INVALID_ARGUMENT);
    TRY(give(AT(remap_banks_max), &banks->max));
    TRY(give(AT(remap_banks_high), &banks->high));
    TRY(give(AT(remap_banks_partial), &banks->partial));
    TRY(give(AT(remap_banks_low), &banks->low));
    return give(AT(remap_banks_none), &banks->none);
}
