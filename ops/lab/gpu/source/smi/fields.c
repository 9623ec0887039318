// The fields of --query-gpu, each with the question to NVML behind it. The report uses them too.
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "fields.h"

#define READER(id) static nvmlReturn_t id(nvmlDevice_t device, char *text)
#define NUMBER(id, function)                                \
    READER(id) {                                            \
        unsigned value = 0;                                 \
        nvmlReturn_t code = NVML(function)(device, &value); \
        snprintf(text, TEXT, "%u", value);                  \
        return code;                                        \
    }
#define KINDED(id, function, kind)                                \
    READER(id) {                                                  \
        unsigned value = 0;                                       \
        nvmlReturn_t code = NVML(function)(device, kind, &value); \
        snprintf(text, TEXT, "%d", (int)value);                   \
        return code;                                              \
    }
#define WATTS(id, function)                                 \
    READER(id) {                                            \
        unsigned value = 0;                                 \
        nvmlReturn_t code = NVML(function)(device, &value); \
        snprintf(text, TEXT, "%.2f", value / 1000.0);       \
        return code;                                        \
    }
#define STRING(id, function) \
    READER(id) { return NVML(function)(device, text, TEXT); }
#define WORDED(id, function, yes, no)                       \
    READER(id) {                                            \
        unsigned value = 0;                                 \
        nvmlReturn_t code = NVML(function)(device, &value); \
        snprintf(text, TEXT, "%s", value ? yes : no);       \
        return code;                                        \
    }
// Functions with two answers: which of them, and its shape.
#define OF_PAIR(id, function, which, format, shape)                       \
    READER(id) {                                                          \
        unsigned value[2] = {0, 0};                                       \
        nvmlReturn_t code = NVML(function)(device, &value[0], &value[1]); \
        snprintf(text, TEXT, format, shape(value[which]));                \
        return code;                                                      \
    }
#define ENABLED(value) ((value) ? "Enabled" : "Disabled")
#define IN_WATTS(value) ((value) / 1000.0)
#define SAME(value) (value)

STRING(name, nvmlDeviceGetName)
STRING(uuid, nvmlDeviceGetUUID)
STRING(serial, nvmlDeviceGetSerial)
STRING(vbios, nvmlDeviceGetVbiosVersion)
STRING(part, nvmlDeviceGetBoardPartNumber)
NUMBER(index_of, nvmlDeviceGetIndex)
NUMBER(minor, nvmlDeviceGetMinorNumber)
NUMBER(fan, nvmlDeviceGetFanSpeed)
NUMBER(link_gen, nvmlDeviceGetCurrPcieLinkGeneration)
NUMBER(link_gen_max, nvmlDeviceGetMaxPcieLinkGeneration)
NUMBER(link_width, nvmlDeviceGetCurrPcieLinkWidth)
NUMBER(link_width_max, nvmlDeviceGetMaxPcieLinkWidth)
NUMBER(replays, nvmlDeviceGetPcieReplayCounter)
WORDED(persistence, nvmlDeviceGetPersistenceMode, "Enabled", "Disabled")
WORDED(display, nvmlDeviceGetDisplayActive, "Enabled", "Disabled")
WORDED(retired_pending, nvmlDeviceGetRetiredPagesPendingStatus, "Yes", "No")
WATTS(power_draw, nvmlDeviceGetPowerUsage)
WATTS(power_limit, nvmlDeviceGetPowerManagementLimit)
WATTS(power_enforced, nvmlDeviceGetEnforcedPowerLimit)
WATTS(power_default, nvmlDeviceGetPowerManagementDefaultLimit)
OF_PAIR(power_min, nvmlDeviceGetPowerManagementLimitConstraints, 0, "%.2f", IN_WATTS)
OF_PAIR(power_max, nvmlDeviceGetPowerManagementLimitConstraints, 1, "%.2f", IN_WATTS)
OF_PAIR(ecc_now, nvmlDeviceGetEccMode, 0, "%s", ENABLED)
OF_PAIR(ecc_pending, nvmlDeviceGetEccMode, 1, "%s", ENABLED)
OF_PAIR(mig_now, nvmlDeviceGetMigMode, 0, "%s", ENABLED)
OF_PAIR(mig_pending, nvmlDeviceGetMigMode, 1, "%s", ENABLED)
OF_PAIR(encoder, nvmlDeviceGetEncoderUtilization, 0, "%u", SAME)
OF_PAIR(decoder, nvmlDeviceGetDecoderUtilization, 0, "%u", SAME)
KINDED(temperature, nvmlDeviceGetTemperature, 0)
KINDED(temperature_shutdown, nvmlDeviceGetTemperatureThreshold, 0)
KINDED(temperature_slowdown, nvmlDeviceGetTemperatureThreshold, 1)
KINDED(temperature_memory_max, nvmlDeviceGetTemperatureThreshold, 2)
KINDED(temperature_gpu_max, nvmlDeviceGetTemperatureThreshold, 3)
KINDED(clock_graphics, nvmlDeviceGetClockInfo, NVML_CLOCK_GRAPHICS)
KINDED(clock_sm, nvmlDeviceGetClockInfo, NVML_CLOCK_SM)
KINDED(clock_memory, nvmlDeviceGetClockInfo, NVML_CLOCK_MEM)
KINDED(clock_video, nvmlDeviceGetClockInfo, NVML_CLOCK_VIDEO)
KINDED(clock_max_graphics, nvmlDeviceGetMaxClockInfo, NVML_CLOCK_GRAPHICS)
KINDED(clock_max_sm, nvmlDeviceGetMaxClockInfo, NVML_CLOCK_SM)
KINDED(clock_max_memory, nvmlDeviceGetMaxClockInfo, NVML_CLOCK_MEM)
KINDED(clock_app_graphics, nvmlDeviceGetApplicationsClock, NVML_CLOCK_GRAPHICS)
KINDED(clock_app_memory, nvmlDeviceGetApplicationsClock, NVML_CLOCK_MEM)
KINDED(pcie_tx, nvmlDeviceGetPcieThroughput, 0)
KINDED(pcie_rx, nvmlDeviceGetPcieThroughput, 1)

