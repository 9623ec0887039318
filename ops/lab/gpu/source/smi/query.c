// --query-gpu and --query-compute-apps, as comma-separated values.
#include <stdlib.h>
#include <string.h>

#include "fields.h"

enum { MOST_FIELDS = 128 };

// The words of a list, trimmed; `list` is cut up.
static int split(char *list, char **words) {
    int count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(list, ", ", &rest); word && count < MOST_FIELDS;
         word = strtok_r(NULL, ", ", &rest))
        words[count++] = word;
    return count;
}

static void print_header(const char *name, const char *unit, bool last) {
    printf(*unit ? "%s [%s]%s" : "%s%s%s", name,
           *unit  ? unit
           : last ? "\n"
                  : ", ",
           *unit ? (last ? "\n" : ", ") : "");
}

static void print_value(const struct options *options, nvmlReturn_t code, const char *text,
                        const char *unit, bool last) {
    if (code)
        printf("[%s]", text);
    else
        printf(*unit && options->units ? "%s %s" : "%s", text, unit);
    printf(last ? "\n" : ", ");
}

int query_gpus(const struct options *options, const char *list) {
    char *copy = strdup(list), *words[MOST_FIELDS], text[TEXT];
    int count = split(copy, words);
    for (int i = 0; i < count; i++)
        if (!find_field(words[i])) {
            printf("Field \"%s\" is not a valid field to query.\n\n", words[i]);
            return NVML_ERROR_INVALID_ARGUMENT;
        }
    for (int i = 0; options->header && i < count; i++)
        print_header(find_field(words[i])->name, find_field(words[i])->unit, i == count - 1);
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        for (int i = 0; i < count; i++) {
            nvmlReturn_t code = read_field(device, words[i], text);
            print_value(options, code, text, find_field(words[i])->unit, i == count - 1);
        }
    }
    free(copy);
    return 0;
}

unsigned processes_of(nvmlDevice_t device, struct running *processes) {
    static const char *const types[] = {"C", "G", "M+C"};  // by NVML's mode
    unsigned count = 0;
    for (unsigned mode = 0; mode < sizeof types / sizeof *types; mode++) {
        nvmlProcessDetail_t found[SMI_PROCESSES];
        nvmlProcessDetailList_t list = {
            .version = 0x1000018, .mode = mode, .count = SMI_PROCESSES, .processes = found};
        if (NVML(nvmlDeviceGetRunningProcessDetailList)(device, &list)) continue;
        for (unsigned i = 0; i < list.count && count < SMI_PROCESSES; i++)
            processes[count++] = (struct running){found[i], types[mode]};
    }
    return count;
}

static const char *const process_fields[][2] = {
    {"timestamp", ""}, {"gpu_name", ""}, {"gpu_bus_id", ""},   {"gpu_serial", ""},
    {"gpu_uuid", ""},  {"pid", ""},      {"process_name", ""}, {"used_gpu_memory", "MiB"},
};

// What nvidia-smi calls a field that has two names.
static char *canonical(char *name) {
    if (!strcmp(name, "name")) return "process_name";
    return strcmp(name, "used_memory") ? name : "used_gpu_memory";
}

static const char *process_unit(const char *name) {
    for (size_t i = 0; i < sizeof process_fields / sizeof *process_fields; i++)
        if (!strcmp(name, process_fields[i][0])) return process_fields[i][1];
    return NULL;
}

static nvmlReturn_t read_process(nvmlDevice_t device, const nvmlProcessDetail_t *process,
                                 const char *name, char *text) {
    if (!strcmp(name, "pid")) return snprintf(text, TEXT, "%u", process->pid), NVML_SUCCESS;
    if (!strcmp(name, "process_name"))
        return NVML(nvmlSystemGetProcessName)(process->pid, text, TEXT);
    if (*process_unit(name))
        return snprintf(text, TEXT, "%llu", process->usedGpuMemory >> 20), NVML_SUCCESS;
    return read_field(device, name, text);
}

int query_processes(const struct options *options, const char *list) {
    char *copy = strdup(list), *words[MOST_FIELDS], text[TEXT];
    int count = split(copy, words);
    for (int i = 0; i < count; i++) words[i] = canonical(words[i]);
    for (int i = 0; i < count; i++)
        if (!process_unit(words[i])) {
            printf("Field \"%s\" is not a valid field to query.\n\n", words[i]);
            return NVML_ERROR_INVALID_ARGUMENT;
        }
    for (int i = 0; options->header && i < count; i++)
        print_header(words[i], process_unit(words[i]), i == count - 1);
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        struct running processes[SMI_PROCESSES];
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        unsigned running = processes_of(device, processes);
        for (unsigned i = 0; i < running; i++)
            for (int j = 0; j < count; j++) {
                nvmlReturn_t code = read_process(device, &processes[i].detail, words[j], text);
                print_value(options, code, text, process_unit(words[j]), j == count - 1);
            }
    }
    free(copy);
    return 0;
}
