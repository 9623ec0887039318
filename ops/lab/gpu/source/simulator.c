// What the simulated nvidia-smi needs beyond NVML: a real one asks the kernel module.
#include <stdio.h>
#include <string.h>

#include "library.h"

#define AT(key) gpu.reading[READ_##key]

API rackhandSimulatorPciAddress(unsigned index, char *buffer, unsigned length) {
    struct gpu gpu;
    char address[TEXT_LENGTH];
    unsigned domain, bus, slot, function;
    NEED(read_gpu(index, &gpu), NVML_ERROR_NOT_FOUND);
    NEED(sscanf(gpu.text[TEXT_pci], "%x:%x:%x.%x", &domain, &bus, &slot, &function) == 4,
         NVML_ERROR_UNKNOWN);
    snprintf(address, sizeof address, "%04X:%02X:%02X.%X", domain, bus, slot, function);
    return copy_text(address, buffer, length);
}

// A reset takes pending things into force and forgets what counts from the driver's loading.
API rackhandSimulatorResetGpu(nvmlDevice_t device) {
    struct gpu gpu;
    struct change changes[CHANGES];
    unsigned count = 0;
    TRY(open_gpu(device, &gpu));
    NEED(gpu.process_count == 0, NVML_ERROR_IN_USE);
    const struct {
        const char *key;
        enum reading reading;
        int64_t after;
    } effects[] = {
        {"ecc_corrected", READ_ecc_corrected, 0},
        {"ecc_uncorrected", READ_ecc_uncorrected, 0},
        {"ecc_uncorrected_sram", READ_ecc_uncorrected_sram, 0},
        {"ecc_mode", READ_ecc_mode, AT(ecc_mode_pending)},
        {"mig_mode", READ_mig_mode, AT(mig_mode_pending)},
        {"remapped_rows_uncorrected", READ_remapped_rows_uncorrected,
         AT(remapped_rows_uncorrected) + (AT(remapped_rows_pending) == 1)},
        {"remapped_rows_pending", READ_remapped_rows_pending, 0},
        {"retired_pages_pending", READ_retired_pages_pending, 0},
        {"recovery_action", READ_recovery_action, 0},
        {"clocks_event_reasons", READ_clocks_event_reasons, 1},
        {"nvlink_down", READ_nvlink_down, 0},
        {"memory_used_mib", READ_memory_used_mib, 0},
    };
    for (size_t i = 0; i < sizeof effects / sizeof *effects; i++) {
        if (gpu.reading[effects[i].reading] == ABSENT || effects[i].after == ABSENT) continue;
        changes[count].key = effects[i].key;
        snprintf(changes[count].value, sizeof changes->value, "%lld", (long long)effects[i].after);
        count++;
    }
    if (AT(mig_mode_pending) == 0) changes[count++] = (struct change){"mig_instances", ""};
    return change_gpu(device, changes, count);
}
