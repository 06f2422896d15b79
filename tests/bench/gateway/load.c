// Load for a gateway: one thread, epoll; prints one JSON line.
//   load PORT KEY CONNECTIONS SECONDS RATE GAP
// RATE 0: closed loop.  RATE > 0: requests start on a schedule and their latency counts from it, so
// a queue shows.  GAP -1: JSON answers; else streams with events GAP microseconds apart, whose
// delay is read from the T<ns> that upstream.c puts into each. Slow streams begin one after the
// other within the first second: of those that begin together, events come together, and whoever
// starts streams quickly is woken once for many.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd, busy, in_body, status, chunked, done, tail_len, head_len;
    long long began, need;
    char tail[64], head[8192];
} Conn;
typedef struct { long long *at; size_t n, cap; } Samples;

static int ep, port, n_conns, streams;
static char request[4096], buffer[65536];
static int request_len;
static long long ok, errors, events;
static Samples latency, delay;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add(Samples *s, long long value) {
    if (s->n == s->cap) s->at = realloc(s->at, (s->cap = s->cap ? s->cap * 2 : 4096) * sizeof value);
    s->at[s->n++] = value;
}

static int ascending(const void *a, const void *b) {
    long long x = *(const long long *)a, y = *(const long long *)b;
    return x < y ? -1 : x > y;
}

static double quantile_ms(Samples *s, double p) {
    return s->n ? s->at[(size_t)((s->n - 1) * p)] / 1e6 : -1;
}

