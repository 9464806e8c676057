// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * Records wakings of threads, as programs::waking of ../src/perf/bpf assembles it for the kernel that runs.
 * vslice loads that one; a test runs both on the same input and compares what they write (bpf/c_tests.rs).
 *
 * Written are wakings of wanted threads, and those of strangers who may take a wanted pCPU from a wanted thread:
 * they last ran there, and the waker is elsewhere or is itself wanted.
 */
#include "vslice.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct perf_event_array plain SEC(".maps");

/* The tracepoint's id, set before the program is loaded. */
const volatile u16 waking_id SEC(".rodata") = 0;

/* The record of sched:sched_waking, as its format file has it since 5.15. */
struct record {
	struct trace_entry entry;
	u64 comm[2];
	int pid;
	int prio;
	u32 target_cpu;
	u32 padding;
};

/* The pCPU that a task last ran on. */
static __always_inline u32 pcpu_of(struct task_struct *task)
{
	if (field_exists(task->thread_info.cpu))
		return task->thread_info.cpu;
	return ((struct task_struct___old *)task)->cpu;
}

/* sched_waking(task) */
SEC("tp_btf/sched_waking")
int vslice_waking(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u32 pcpu = pcpu_of(task);
	struct record record;

	if (!is_thread_wanted(task->pid)) {
		if (!is_pcpu_wanted(pcpu))
			return 0;
		if (bpf_get_smp_processor_id() == pcpu && !is_thread_wanted(bpf_get_current_pid_tgid()))
			return 0;
	}

	__builtin_memset(&record, 0, sizeof(record));
	record.entry.type = waking_id;
	record.entry.pid = bpf_get_current_pid_tgid();
	record.pid = task->pid;
	copy_name(record.comm, task);
	record.target_cpu = pcpu;
	bpf_perf_event_output(ctx, &plain, BPF_F_CURRENT_CPU, &record, sizeof(record));
	return 0;
}
