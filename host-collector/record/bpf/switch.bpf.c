// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * Records switches of threads, as programs::switch of ../src/perf/bpf assembles it for the kernel that runs.
 * vslice loads that one; a test runs both on the same input and compares what they write (bpf/c_tests.rs).
 *
 * A switch where a wanted thread leaves is written with its stack, its user registers and how long it was on the
 * pCPU; one where a wanted thread comes, or that happens on a wanted pCPU, without.
 */
#include "vslice.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct perf_event_array plain SEC(".maps");
struct perf_event_array stacked SEC(".maps");

/* Set before the program is loaded: the tracepoint's id, whether it tells the state (since 5.18), and
 * whether control groups have numbers that mean something (cgroup v2). */
const volatile u16 switch_id SEC(".rodata") = 0;
const volatile u8 tells_state SEC(".rodata") = 0;
const volatile u8 tells_groups SEC(".rodata") = 0;

/* include/linux/sched.h */
#define TASK_REPORT 0x7f
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_IDLE 0x402
#define TASK_RTLOCK_WAIT 0x1000
#define TASK_FROZEN 0x8000
#define TASK_REPORT_IDLE 0x80
#define TASK_REPORT_MAX 0x100

/* arch/x86/include/asm/segment.h, include/uapi/linux/perf_event.h */
#define __USER32_CS 0x23
#define PERF_SAMPLE_REGS_ABI_32 1
#define PERF_SAMPLE_REGS_ABI_64 2

/* The record of sched:sched_switch, as its format file has it since 5.15, and what vslice adds to it. */
struct record {
	struct trace_entry entry;
	u64 prev_comm[2];
	int prev_pid;
	int prev_prio;
	u64 prev_state;
	u64 next_comm[2];
	int next_pid;
	int next_prio;
	/* The control group of who comes. */
	u64 group;
	/* Of who leaves, up to here written only for a wanted thread: as PERF_SAMPLE_REGS_USER. */
	u64 abi;
	u64 ax, dx, si, di;
	/* How long it was on the pCPU, in nanoseconds. */
	u64 stay;
};

#define PLAIN_BYTES __builtin_offsetof(struct record, abi)

/* As __trace_sched_switch_state of include/trace/events/sched.h, but with all bits that are set. */
static __always_inline u64 state_of(u64 *ctx, struct task_struct *prev)
{
	u64 state, reported;

	if (ctx[0])
		return TASK_REPORT_MAX;
	state = tells_state ? ctx[3] : prev->__state;
	reported = (state | (u32)prev->exit_state) & TASK_REPORT;
	if ((state & TASK_IDLE) == TASK_IDLE)
		reported = TASK_REPORT_IDLE;
	if (state & (TASK_RTLOCK_WAIT | TASK_FROZEN))
		reported = TASK_UNINTERRUPTIBLE;
	return reported;
}

/* The user registers that prev is at; a kernel thread has none, which is an ABI of 0. */
static __always_inline void put_registers(struct record *record, struct task_struct *prev)
{
	struct pt_regs *regs;

	if (!prev->mm)
		return;
	regs = bpf_task_pt_regs(bpf_get_current_task_btf());
	record->ax = regs->ax;
	record->dx = regs->dx;
	record->si = regs->si;
	record->di = regs->di;
	record->abi = regs->cs == __USER32_CS ? PERF_SAMPLE_REGS_ABI_32 : PERF_SAMPLE_REGS_ABI_64;
}

/* sched_switch(preempt, prev, next[, prev_state]) */
SEC("tp_btf/sched_switch")
int vslice_switch(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1];
	struct task_struct *next = (void *)ctx[2];
	u64 leaves = is_thread_wanted(prev->pid);
	struct record record;

	if (!leaves && !is_thread_wanted(next->pid) && !is_pcpu_wanted(bpf_get_smp_processor_id()))
		return 0;

	__builtin_memset(&record, 0, sizeof(record));
	record.entry.type = switch_id;
	record.prev_pid = prev->pid;
	copy_name(record.prev_comm, prev);
	record.next_pid = next->pid;
	copy_name(record.next_comm, next);
	record.next_prio = next->prio;
	record.prev_state = state_of(ctx, prev);
	/* The event is traced with preemption off, so RCU keeps what these lead to. */
	if (tells_groups)
		record.group = next->cgroups->dfl_cgrp->kn->id;

	if (!leaves) {
		bpf_perf_event_output(ctx, &plain, BPF_F_CURRENT_CPU, &record, PLAIN_BYTES);
		return 0;
	}
	put_registers(&record, prev);
	/* __schedule has just brought the run queue's clock up to date, and sched_info_arrive took the time of the
	 * arrival by it. */
	if (field_exists(prev->sched_info.last_arrival) && field_exists(prev->se.cfs_rq))
		record.stay = prev->se.cfs_rq->rq->clock - prev->sched_info.last_arrival;
	bpf_perf_event_output(ctx, &stacked, BPF_F_CURRENT_CPU, &record, sizeof(record));
	return 0;
}
