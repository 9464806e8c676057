/*
 * A lock and the functions that take and release it, in the forms that QEMUs have had: their names are
 * those that are looked for, and all else is made up. FORM chooses how they are written.
 *
 * 1: the function that takes it is behind a pointer, that which releases it is called (since 2.12)
 * 2: both are called, and a condition that lies beside the lock is signalled by both (before 2.12)
 * 3: as 1, and the lock is known to other files, as a library's variables are
 * 4: as 1, and the compiler has made functions of their parts
 *
 * With INLINED what releases a mutex has no call of its own.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define KEPT __attribute__((noinline, used))

struct mutex {
    pthread_mutex_t lock;
    bool is_made;
};

typedef void take(struct mutex *mutex, const char *file, int line);

KEPT void house_mutex_lock(struct mutex *mutex, const char *file, int line)
{
    if (!mutex->is_made) {
        fprintf(stderr, "%s:%d: not made\n", file, line);
        abort();
    }
    pthread_mutex_lock(&mutex->lock);
}

#ifdef INLINED
static inline __attribute__((always_inline))
#else
KEPT
#endif
void house_mutex_unlock(struct mutex *mutex, const char *file, int line)
{
    if (!mutex->is_made) {
        fprintf(stderr, "%s:%d: not made\n", file, line);
        abort();
    }
    pthread_mutex_unlock(&mutex->lock);
}

take *house_mutex_lock_func = house_mutex_lock;
static __thread bool is_held;
static int blocked_count;
static struct mutex a_neighbour;
#if FORM == 3
struct mutex the_lock;
#else
static struct mutex the_lock;
#endif
static pthread_cond_t the_condition = PTHREAD_COND_INITIALIZER;

KEPT static bool held(void) { return is_held; }

static void check(bool holds, const char *text)
{
    if (!holds) {
        fprintf(stderr, "%s\n", text);
        abort();
    }
}

#if FORM == 2
void qemu_mutex_lock_iothread(void)
{
    if (blocked_count > 3) {
        house_mutex_lock(&the_lock, __FILE__, __LINE__);
    } else {
        check(!held(), "it is held");
        house_mutex_lock(&the_lock, __FILE__, __LINE__);
        pthread_cond_broadcast(&the_condition);
    }
    is_held = true;
}

void qemu_mutex_unlock_iothread(void)
{
    is_held = false;
    pthread_cond_signal(&the_condition);
    house_mutex_unlock(&the_lock, __FILE__, __LINE__);
}

#define LOCK() qemu_mutex_lock_iothread()
#define UNLOCK() qemu_mutex_unlock_iothread()
#else
#if FORM == 4
#define PART(name) KEPT static void name##_part
#else
#define PART(name) static inline __attribute__((always_inline)) void name##_part
#endif
PART(lock)(const char *file, int line) __asm__("bql_lock_impl.part.0");
PART(unlock)(void) __asm__("bql_unlock.part.0");

PART(lock)(const char *file, int line)
{
    take *take_it = __atomic_load_n(&house_mutex_lock_func, __ATOMIC_RELAXED);
    take_it(&the_lock, file, line);
    is_held = true;
}

PART(unlock)(void)
{
    check(blocked_count == 0, "it is needed");
    is_held = false;
    house_mutex_unlock(&the_lock, __FILE__, __LINE__);
}

void bql_lock_impl(const char *file, int line)
{
    check(!held(), "it is held");
    lock_part(file, line);
}

void bql_unlock(void)
{
    check(held(), "it is not held");
    unlock_part();
}

#define LOCK() bql_lock_impl(__FILE__, __LINE__)
#define UNLOCK() bql_unlock()
#endif

int main(int count, char **words)
{
    pthread_mutex_init(&the_lock.lock, NULL);
    the_lock.is_made = true;
    a_neighbour = the_lock;
    house_mutex_lock(&a_neighbour, words[0], count);
    LOCK();
    UNLOCK();
    house_mutex_unlock(&a_neighbour, words[0], count);
    return pthread_cond_destroy(&the_condition);
}
