// nvidia-smi of the simulated GPU: reads its arguments and hands them to the part that answers.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "smi.h"

static const char usage[] =
    "NVIDIA System Management Interface: a simulated GPU (rackhand lab)\n"
    "  nvidia-smi                      the table\n"
    "  -L, --list-gpus                 GPUs and MIG devices\n"
    "  -q, --query [-d SECTION,...]    the long report\n"
    "  --query-gpu=FIELDS --format=csv[,noheader][,nounits]\n"
    "  --query-compute-apps=FIELDS --format=csv[,noheader][,nounits]\n"
    "  -i, --id=GPU                    index, UUID or PCI address; several with commas\n"
    "  -pm 0|1, -mig 0|1, -r           persistence, MIG mode, reset\n"
    "  mig -lgip | -lgi | -lci | -cgi PROFILES [-C] | -cci | -dgi | -dci\n"
    "  topo -m, --version, --help\n";

static void *library;

void *nvml_symbol(const char *name) {
    void *symbol = library ? dlsym(library, name) : NULL;
    if (!symbol) fail_nvml(NVML_ERROR_LIBRARY_NOT_FOUND);
    return symbol;
}

void fail_nvml(nvmlReturn_t code) {
    if (code == NVML_ERROR_DRIVER_NOT_LOADED)
        printf(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
            "sure that the latest NVIDIA driver is installed and running.\n\n");
    else if (code == NVML_ERROR_LIBRARY_NOT_FOUND)
        printf(
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure "
            "that the NVIDIA Display Driver is properly installed and present in your system.\n");
    else
        printf("Failed to initialize NVML: %s\n", NVML(nvmlErrorString)(code));
    if (code == NVML_ERROR_LIB_RM_VERSION_MISMATCH) {
        char version[TEXT] = "";
        if (!NVML(nvmlSystemGetNVMLVersion)(version, sizeof version) && strchr(version, '.')) {
            char *dot = strrchr(version, '.');
            char *first = strchr(version, '.');
            printf("NVML library version: %.*s\n", (int)(dot - first - 1), first + 1);
        }
    }
    exit((int)code);
}

static void connect_library(void) {
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library) fail_nvml(NVML_ERROR_LIBRARY_NOT_FOUND);
    nvmlReturn_t code = NVML(nvmlInit_v2)();
    if (code) fail_nvml(code);
}

unsigned device_count(void) {
    unsigned count = 0;
    NVML(nvmlDeviceGetCount_v2)(&count);
    return count;
}

nvmlDevice_t device_at(unsigned index) {
    nvmlDevice_t device = NULL;
    char address[TEXT] = "";
    nvmlReturn_t code = NVML(nvmlDeviceGetHandleByIndex_v2)(index, &device);
    if (code == NVML_SUCCESS) return device;
    NVML(rackhandSimulatorPciAddress)(index, address, sizeof address);
    if (code == NVML_ERROR_GPU_IS_LOST)
        printf(
            "Unable to determine the device handle for GPU%s: GPU is lost.  Reboot the system "
            "to recover this GPU\n",
            address);
    else
        printf("Unable to determine the device handle for GPU%s: %s\n", address,
               NVML(nvmlErrorString)(code));
    exit((int)code);
}

static void choose(struct options *options, char *list) {
    char *rest = NULL, address[TEXT];
    memset(options->chosen, 0, sizeof options->chosen);
    for (char *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        unsigned index = SMI_GPUS;
        nvmlDevice_t device;
        if (strspn(word, "0123456789") == strlen(word))
            index = (unsigned)atoi(word);
        else if (!NVML(nvmlDeviceGetHandleByUUID)(word, &device) ||
                 !NVML(nvmlDeviceGetHandleByPciBusId_v2)(word, &device))
            NVML(nvmlDeviceGetIndex)(device, &index);
        if (index >= device_count() ||
            NVML(rackhandSimulatorPciAddress)(index, address, sizeof address)) {
            printf("No devices were found\n");
            exit(NVML_ERROR_NOT_FOUND);
        }
        options->chosen[index] = true;
    }
}

static void choose_format(struct options *options, char *list) {
    char *rest = NULL;
    for (char *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (!strcmp(word, "noheader")) options->header = false;
        if (!strcmp(word, "nounits")) options->units = false;
    }
}