READER(timestamp) {
    struct timeval now;
    struct tm parts;
    char seconds[TEXT / 2];
    (void)device;
    gettimeofday(&now, NULL);
    strftime(seconds, sizeof seconds, "%Y/%m/%d %H:%M:%S", localtime_r(&now.tv_sec, &parts));
    snprintf(text, TEXT, "%s.%03d", seconds, (int)(now.tv_usec / 1000));
    return NVML_SUCCESS;
}

READER(driver_version) {
    (void)device;
    return NVML(nvmlSystemGetDriverVersion)(text, TEXT);
}

READER(count) {
    (void)device;
    snprintf(text, TEXT, "%u", device_count());
    return NVML_SUCCESS;
}

READER(performance) {
    unsigned value = 0;
    nvmlReturn_t code = NVML(nvmlDeviceGetPerformanceState)(device, &value);
    snprintf(text, TEXT, "P%u", value);
    return code;
}

READER(compute_mode) {
    static const char *const modes[] = {"Default", "Exclusive_Thread", "Prohibited",
                                        "Exclusive_Process"};
    unsigned value = 0;
    nvmlReturn_t code = NVML(nvmlDeviceGetComputeMode)(device, &value);
    snprintf(text, TEXT, "%s", modes[value & 3]);
    return code;
}

READER(capability) {
    int major = 0, minor_part = 0;
    nvmlReturn_t code = NVML(nvmlDeviceGetCudaComputeCapability)(device, &major, &minor_part);
    snprintf(text, TEXT, "%d.%d", major, minor_part);
    return code;
}

READER(architecture) {
    static const char *const names[] = {"",         "",       "Kepler", "Maxwell",      "Pascal",
                                        "Volta",    "Turing", "Ampere", "Ada Lovelace", "Hopper",
                                        "Blackwell"};
    unsigned value = 0;
    nvmlReturn_t code = NVML(nvmlDeviceGetArchitecture)(device, &value);
    snprintf(text, TEXT, "%s", value < sizeof names / sizeof *names ? names[value] : "Unknown");
    return code;
}

#define PCI(id, format, part)                                             \
    READER(id) {                                                          \
        nvmlPciInfo_t info = {0};                                         \
        nvmlReturn_t code = NVML(nvmlDeviceGetPciInfo_v3)(device, &info); \
        snprintf(text, TEXT, format, info.part);                          \
        return code;                                                      \
    }
PCI(pci_address, "%s", busId)
PCI(pci_domain, "0x%04X", domain)
PCI(pci_bus, "0x%02X", bus)
PCI(pci_device, "0x%02X", device)
PCI(pci_device_id, "0x%08X", pciDeviceId)

#define MEMORY(id, function, type, part)                     \
    READER(id) {                                             \
        type memory = {0};                                   \
        nvmlReturn_t code = NVML(function)(device, &memory); \
        snprintf(text, TEXT, "%llu", memory.part >> 20);     \
        return code;                                         \
    }
