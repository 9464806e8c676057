// What the summary's names are called on a page, in the words of the text page.

const REASONS = {
  bql: ["BQL", "bql_wait"], bql_found_by_behaviour: ["BQL, by behaviour", "bql_wait"], bql_inferred: ["BQL, inferred", "bql_wait"],
  qemu_lock: ["QEMU lock", "lock_wait"], halt_user: ["halt in QEMU", "halt"], vmm_lock: ["VMM lock", "lock_wait"], halt: ["halt", "halt"],
  host_fault: ["host page fault", "host_fault"], memory_limit: ["memory limit", "host_fault"], kvm_kernel_lock: ["KVM kernel lock", "lock_wait"],
  io_submit: ["own disk I/O", "io_submit"], throttle: ["throttled", "throttled"], timeslice: ["timeslice over", "preempt_wait"],
  preempt_wakeup: ["preempted", "preempt_wait"], preempt_rt_or_stop: ["real-time task", "preempt_wait"], yield: ["yield", "preempt_wait"],
  poll_sleep: ["poll or timer", "other_sleep"], signal_work: ["signal work", "other_sleep"], stopped: ["stopped", "other_sleep"],
  unknown: ["unknown", "unknown"], wakeup_delay: ["wakeup delay", "wakeup_delay"], not_recorded: ["not recorded", "unknown"],
  runnable: ["running or waiting for a pCPU", "on_pcpu"],
};

function reasonLabel(name) {
  return REASONS[name] ? REASONS[name][0] : name.replaceAll("_", " ");
}

function reasonPart(name) {
  return REASONS[name] ? REASONS[name][1] : "unknown";
}

const KINDS = {
  idle: "nobody", other_vm_vcpu: "other VM", other_vm_thread: "other VM", own_vm_vcpu: "own VM", own_vm_thread: "own VM", other_vm: "other VM",
  own_vm: "own VM", collector: "this vslice", other_vslice: "another vslice", kernel_thread: "kernel thread", host_task: "host task",
  control_group: "control group", unknown: "unknown group",
};

function kindLabel(name) {
  return KINDS[name] || name.replaceAll("_", " ");
}

const CLASSES = [["p99", "above p99"], ["p999", "above p99.9"], ["all", "all"]];

const UNATTRIBUTABLE = {
  lost: "overlap lost records", moved: "their thread moved between vCPUs", steered: "which vCPU they waited for is unknown",
  not_recorded: "lie partly outside the recorded time", ambiguous: "cannot be told from others like them",
  forgotten: "more was under way than vslice keeps", no_clock: "stamped on a vCPU whose clock is unknown",
  clock_stepped: "at or across a step of a clock", clock_ambiguous: "stamped at times that a clock may have shown twice",
};

const UNPHASED = {
  not_recorded: "their I/O was not recorded", lost: "records were lost", page_cache: "served by the host's page cache", no_io: "no host I/O was seen for them",
  ambiguous: "their I/O may be that of another request", unmapped: "their place on the host's disk is not known",
  unknown_file: "the VMM flushes for them, and of which file is not known", no_wait: "the VMM flushes for them, and no thread was seen to wait for that",
  unfinished: "their I/O's completion was not seen", contradiction: "their I/O lies outside them by more than the clock error",
  forgotten: "more was in flight than vslice keeps",
};

const UNENDED = { lost: "records were lost", ambiguous: "another I/O for the same sectors may have been in flight", unfinished: "they were not seen to end", no_sectors: "they have no sectors, by which an end is known" };

const UNKNOWN_INACTIVITY = {
  no_end: "they have no known end", vcpu_unknown: "what a vCPU did is unknown", never_quiet: "the VMM's threads never all slept after them",
  not_traced: "it was not seen when the host's kernel handed them to the VMM", nobody_told: "no vCPU was woken for them alone",
};

/** "3 because ..., 2 because ...", of counts by reason. */
function byReason(counts, labels) {
  return Object.entries(counts || {}).filter(([, n]) => n > 0).map(([name, n]) => `${count(n)}: ${labels[name] || name.replaceAll("_", " ")}`).join("; ");
}

function vcpuName(row) {
  return `${row.vm} vCPU${row.vcpu}`;
}

/** "3 threads", "at least 3 threads of 2 processes" */
function crowd(row) {
  if (!row.threads || row.threads.count <= 1 && row.threads.is_exact) return "";
  const least = row.threads.is_exact ? "" : "at least ";
  const processes = row.processes && row.processes.count > 1 ? ` of ${row.processes.is_exact ? "" : "at least "}${count(row.processes.count)} processes` : "";
  return `${least}${count(row.threads.count)} threads${processes}`;
}

function hex(address) {
  return address === null || address === undefined ? "" : `0x${address.toString(16)}`;
}