static int show_version(void) {
    char driver[TEXT] = "", nvml[TEXT] = "";
    int cuda = 0;
    NVML(nvmlSystemGetDriverVersion)(driver, sizeof driver);
    NVML(nvmlSystemGetNVMLVersion)(nvml, sizeof nvml);
    NVML(nvmlSystemGetCudaDriverVersion_v2)(&cuda);
    printf(
        "NVIDIA-SMI version  : %s\nNVML version        : %s\nDRIVER version      : %s\n"
        "CUDA Version        : %d.%d\nSimulated GPU (rackhand lab)\n",
        driver, nvml, driver, cuda / 1000, cuda % 1000 / 10);
    return 0;
}

static int invalid(const char *word) {
    printf(
        "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n"
        "Not understood: %s\n",
        word);
    return NVML_ERROR_INVALID_ARGUMENT;
}

struct command {
    enum { TABLE, LIST, REPORT, QUERY_GPU, QUERY_APPS, PERSISTENCE, MIG_MODE, RESET, VERSION } kind;
    char *value;
};

// The value of `--word=value`, of `-w value` or of `--word value`; NULL where it is another word.
static char *value_of(int *at, int count, char **words, const char *brief, const char *full) {
    char *word = words[*at];
    size_t length = strlen(full);
    if (!strncmp(word, full, length) && word[length] == '=') return word + length + 1;
    if (!strncmp(word, brief, strlen(brief)) && word[strlen(brief)] == '=')
        return word + strlen(brief) + 1;
    if ((!strcmp(word, full) || !strcmp(word, brief)) && *at + 1 < count) return words[++*at];
    return NULL;
}

static bool is(const char *word, const char *brief, const char *full) {
    return !strcmp(word, brief) || !strcmp(word, full);
}

static bool read_command(struct command *command, int *at, int count, char **words) {
    static const struct {
        const char *brief, *full;
        int kind;
    } values[] = {
        {"--query-gpu", "--query-gpu", QUERY_GPU},
        {"--query-compute-apps", "--query-compute-apps", QUERY_APPS},
        {"-pm", "--persistence-mode", PERSISTENCE},
        {"-mig", "--multi-instance-gpu", MIG_MODE},
    };
    static const struct {
        const char *brief, *full;
        int kind;
    } plain[] = {
        {"-L", "--list-gpus", LIST},
        {"-q", "--query", REPORT},
        {"-r", "--gpu-reset", RESET},
        {"--version", "--version", VERSION},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (is(words[*at], plain[i].brief, plain[i].full))
            return command->kind = plain[i].kind, true;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if ((command->value = value_of(at, count, words, values[i].brief, values[i].full)))
            return command->kind = values[i].kind, true;
    return false;
}

static int run(const struct command *command, const struct options *options) {
    unsigned on = command->value && !strcmp(command->value, "1");
    switch (command->kind) {
        case LIST: return show_list(options);
        case REPORT: return show_report(options);
        case QUERY_GPU: return query_gpus(options, command->value);
        case QUERY_APPS: return query_processes(options, command->value);
        case PERSISTENCE: return set_persistence(options, on);
        case MIG_MODE: return set_mig(options, on);
        case RESET: return reset_gpus(options);
        case VERSION: return show_version();
        default: return show_table(options);
    }
}

int main(int count, char **words) {
    struct options options = {.header = true, .units = true};
    struct command command = {TABLE, NULL};
    memset(options.chosen, true, sizeof options.chosen);
    for (int i = 1; i < count; i++)
        if (is(words[i], "-h", "--help")) return fputs(usage, stdout), 0;
    connect_library();
    if (count > 1 && !strcmp(words[1], "topo")) return show_topology();
    bool mig = count > 1 && !strcmp(words[1], "mig");
    for (int i = 1; i < count; i++) {
        char *value;
        if ((value = value_of(&i, count, words, "-i", "--id")))
            choose(&options, value);
        else if ((value = value_of(&i, count, words, "--format", "--format")))
            choose_format(&options, value);
        else if ((value = value_of(&i, count, words, "-d", "--display")))
            options.sections = value;
        else if (!mig && !read_command(&command, &i, count, words))
            return invalid(words[i]);
    }
    if (device_count() == 0) {
        printf("No devices were found\n");
        return NVML_ERROR_NOT_FOUND;
    }
    return mig ? mig_command(&options, count, words) : run(&command, &options);
}