MEMORY(memory_total, nvmlDeviceGetMemoryInfo_v2, nvmlMemory_v2_t, total)
MEMORY(memory_reserved, nvmlDeviceGetMemoryInfo_v2, nvmlMemory_v2_t, reserved)
MEMORY(memory_used, nvmlDeviceGetMemoryInfo_v2, nvmlMemory_v2_t, used)
MEMORY(memory_free, nvmlDeviceGetMemoryInfo_v2, nvmlMemory_v2_t, free)
MEMORY(bar1_total, nvmlDeviceGetBAR1MemoryInfo, nvmlBAR1Memory_t, total)
MEMORY(bar1_used, nvmlDeviceGetBAR1MemoryInfo, nvmlBAR1Memory_t, used)
MEMORY(bar1_free, nvmlDeviceGetBAR1MemoryInfo, nvmlBAR1Memory_t, free)

#define PART(id, function, type, part)                      \
    READER(id) {                                            \
        type value = {0};                                   \
        nvmlReturn_t code = NVML(function)(device, &value); \
        snprintf(text, TEXT, "%d", (int)value.part);        \
        return code;                                        \
    }
PART(load, nvmlDeviceGetUtilizationRates, nvmlUtilization_t, gpu)
PART(load_memory, nvmlDeviceGetUtilizationRates, nvmlUtilization_t, memory)
PART(margin, nvmlDeviceGetMarginTemperature, nvmlMarginTemperature_t, margin)
PART(banks_max, nvmlDeviceGetRowRemapperHistogram, nvmlRowRemapperHistogram_t, max)
PART(banks_high, nvmlDeviceGetRowRemapperHistogram, nvmlRowRemapperHistogram_t, high)
PART(banks_partial, nvmlDeviceGetRowRemapperHistogram, nvmlRowRemapperHistogram_t, partial)
PART(banks_low, nvmlDeviceGetRowRemapperHistogram, nvmlRowRemapperHistogram_t, low)
PART(banks_none, nvmlDeviceGetRowRemapperHistogram, nvmlRowRemapperHistogram_t, none)

READER(reasons) {
    u64 bits = 0;
    nvmlReturn_t code = NVML(nvmlDeviceGetCurrentClocksEventReasons)(device, &bits);
    snprintf(text, TEXT, "0x%016llX", bits);
    return code;
}

#define REASON(id, bit)                                                                  \
    READER(id) {                                                                         \
        u64 bits = 0;                                                                    \
        nvmlReturn_t code = NVML(nvmlDeviceGetCurrentClocksEventReasons)(device, &bits); \
        snprintf(text, TEXT, bits & (bit) ? "Active" : "Not Active");                    \
        return code;                                                                     \
    }
REASON(reason_idle, 0x1)
REASON(reason_applications, 0x2)
REASON(reason_power_cap, 0x4)
REASON(reason_hw_slowdown, 0x8)
REASON(reason_sync_boost, 0x10)
REASON(reason_sw_thermal, 0x20)
REASON(reason_hw_thermal, 0x40)
REASON(reason_power_brake, 0x80)

