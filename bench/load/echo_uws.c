/* echo_uws: an echo server on uWebSockets (C++), the fastest server that
 * people compare with.
 *
 *     echo_uws --library .../libsocketify_linux_amd64.so --port 9000
 *
 * The library is the one inside the `socketify` package from PyPI, which
 * exports uWebSockets' C interface; only that interface is used here, so no
 * Python runs. It must be built on libuv, which is how that package ships
 * it. The declarations below are the few that are needed, as in its header.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *key_file_name, *cert_file_name, *passphrase;
    const char *dh_params_file_name, *ca_file_name, *ssl_ciphers;
    int ssl_prefer_low_memory_usage;
} context_options;

typedef void message_handler(void *ws, const char *data, size_t n, int opcode,
                             void *user);

typedef struct {
    int compression;
    unsigned int max_payload;
    unsigned short idle_timeout;
    unsigned int max_backpressure;
    bool close_on_backpressure, reset_timeout_on_send, send_pings;
    unsigned short max_lifetime;
    void *upgrade, *open;
    message_handler *message;
    void *drain, *ping, *pong, *close, *subscription;
} behavior;

typedef struct {
    int port;
    const char *host;
    int options;
} listen_config;

typedef void listen_handler(void *socket, listen_config config, void *user);

static int tls;
static int (*ws_send)(int ssl, void *ws, const char *data, size_t n,
                      int opcode);

static void
on_message(void *ws, const char *data, size_t n, int opcode, void *user)
{
    (void)user;
    ws_send(tls, ws, data, n, opcode);
}

static void
on_listen(void *socket, listen_config config, void *user)
{
    (void)user;
    if (!socket) {
        fprintf(stderr, "echo_uws: port %d is taken\n", config.port);
        exit(1);
    }
    printf("listening %d\n", config.port);
    fflush(stdout);
}

static void *
symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (!address) {
        fprintf(stderr, "echo_uws: %s\n", dlerror());
        exit(1);
    }
    return address;
}

int
main(int argc, char **argv)
{
    const char *path = "";
    context_options options = {0};
    listen_config config = {.port = 9000, .host = "127.0.0.1"};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0) {
            config.port = atoi(argv[i + 1]);
        }
        else if (strcmp(argv[i], "--library") == 0) {
            path = argv[i + 1];
        }
        else if (strcmp(argv[i], "--cert") == 0) {
            options.cert_file_name = argv[i + 1];
            tls = 1;
        }
        else if (strcmp(argv[i], "--key") == 0) {
            options.key_file_name = argv[i + 1];
        }
    }
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "echo_uws: %s\n", dlerror());
        return 1;
    }
    void *(*create_app)(int, context_options)
        = (void *(*)(int, context_options))symbol(library, "uws_create_app");
    void (*add_ws)(int, void *, const char *, behavior, void *)
        = (void (*)(int, void *, const char *, behavior, void *))symbol(
            library, "uws_ws");
    void (*app_listen)(int, void *, listen_config, listen_handler *, void *)
        = (void (*)(int, void *, listen_config, listen_handler *,
                    void *))symbol(library, "uws_app_listen_with_config");
    void (*app_run)(int, void *)
        = (void (*)(int, void *))symbol(library, "uws_app_run");
    ws_send = (int (*)(int, void *, const char *, size_t, int))symbol(
        library, "uws_ws_send");

    void *app = create_app(tls, options);
    behavior echo = {.max_payload = 1u << 28,
                     .idle_timeout = 120,
                     .max_backpressure = 1u << 30,
                     .send_pings = true,
                     .message = on_message};
    add_ws(tls, app, "/*", echo, NULL);
    app_listen(tls, app, config, on_listen, NULL);
    app_run(tls, app);
    return 0;
}
