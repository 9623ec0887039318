// Load, clocks, heat: what moves while a GPU works.
#include <sys/time.h>

#include "library.h"

#define AT(key) gpu.reading[READ_##key]

enum { CLOCK_STEP_MHZ = 15, LOWEST_CLOCK_MHZ = 210 };

API nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(rates, NVML_ERROR_INVALID_ARGUMENT);
    NEED(AT(mig_mode) != 1, NVML_ERROR_NOT_SUPPORTED);  // under MIG each instance has its own
    TRY(give(AT(utilization_gpu), &rates->gpu));
    return give(AT(utilization_memory), &rates->memory);
}

API nvmlDeviceGetDynamicPstatesInfo(nvmlDevice_t device, nvmlGpuDynamicPstatesInfo_t *info) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    *info = (nvmlGpuDynamicPstatesInfo_t){0};
    int64_t domains[] = {AT(utilization_gpu), AT(utilization_memory), AT(utilization_decoder)};
    for (unsigned i = 0; i < sizeof domains / sizeof *domains; i++) {
        info->utilization[i].present = domains[i] != ABSENT;
        info->utilization[i].percentage = (unsigned)or_zero(domains[i]);
    }
    return NVML_SUCCESS;
}

API nvmlDeviceGetSamples(nvmlDevice_t device, unsigned kind, u64 since, unsigned *type,
                         unsigned *count, nvmlSample_t *samples) {
    static const enum reading readings[] = {
        READ_power_usage_mw,      READ_utilization_gpu,     READ_utilization_memory,
        READ_utilization_encoder, READ_utilization_decoder, READ_clock_graphics_mhz,
        READ_clock_memory_mhz,
    };
    struct gpu gpu;
    struct timeval now;
    (void)since;
    TRY(open_gpu(device, &gpu));
    NEED(type && count && kind < sizeof readings / sizeof *readings, NVML_ERROR_INVALID_ARGUMENT);
    NEED(gpu.reading[readings[kind]] != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    NEED(!samples || *count, NVML_ERROR_INSUFFICIENT_SIZE);
    *type = NVML_VALUE_UNSIGNED, *count = 1;
    if (!samples) return NVML_SUCCESS;
    gettimeofday(&now, NULL);
    samples->timeStamp = (u64)now.tv_sec * 1000000 + (u64)now.tv_usec;
    samples->value = (nvmlValue_t){.ui = (unsigned)gpu.reading[readings[kind]]};
    return NVML_SUCCESS;
}

static const enum reading clocks_now[NVML_CLOCK_COUNT] = {
    READ_clock_graphics_mhz, READ_clock_sm_mhz, READ_clock_memory_mhz, READ_clock_video_mhz};
static const enum reading clocks_max[NVML_CLOCK_COUNT] = {
    READ_clock_max_graphics_mhz, READ_clock_max_sm_mhz, READ_clock_max_memory_mhz,
    READ_clock_max_video_mhz};
static const enum reading clocks_application[NVML_CLOCK_COUNT] = {
    READ_clock_application_graphics_mhz, READ_clock_application_graphics_mhz,
    READ_clock_application_memory_mhz, READINGS};

static nvmlReturn_t clock_of(nvmlDevice_t device, const enum reading *table, unsigned clock,
                             unsigned *mhz) {
    struct gpu gpu;
    const struct gpu_instance *instance;
    TRY(open_device(device, &gpu, &instance));
    NEED(clock < NVML_CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    return give(table[clock] == READINGS ? ABSENT : gpu.reading[table[clock]], mhz);
}

#define CLOCK(function, table)                                         \
    API function(nvmlDevice_t device, unsigned clock, unsigned *mhz) { \
        return clock_of(device, table, clock, mhz);                    \
    }
CLOCK(nvmlDeviceGetClockInfo, clocks_now)
CLOCK(nvmlDeviceGetMaxClockInfo, clocks_max)
CLOCK(nvmlDeviceGetMaxCustomerBoostClock, clocks_max)
CLOCK(nvmlDeviceGetApplicationsClock, clocks_application)
CLOCK(nvmlDeviceGetDefaultApplicationsClock, clocks_application)

API nvmlDeviceGetClock(nvmlDevice_t device, unsigned clock, unsigned which, unsigned *mhz) {
    static const enum reading *const tables[] = {clocks_now, clocks_application, clocks_application,
                                                 clocks_max};
    NEED(which < sizeof tables / sizeof *tables, NVML_ERROR_INVALID_ARGUMENT);
    return clock_of(device, tables[which], clock, mhz);
}

API nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned *count, unsigned *clocks) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    NEED(AT(clock_max_memory_mhz) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    unsigned room = clocks ? *count : 0;
    *count = 1;
    NEED(room >= 1, NVML_ERROR_INSUFFICIENT_SIZE);
    return give(AT(clock_max_memory_mhz), clocks);
}

API nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned memory_mhz, unsigned *count,
                                         unsigned *clocks) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    NEED(memory_mhz == AT(clock_max_memory_mhz), NVML_ERROR_NOT_FOUND);
    unsigned room = clocks ? *count : 0, highest = (unsigned)or_zero(AT(clock_max_graphics_mhz));
    NEED(highest >= LOWEST_CLOCK_MHZ, NVML_ERROR_NOT_SUPPORTED);
    *count = (highest - LOWEST_CLOCK_MHZ) / CLOCK_STEP_MHZ + 1;
    NEED(room >= *count, NVML_ERROR_INSUFFICIENT_SIZE);
    for (unsigned i = 0; i < *count; i++) clocks[i] = highest - i * CLOCK_STEP_MHZ;
    return NVML_SUCCESS;
}

API nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(sensor == 0, NVML_ERROR_INVALID_ARGUMENT);
    return give(AT(temperature), celsius);
}

API nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
    NEED(temperature, NVML_ERROR_INVALID_ARGUMENT);
    return nvmlDeviceGetTemperature(device, temperature->sensor,
                                    (unsigned *)&temperature->temperature);
}

API nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned threshold, unsigned *celsius) {
    static const enum reading thresholds[] = {READ_temperature_shutdown, READ_temperature_slowdown,
                                              READ_temperature_memory_max,
                                              READ_temperature_gpu_max};
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(threshold < sizeof thresholds / sizeof *thresholds, NVML_ERROR_NOT_SUPPORTED);
    return give(gpu.reading[thresholds[threshold]], celsius);
}

API nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(margin, NVML_ERROR_INVALID_ARGUMENT);
    NEED(AT(temperature) != ABSENT && AT(temperature_gpu_max) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    margin->margin = (int)(AT(temperature_gpu_max) - AT(temperature));
    return NVML_SUCCESS;
}

API nvmlDeviceGetThermalSettings(nvmlDevice_t device, unsigned sensor,
                                 nvmlGpuThermalSettings_t *settings) {
    struct gpu gpu;
    (void)sensor;
    TRY(open_gpu(device, &gpu));
    NEED(settings, NVML_ERROR_INVALID_ARGUMENT);
    NEED(AT(temperature) != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    *settings = (nvmlGpuThermalSettings_t){.count = 1};
    settings->sensor[0] = (nvmlThermalSensor_t){.controller = 1,
                                                .defaultMax = (int)or_zero(AT(temperature_gpu_max)),
                                                .current = (int)AT(temperature),
                                                .target = 1};  // 1: the GPU itself
    return NVML_SUCCESS;
}

API nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned policy, nvmlViolationTime_t *time) {
    struct gpu gpu;
    struct timeval now;
    TRY(open_gpu(device, &gpu));
    NEED(time, NVML_ERROR_INVALID_ARGUMENT);
    NEED(policy <= 1, NVML_ERROR_NOT_SUPPORTED);  // power and heat are what the simulator knows
    int64_t violation = policy ? AT(violation_thermal_ns) : AT(violation_power_ns);
    NEED(violation != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    gettimeofday(&now, NULL);
    *time = (nvmlViolationTime_t){(u64)now.tv_sec * 1000000 + (u64)now.tv_usec, (u64)violation};
    return NVML_SUCCESS;
}

API nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned fan, unsigned *percent) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(fan < or_zero(AT(fan_count)), NVML_ERROR_INVALID_ARGUMENT);
    return give(AT(fan_speed), percent);
}
