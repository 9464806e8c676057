/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * What the programs of this folder share: the few types of the kernel that they read, whose offsets are taken
 * from the running kernel when a program is loaded (CO-RE), and who is wanted.
 *
 * It stands alone: it needs neither vmlinux.h nor libbpf's headers.
 */
#ifndef VSLICE_BPF_H
#define VSLICE_BPF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
/* As bpf_core_field_exists of libbpf: BPF_FIELD_EXISTS is 2. */
#define field_exists(field) __builtin_preserve_field_info(field, 2)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mm_struct;

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct rq {
	u64 clock;
};

struct cfs_rq {
	struct rq *rq;
};

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct sched_info {
	u64 last_arrival;
};

struct thread_info {
	u32 cpu;
};

struct task_struct {
	struct thread_info thread_info;
	u32 __state;
	int prio;
	struct sched_entity se;
	struct sched_info sched_info;
	struct mm_struct *mm;
	int exit_state;
	int pid;
	char comm[16];
	struct css_set *cgroups;
};

/* The pCPU of a task before 5.16. */
struct task_struct___old {
	u32 cpu;
};

struct pt_regs {
	u64 ax;
	u64 dx;
	u64 si;
	u64 di;
	u16 cs;
};

#pragma clang attribute pop

/* Helpers, by their numbers in include/uapi/linux/bpf.h. */
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_perf_event_output)(void *ctx, void *map, u64 flags, void *data, u64 size) = (void *)25;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static struct pt_regs *(*const bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

#define BPF_F_CURRENT_CPU 0xffffffffULL

/* For each pCPU an event of perf, into whose ring records are written. */
struct perf_event_array {
	int (*type)[4]; /* BPF_MAP_TYPE_PERF_EVENT_ARRAY */
	int (*key_size)[4];
	int (*value_size)[4];
};

/* PID_MAX_LIMIT, and CPUS_MAX of agent/perf/src/online.rs. */
#define TIDS_COUNT (4U << 20)
#define PCPUS_COUNT 8192U

/* Who is wanted: a bit for each thread number that there can be, then one for each pCPU. */
u8 wanted[(TIDS_COUNT + PCPUS_COUNT) / 8] SEC(".bss");

static __always_inline u64 is_wanted(u64 first, u64 count, u64 number)
{
	/* The verifier wants to see that no byte is beyond the row; no number of the kernel's is. */
	u64 byte = (number >> 3) & (count / 8 - 1);

	return (wanted[first / 8 + byte] >> (number & 7)) & 1;
}

static __always_inline u64 is_thread_wanted(u32 tid)
{
	return is_wanted(0, TIDS_COUNT, tid);
}

static __always_inline u64 is_pcpu_wanted(u32 pcpu)
{
	return is_wanted(TIDS_COUNT, PCPUS_COUNT, pcpu);
}

/* What every tracepoint's record begins with. */
struct trace_entry {
	u16 type;
	u8 flags;
	u8 preempt_count;
	int pid;
};

static __always_inline void copy_name(u64 *to, struct task_struct *task)
{
	const u64 *from = (const u64 *)task->comm;

	to[0] = from[0];
	to[1] = from[1];
}

#endif
