// Functions that hand out readings as they stand in the description, as tables.
#include <stdio.h>

#include "library.h"

#define UNSIGNED(function, key)                          \
    API function(nvmlDevice_t device, unsigned *value) { \
        struct gpu gpu;                                  \
        TRY(open_gpu(device, &gpu));                     \
        return give(gpu.reading[READ_##key], value);     \
    }

UNSIGNED(nvmlDeviceGetNumaNodeId, numa_node)
UNSIGNED(nvmlDeviceGetMinorNumber, minor_number)
UNSIGNED(nvmlDeviceGetModuleId, minor_number)
UNSIGNED(nvmlDeviceGetMemoryBusWidth, memory_bus_bits)
UNSIGNED(nvmlDeviceGetNumGpuCores, core_count)
UNSIGNED(nvmlDeviceGetPerformanceState, performance_state)
UNSIGNED(nvmlDeviceGetPowerState, performance_state)
UNSIGNED(nvmlDeviceGetPowerUsage, power_usage_mw)
UNSIGNED(nvmlDeviceGetPowerManagementLimit, power_limit_mw)
UNSIGNED(nvmlDeviceGetEnforcedPowerLimit, power_limit_mw)
UNSIGNED(nvmlDeviceGetPowerManagementDefaultLimit, power_default_limit_mw)
UNSIGNED(nvmlDeviceGetNumFans, fan_count)
UNSIGNED(nvmlDeviceGetFanSpeed, fan_speed)
UNSIGNED(nvmlDeviceGetPersistenceMode, persistence_mode)
UNSIGNED(nvmlDeviceGetComputeMode, compute_mode)
UNSIGNED(nvmlDeviceGetDisplayActive, display_active)
UNSIGNED(nvmlDeviceGetDisplayMode, display_active)
UNSIGNED(nvmlDeviceGetRetiredPagesPendingStatus, retired_pages_pending)
UNSIGNED(nvmlDeviceGetCurrPcieLinkGeneration, pcie_generation)
UNSIGNED(nvmlDeviceGetMaxPcieLinkGeneration, pcie_generation_max)
UNSIGNED(nvmlDeviceGetGpuMaxPcieLinkGeneration, pcie_generation_max)
UNSIGNED(nvmlDeviceGetCurrPcieLinkWidth, pcie_width)
UNSIGNED(nvmlDeviceGetMaxPcieLinkWidth, pcie_width_max)
UNSIGNED(nvmlDeviceGetPcieReplayCounter, pcie_replays)

#define LONG(function, key)                                                \
    API function(nvmlDevice_t device, u64 *value) {                        \
        struct gpu gpu;                                                    \
        TRY(open_gpu(device, &gpu));                                       \
        NEED(value, NVML_ERROR_INVALID_ARGUMENT);                          \
        NEED(gpu.reading[READ_##key] != ABSENT, NVML_ERROR_NOT_SUPPORTED); \
        *value = (u64)gpu.reading[READ_##key];                             \
        return NVML_SUCCESS;                                               \
    }

LONG(nvmlDeviceGetTotalEnergyConsumption, energy_mj)
LONG(nvmlDeviceGetCurrentClocksThrottleReasons, clocks_event_reasons)
LONG(nvmlDeviceGetCurrentClocksEventReasons, clocks_event_reasons)

#define TEXT(function, key)                                          \
    API function(nvmlDevice_t device, char *text, unsigned length) { \
        struct gpu gpu;                                              \
        TRY(open_gpu(device, &gpu));                                 \
        return copy_text(gpu.text[TEXT_##key], text, length);        \
    }

TEXT(nvmlDeviceGetSerial, serial)
TEXT(nvmlDeviceGetBoardPartNumber, board_part_number)
TEXT(nvmlDeviceGetVbiosVersion, vbios_version)

#define PAIR(function, first_key, second_key)                              \
    API function(nvmlDevice_t device, unsigned *first, unsigned *second) { \
        struct gpu gpu;                                                    \
        TRY(open_gpu(device, &gpu));                                       \
        TRY(give(gpu.reading[READ_##first_key], first));                   \
        return give(gpu.reading[READ_##second_key], second);               \
    }

PAIR(nvmlDeviceGetPowerManagementLimitConstraints, power_min_limit_mw, power_max_limit_mw)
PAIR(nvmlDeviceGetEccMode, ecc_mode, ecc_mode_pending)
PAIR(nvmlDeviceGetMigMode, mig_mode, mig_mode_pending)

// Engines: the reading, and the time over which it was taken.
#define ENGINE(function, key)                                                   \
    API function(nvmlDevice_t device, unsigned *percent, unsigned *period_us) { \
        struct gpu gpu;                                                         \
        TRY(open_gpu(device, &gpu));                                            \
        NEED(gpu.reading[READ_mig_mode] != 1, NVML_ERROR_NOT_SUPPORTED);        \
        if (period_us) *period_us = 167000;                                     \
        return give(gpu.reading[READ_##key], percent);                          \
    }

ENGINE(nvmlDeviceGetEncoderUtilization, utilization_encoder)
ENGINE(nvmlDeviceGetDecoderUtilization, utilization_decoder)
ENGINE(nvmlDeviceGetJpgUtilization, utilization_jpeg)
ENGINE(nvmlDeviceGetOfaUtilization, utilization_ofa)

// What holds for every GPU of the simulator.
#define CONSTANT(function, type, constant)           \
    API function(nvmlDevice_t device, type *value) { \
        struct gpu gpu;                              \
        TRY(open_gpu(device, &gpu));                 \
        NEED(value, NVML_ERROR_INVALID_ARGUMENT);    \
        *value = (constant);                         \
        return NVML_SUCCESS;                         \
    }

CONSTANT(nvmlDeviceGetSupportedClocksThrottleReasons, u64, 0x1ff)
CONSTANT(nvmlDeviceGetSupportedClocksEventReasons, u64, 0x1ff)
CONSTANT(nvmlDeviceGetSupportedEventTypes, u64, NVML_EVENTS_SUPPORTED)
CONSTANT(nvmlDeviceGetPowerManagementMode, unsigned, 1)
CONSTANT(nvmlDeviceGetAccountingMode, unsigned, 0)
CONSTANT(nvmlDeviceGetMultiGpuBoard, unsigned, 0)
CONSTANT(nvmlDeviceGetVirtualizationMode, unsigned, 0)
CONSTANT(nvmlDeviceGetBusType, unsigned, 2)      // PCIe
CONSTANT(nvmlDeviceGetPowerSource, unsigned, 0)  // mains

#define MODE(function, key, most)                                          \
    API function(nvmlDevice_t device, unsigned mode) {                     \
        struct gpu gpu;                                                    \
        struct change change = {#key, ""};                                 \
        TRY(open_gpu(device, &gpu));                                       \
        NEED(gpu.reading[READ_##key] != ABSENT, NVML_ERROR_NOT_SUPPORTED); \
        NEED(mode <= (most), NVML_ERROR_INVALID_ARGUMENT);                 \
        snprintf(change.value, sizeof change.value, "%u", mode);           \
        return change_gpu(device, &change, 1);                             \
    }

MODE(nvmlDeviceSetPersistenceMode, persistence_mode, 1)
MODE(nvmlDeviceSetComputeMode, compute_mode, 3)
MODE(nvmlDeviceSetEccMode, ecc_mode_pending, 1)

API nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned limit_mw) {
    struct gpu gpu;
    struct change change = {.key = "power_limit_mw"};
    TRY(open_gpu(device, &gpu));
    NEED(gpu.reading[READ_power_limit_mw] != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    NEED(limit_mw >= gpu.reading[READ_power_min_limit_mw] &&
             limit_mw <= gpu.reading[READ_power_max_limit_mw],
         NVML_ERROR_INVALID_ARGUMENT);
    snprintf(change.value, sizeof change.value, "%u", limit_mw);
    return change_gpu(device, &change, 1);
}