static void dial(Conn *c) {
    int one = 1;
    if (c->fd >= 0) close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (void *)&to, sizeof to)) { perror("connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {EPOLLIN, {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}

static void start(Conn *c, long long at) {
    c->busy = 1;
    c->in_body = c->done = c->tail_len = c->head_len = c->chunked = 0;
    c->need = -1;
    c->began = at;
    if (send(c->fd, request, request_len, MSG_NOSIGNAL) == request_len) return;
    dial(c);
    if (send(c->fd, request, request_len, MSG_NOSIGNAL) != request_len) exit(1);
}

// Count the events in what has come, also those torn between two reads.
static void scan(Conn *c, const char *data, size_t size, long long t) {
    static char text[sizeof c->tail + sizeof buffer + 1];
    memcpy(text, c->tail, c->tail_len);
    memcpy(text + c->tail_len, data, size);
    size_t len = c->tail_len + size;
    text[len] = 0;
    char *end = text + len, *at = text, *after = text;
    while ((at = memmem(at, end - at, "\"T", 2))) {
        char *digits = at + 2, *stop = digits;
        while (*stop >= '0' && *stop <= '9') stop++;
        if (stop >= end) { after = at; break; }
        if (stop - digits > 8) { add(&delay, t - atoll(digits)); events++; }
        after = at = stop;
    }
    if (memmem(text, len, "[DONE]", 6)) c->done = 1;
    size_t keep = end - after;
    if (keep > 40) keep = 40;
    memcpy(c->tail, end - keep, keep);
    c->tail_len = keep;
}

// Returns the length of what belongs to the head, or 0 while it is not whole.
static size_t read_head(Conn *c, const char *data, size_t size) {
    int before = c->head_len;
    if (size > sizeof c->head - 1 - c->head_len) size = sizeof c->head - 1 - c->head_len;
    memcpy(c->head + c->head_len, data, size);
    c->head_len += size;
    c->head[c->head_len] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return 0;
    c->in_body = 1;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (length && length < end) c->need = atoll(length + 17);
    c->chunked = c->need < 0;
    return end + 4 - c->head - before;
}

// Whether the answer is over.
static int take(Conn *c, const char *data, size_t size, long long t) {
    if (!c->in_body) {
        size_t used = read_head(c, data, size);
        if (!used) return 0;
        data += used;
        size -= used;
    }
    if (streams && size) scan(c, data, size, t);
    if (c->need >= 0) return (c->need -= size) <= 0;
    return size >= 5 && !memcmp(data + size - 5, "0\r\n\r\n", 5);
}

static void finish(Conn *c, long long t) {
    c->busy = 0;
    if (c->status == 200 && (!streams || c->done)) {
        ok++;
        add(&latency, t - c->began);
    } else {
        errors++;
    }
}

static void prepare(const char *key, long gap) {
    char body[1024], user[64] = "";
    if (streams) snprintf(user, sizeof user, ",\"user\":\"gap=%ld\"", gap);
    int size = snprintf(body, sizeof body,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
        "{\"role\":\"user\",\"content\":\"Tell me about the quick brown fox and the lazy dog, in one or "
        "two sentences.\"}],\"max_tokens\":64,\"temperature\":0.7,\"stream\":%s%s}",
        streams ? "true" : "false", user);
    request_len = snprintf(request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\n"
        "Content-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
        key, size, body);
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    port = atoi(argv[1]);
    n_conns = atoi(argv[3]);
    int seconds = atoi(argv[4]);
    double rate = atof(argv[5]);
    long gap = atol(argv[6]);
    streams = gap >= 0;
    signal(SIGPIPE, SIG_IGN);
    prepare(argv[2], gap);
    ep = epoll_create1(0);
    Conn *conns = calloc(n_conns, sizeof(Conn));
    for (int i = 0; i < n_conns; i++) { conns[i].fd = -1; dial(&conns[i]); }
    long long began = now(), end = began + seconds * 1000000000LL, hard = end + 10000000000LL;
    long long next = began, period = rate ? 1e9 / rate : 0, late = 0;
    long long apart = gap > 0 ? 1000000000LL / n_conns : 0;
    int in_flight = 0, turn = 0, begun = rate ? n_conns : 0;
    struct epoll_event ready[256];
    for (long long t = began; (t < end || in_flight) && t < hard; t = now()) {
        while (rate && next <= t && next < end) {
            int tries = 0;
            while (tries < n_conns && conns[turn = (turn + 1) % n_conns].busy) tries++;
            if (tries == n_conns) { late++; break; }
            start(&conns[turn], next);
            in_flight++;
            next += period;
        }
        for (; begun < n_conns && began + begun * apart <= t; begun++, in_flight++)
            start(&conns[begun], now());
        long long wait = rate && next < end ? next - now() : 100000000LL;
        if (begun < n_conns) wait = began + begun * apart - now();
        struct timespec pause = {0, wait < 0 ? 0 : wait > 100000000LL ? 100000000LL : wait};
        int n = epoll_pwait2(ep, ready, 256, &pause, NULL);
        for (int i = 0; i < n; i++) {
            Conn *c = ready[i].data.ptr;
            ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
            t = now();
            if (got < 0 && errno == EAGAIN) continue;
            if (got > 0 && !c->busy) continue;
            if (got > 0 && !take(c, buffer, got, t)) continue;
            if (got > 0) finish(c, t);
            else { errors += c->busy; if (!c->busy) { dial(c); continue; } c->busy = 0; dial(c); }
            in_flight--;
            if (!rate && t < end) { start(c, now()); in_flight++; }
        }
    }
    double wall = (now() - began) / 1e9;
    qsort(latency.at, latency.n, sizeof(long long), ascending);
    qsort(delay.at, delay.n, sizeof(long long), ascending);
    printf("{\"ok\":%lld,\"errors\":%lld,\"late\":%lld,\"req_s\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"events\":%lld,\"events_s\":%.0f,\"delay_p50_ms\":%.3f,\"delay_p99_ms\":%.3f}\n",
           ok, errors + in_flight, late, ok / wall, quantile_ms(&latency, .5),
           quantile_ms(&latency, .99), events, events / wall, quantile_ms(&delay, .5),
           quantile_ms(&delay, .99));
    return 0;
}
