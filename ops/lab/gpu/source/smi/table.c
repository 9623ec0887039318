// The table that nvidia-smi shows without arguments, in NVIDIA's layout.
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fields.h"

#define WIDE \
    "-----------------------------------------------------------------------------------------"
#define HEAVY_LINE \
    "========================================================================================="
#define COLUMNS                                                                                   \
    "+-----------------------------------------+------------------------+----------------------+" \
    "\n"
#define HEAVY                                                                                     \
    "|=========================================+========================+======================|" \
    "\n"

// A line of one cell over the whole width.
static void __attribute__((format(printf, 1, 2))) line(const char *format, ...) {
    char text[4 * TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("|%-89.89s|\n", text);
}

static void print_head(void) {
    char when[TEXT], version[TEXT] = "";
    int cuda = 0;
    time_t now = time(NULL);
    strftime(when, sizeof when, "%a %b %e %H:%M:%S %Y", localtime(&now));
    NVML(nvmlSystemGetDriverVersion)(version, sizeof version);
    NVML(nvmlSystemGetCudaDriverVersion_v2)(&cuda);
    printf("%s       \n+" WIDE "+\n", when);
    line(" NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %d.%d", version, version,
         cuda / 1000, cuda % 1000 / 10);
    printf(COLUMNS
           "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. "
           "ECC |\n"
           "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute "
           "M. |\n"
           "|                                         |                        |               MIG "
           "M. |\n" HEAVY);
}

static const char *on_off(const char *word) { return strcmp(word, "Enabled") ? "Off" : "On"; }

// A reading with its unit close to it; N/A stays as it is.
static void with_unit(nvmlDevice_t device, const char *field, const char *unit, char *text) {
    if (read_field(device, field, text) == NVML_SUCCESS)
        strncat(text, unit, TEXT - strlen(text) - 1);
}

static void whole_watts(nvmlDevice_t device, const char *field, char *text) {
    if (read_field(device, field, text) == NVML_SUCCESS) snprintf(text, TEXT, "%.0fW", atof(text));
}

static void print_gpu(unsigned index, nvmlDevice_t device) {
    char name[TEXT], persistence[TEXT], address[TEXT], display[TEXT], ecc[TEXT];
    read_field(device, "name", name);
    read_field(device, "persistence_mode", persistence);
    read_field(device, "pci.bus_id", address);
    read_field(device, "display_active", display);
    read_field(device, "ecc.errors.uncorrected.volatile.total", ecc);
    printf("|%4u  %-30.30s %-3s |%19s %-3s |%21s |\n", index, name, on_off(persistence), address,
           on_off(display), ecc);
    char fan[TEXT], heat[TEXT], state[TEXT], draw[TEXT], cap[TEXT], used[TEXT], total[TEXT];
    char load[TEXT], mode[TEXT], mig[TEXT];
    with_unit(device, "fan.speed", "%", fan);
    with_unit(device, "temperature.gpu", "C", heat);
    read_field(device, "pstate", state);
    whole_watts(device, "power.draw", draw);
    whole_watts(device, "power.limit", cap);
    with_unit(device, "memory.used", "MiB", used);
    with_unit(device, "memory.total", "MiB", total);
    with_unit(device, "utilization.gpu", "%", load);
    read_field(device, "compute_mode", mode);
    read_field(device, "mig.mode.current", mig);
    printf("|%4s%6s%6s%16s / %5s |%11s / %9s |%8s %12.12s |\n", fan, heat, state, draw, cap, used,
           total, load, mode);
    printf("|%41s|%24s|%21s |\n" COLUMNS, "", "", mig);
}

static void print_mig_devices(unsigned index, nvmlDevice_t device, bool *any) {
    unsigned most = 0, instance = 0;
    NVML(nvmlDeviceGetMaxMigDeviceCount)(device, &most);
    for (unsigned i = 0; i < most; i++) {
        nvmlDevice_t mig;
        nvmlMemory_v2_t memory = {.version = 0x2000028};
        if (NVML(nvmlDeviceGetMigDeviceHandleByIndex)(device, i, &mig)) continue;
        if (!*any) {
            line(" MIG devices:");
            line(
                "  GPU   GI   CI  MIG Dev                                              "
                "Memory-Usage");
            line(HEAVY_LINE);
        }
        *any = true;
        NVML(nvmlDeviceGetGpuInstanceId)(mig, &instance);
        NVML(nvmlDeviceGetMemoryInfo_v2)(mig, &memory);
        line("%5u %4u    0 %8u %46lluMiB / %6lluMiB", index, instance, i, memory.used >> 20,
             memory.total >> 20);
    }
}

static bool print_processes(unsigned index, nvmlDevice_t device) {
    struct running processes[SMI_PROCESSES];
    unsigned count = processes_of(device, processes);
    for (unsigned i = 0; i < count; i++) {
        const nvmlProcessDetail_t *process = &processes[i].detail;
        char name[TEXT] = "[Not Found]", gi[TEXT] = "N/A", ci[TEXT] = "N/A";
        NVML(nvmlSystemGetProcessName)(process->pid, name, sizeof name);
        if (process->gpuInstance != NVML_INSTANCE_NONE) {
            snprintf(gi, sizeof gi, "%u", process->gpuInstance);
            snprintf(ci, sizeof ci, "%u", process->computeInstance);
        }
        line("%5u %4.4s %4.4s %16u %6s   %-33.33s %9lluMiB ", index, gi, ci, process->pid,
             processes[i].type, name, process->usedGpuMemory >> 20);
    }
    return count > 0;
}

int show_table(const struct options *options) {
    nvmlDevice_t devices[SMI_GPUS];
    bool any_mig = false, any_process = false;
    unsigned count = device_count();
    for (unsigned i = 0; i < count; i++)
        if (options->chosen[i]) devices[i] = device_at(i);  // a lost GPU ends it here, as it does
    print_head();
    for (unsigned i = 0; i < count; i++)
        if (options->chosen[i]) print_gpu(i, devices[i]);
    printf("\n+" WIDE "+\n");
    for (unsigned i = 0; i < count; i++)
        if (options->chosen[i]) print_mig_devices(i, devices[i], &any_mig);
    if (any_mig) printf("+" WIDE "+\n\n+" WIDE "+\n");
    line(" Processes:");
    line(
        "  GPU   GI   CI              PID   Type   Process name                        GPU Memory");
    line("        ID   ID                                                               Usage");
    line(HEAVY_LINE);
    for (unsigned i = 0; i < count; i++)
        if (options->chosen[i]) any_process |= print_processes(i, devices[i]);
    if (!any_process) line("  No running processes found");
    printf("+" WIDE "+\nSimulated GPU (rackhand lab)\n");
    return 0;
}