#define ECC(id, error, counter)                                                                 \
    READER(id##_total) {                                                                        \
        u64 errors = 0;                                                                         \
        nvmlReturn_t code = NVML(nvmlDeviceGetTotalEccErrors)(device, error, counter, &errors); \
        snprintf(text, TEXT, "%llu", errors);                                                   \
        return code;                                                                            \
    }                                                                                           \
    ECC_AT(id##_dram, error, counter, NVML_MEMORY_LOCATION_DRAM)                                \
    ECC_AT(id##_sram, error, counter, NVML_MEMORY_LOCATION_SRAM)
#define ECC_AT(id, error, counter, location)                                                  \
    READER(id) {                                                                              \
        u64 errors = 0;                                                                       \
        nvmlReturn_t code =                                                                   \
            NVML(nvmlDeviceGetMemoryErrorCounter)(device, error, counter, location, &errors); \
        snprintf(text, TEXT, "%llu", errors);                                                 \
        return code;                                                                          \
    }
ECC(corrected_volatile, NVML_MEMORY_ERROR_CORRECTED, NVML_VOLATILE_ECC)
ECC(uncorrected_volatile, NVML_MEMORY_ERROR_UNCORRECTED, NVML_VOLATILE_ECC)
ECC(corrected_aggregate, NVML_MEMORY_ERROR_CORRECTED, NVML_AGGREGATE_ECC)
ECC(uncorrected_aggregate, NVML_MEMORY_ERROR_UNCORRECTED, NVML_AGGREGATE_ECC)

#define RETIRED(id, cause)                                                                         \
    READER(id) {                                                                                   \
        unsigned pages = 0;                                                                        \
        nvmlReturn_t code = NVML(nvmlDeviceGetRetiredPages_v2)(device, cause, &pages, NULL, NULL); \
        snprintf(text, TEXT, "%u", pages);                                                         \
        return code == NVML_ERROR_INSUFFICIENT_SIZE ? NVML_SUCCESS : code;                         \
    }
RETIRED(retired_corrected, 0)
RETIRED(retired_uncorrected, 1)

#define REMAPPED(id, which, format, shape)                                                   \
    READER(id) {                                                                             \
        unsigned rows[4] = {0};                                                              \
        nvmlReturn_t code =                                                                  \
            NVML(nvmlDeviceGetRemappedRows)(device, &rows[0], &rows[1], &rows[2], &rows[3]); \
        snprintf(text, TEXT, format, shape(rows[which]));                                    \
        return code;                                                                         \
    }
#define YES(value) ((value) ? "Yes" : "No")
REMAPPED(remapped_corrected, 0, "%u", SAME)
REMAPPED(remapped_uncorrected, 1, "%u", SAME)
REMAPPED(remapped_pending, 2, "%s", YES)
REMAPPED(remapped_failure, 3, "%s", YES)

static nvmlReturn_t field_value(nvmlDevice_t device, unsigned number, unsigned *value) {
    nvmlFieldValue_t field = {.fieldId = number};
    nvmlReturn_t code = NVML(nvmlDeviceGetFieldValues)(device, 1, &field);
    *value = field.value.ui;
    return code ? code : (nvmlReturn_t)field.code;
}

READER(memory_temperature) {
    unsigned value = 0;
    nvmlReturn_t code = field_value(device, 82, &value);
    snprintf(text, TEXT, "%u", value);
    return code;
}

READER(recovery_action) {
    static const char *const actions[] = {"None", "Reset", "Reboot", "Drain P2P",
                                          "Drain and Reset"};
    unsigned value = 0;
    nvmlReturn_t code = field_value(device, 230, &value);
    snprintf(text, TEXT, "%s", actions[value < 5 ? value : 2]);
    return code;
}

READER(fabric_state) {
    static const char *const states[] = {"N/A", "Not Started", "In Progress", "Completed"};
    nvmlGpuFabricInfo_t info = {0};
    nvmlReturn_t code = NVML(nvmlDeviceGetGpuFabricInfo)(device, &info);
    snprintf(text, TEXT, "%s", states[info.state & 3]);
    return code;
}

#define FIELD(name, unit, id) {name, unit, id},
static const struct field fields[] = {
#include "fields.def"
};

const struct field *find_field(const char *name) {
    static const char *const aliases[][2] = {
        {"gpu_name", "name"},
        {"gpu_uuid", "uuid"},
        {"gpu_serial", "serial"},
        {"gpu_bus_id", "pci.bus_id"},
        {"temperature", "temperature.gpu"},
        {"clocks.gr", "clocks.current.graphics"},
        {"clocks.sm", "clocks.current.sm"},
        {"clocks.mem", "clocks.current.memory"},
        {"clocks.video", "clocks.current.video"},
        {"clocks.max.gr", "clocks.max.graphics"},
        {"clocks.max.mem", "clocks.max.memory"},
        {"ecc.mode", "ecc.mode.current"},
        {"mig.mode", "mig.mode.current"},
        {"pcie.link.gen.gpucurrent", "pcie.link.gen.current"},
    };
    static const char old[] = "clocks_throttle_reasons.", new[] = "clocks_event_reasons.";
    char modern[TEXT];
    if (!strncmp(name, old, strlen(old))) {
        snprintf(modern, sizeof modern, "%s%s", new, name + strlen(old));
        name = modern;
    }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(name, aliases[i][0])) name = aliases[i][1];
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(name, fields[i].name)) return &fields[i];
    return NULL;
}

const char *failure_words(nvmlReturn_t code) {
    switch (code) {
        case NVML_ERROR_NOT_SUPPORTED: return "N/A";
        case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
        case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
        default: return "Unknown Error";
    }
}

nvmlReturn_t read_field(nvmlDevice_t device, const char *name, char *text) {
    const struct field *field = find_field(name);
    nvmlReturn_t code = field ? field->read(device, text) : NVML_ERROR_NOT_SUPPORTED;
    if (code) snprintf(text, TEXT, "%s", failure_words(code));
    return code;
}
