// A replica that costs nothing and takes no time: one thread, epoll.   upstream PORT
//
// POST with "stream":true: EVENTS events, "gap=<us>" (anywhere in the body) apart, each in a write
// of its own; the content is T<CLOCK_MONOTONIC ns>, by which load.c on this machine sees the delay
// of the way.  Any other request: one small JSON answer.  Bodies need a Content-Length.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 8192, EVENTS = 50, IN_SIZE = 65536 };

typedef struct {
    int open, live, left;  // live: index in the list of streams, -1 when none
    long long due, gap;
    size_t in_len, out_len, out_cap;
    char *out, in[IN_SIZE];
} Conn;

static Conn *conns[MAX_FD];
static int streams[MAX_FD], n_streams, ep;

static const char ANSWER[] =
    "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,"
    "\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
    "\"The quick brown fox jumps over the lazy dog, and the dog sleeps on in the warm sun.\"},"
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":24,"
    "\"completion_tokens\":20,\"total_tokens\":44}}";
static const char STREAM[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void interest(int fd, unsigned events, int op) {
    struct epoll_event e = {events, {.fd = fd}};
    epoll_ctl(ep, op, fd, &e);
}

static void end_stream(Conn *c) {
    if (c->live < 0) return;
    int moved = streams[--n_streams];
    streams[c->live] = moved;
    conns[moved]->live = c->live;
    c->live = -1;
}

static void drop(int fd) {
    Conn *c = conns[fd];
    end_stream(c);
    free(c->out);
    c->out = NULL;
    c->out_len = c->out_cap = 0;
    c->open = 0;
    close(fd);
}

static int put(int fd, const char *data, size_t size) {
    Conn *c = conns[fd];
    ssize_t wrote = c->out_len ? 0 : send(fd, data, size, MSG_NOSIGNAL);
    if (wrote < 0 && errno != EAGAIN) return -1;
    if (wrote < 0) wrote = 0;
    size_t rest = size - wrote;
    if (!rest) return 0;
    if (c->out_len + rest > c->out_cap) c->out = realloc(c->out, c->out_cap = (c->out_len + rest) * 2);
    memcpy(c->out + c->out_len, data + wrote, rest);
    c->out_len += rest;
    interest(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    return 0;
}

static int put_answer(int fd) {
    char whole[1024];
    int size = snprintf(whole, sizeof whole,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n%s", sizeof ANSWER - 1, ANSWER);
    return put(fd, whole, size);
}

static int put_chunk(int fd, const char *text) {
    char framed[1024];
    int size = snprintf(framed, sizeof framed, "%zx\r\n%s\r\n", strlen(text), text);
    return put(fd, framed, size);
}

static int step(int fd) {
    Conn *c = conns[fd];
    char text[700];
    do {
        snprintf(text, sizeof text,
                 "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\","
                 "\"created\":1700000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":"
                 "{\"content\":\"T%lld \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n", now());
        if (put_chunk(fd, text)) return -1;
        c->due += c->gap;
    } while (--c->left > 0 && c->gap == 0);
    if (c->left > 0) return 0;
    end_stream(c);
    return put_chunk(fd, "data: [DONE]\n\n") || put(fd, "0\r\n\r\n", 5) ? -1 : 0;
}

static int serve_request(int fd, const char *body) {
    Conn *c = conns[fd];
    if (!strstr(body, "\"stream\":true")) return put_answer(fd);
    const char *gap = strstr(body, "gap=");
    c->gap = gap ? atoll(gap + 4) * 1000 : 0;
    c->left = EVENTS;
    c->due = now() + c->gap;
    c->live = n_streams;
    streams[n_streams++] = fd;
    if (put(fd, STREAM, sizeof STREAM - 1)) return -1;
    return c->gap ? 0 : step(fd);
}

static int feed(int fd) {
    Conn *c = conns[fd];
    while (c->live < 0) {
        c->in[c->in_len] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) return 0;
        char *length = strcasestr(c->in, "\r\ncontent-length:");
        size_t head = end + 4 - c->in, whole = head;
        if (length && length < end) whole += atoi(length + 17);
        if (whole >= IN_SIZE) return -1;
        if (c->in_len < whole) return 0;
        char keep = c->in[whole];
        c->in[whole] = 0;
        if (serve_request(fd, c->in + head)) return -1;
        c->in[whole] = keep;
        memmove(c->in, c->in + whole, c->in_len -= whole);
    }
    return 0;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!conns[fd]) conns[fd] = calloc(1, sizeof(Conn));
        conns[fd]->open = 1;
        conns[fd]->in_len = 0;
        conns[fd]->live = -1;
        interest(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static int flush(int fd) {
    Conn *c = conns[fd];
    ssize_t wrote = send(fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (wrote < 0) return errno == EAGAIN ? 0 : -1;
    memmove(c->out, c->out + wrote, c->out_len -= wrote);
    if (!c->out_len) interest(fd, EPOLLIN, EPOLL_CTL_MOD);
    return 0;
}

static int receive(int fd) {
    Conn *c = conns[fd];
    ssize_t got = recv(fd, c->in + c->in_len, IN_SIZE - 1 - c->in_len, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return -1;
    if (got > 0) c->in_len += got;
    return got > 0 ? feed(fd) : 0;
}

static int next_wait_ms(void) {
    long long first = -1, t = now();
    for (int i = 0; i < n_streams; i++) {
        long long left = conns[streams[i]]->due - t;
        if (left < 0) left = 0;
        if (first < 0 || left < first) first = left;
    }
    return first < 0 ? -1 : (int)(first / 1000000);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 4096)) { perror("bind"); return 1; }
    ep = epoll_create1(0);
    interest(listener, EPOLLIN, EPOLL_CTL_ADD);
    for (struct epoll_event ready[256];;) {
        int n = epoll_wait(ep, ready, 256, next_wait_ms());
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) { accept_all(listener); continue; }
            if (!conns[fd]->open) continue;
            if ((ready[i].events & EPOLLOUT) && conns[fd]->out_len && flush(fd)) { drop(fd); continue; }
            if ((ready[i].events & ~EPOLLOUT) && receive(fd)) drop(fd);
        }
        long long t = now();
        for (int i = 0; i < n_streams; i++) {
            int fd = streams[i];
            if (conns[fd]->due > t) continue;
            if (step(fd)) drop(fd);
            else if (conns[fd]->live < 0 && feed(fd)) drop(fd);
            if (i < n_streams && streams[i] != fd) i--;
        }
    }
}
