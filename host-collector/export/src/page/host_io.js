// The host's view of the disks, threads of the VMM, and exits.

function hostIoSection() {
  const disks = (summary.host_io && summary.host_io.disks) || [];
  if (disks.length === 0) return null;
  const lines = disks.flatMap((disk, at) => disk.operations.map((row, place) => ({ disk, row, path: `host_io.disks.${at}.operations.${place}.` })));
  const nameOf = (disk) => `${disk.vm} ${disk.disk || "no known disk"}`;
  const notes = disks.flatMap((disk) => [disk.reason && `${nameOf(disk)}: no I/O was recorded, because ${disk.reason}`, disk.interrupts_missing && `${nameOf(disk)}: no interrupt tells which vCPU took its I/O, because ${disk.interrupts_missing}`])
    .concat(lines.flatMap(({ disk, row }) => [byReason(row.no_end_by, UNENDED) && `${nameOf(disk)} ${row.operation}: no end is known of ${byReason(row.no_end_by, UNENDED)}`, byReason(row.unknown_by, UNKNOWN_INACTIVITY) && `${nameOf(disk)} ${row.operation}: inactivity is unknown of ${byReason(row.unknown_by, UNKNOWN_INACTIVITY)}`])).filter(Boolean);
  return section("disks", "The disks as the host saw them", "I/O from its hand-over to the host's block layer until it was done. Inactivity is the time after that until a vCPU that could take it was on a pCPU, as a range where the vCPU is not known for certain.",
    table(null, [
      { head: "disk", value: (line) => nameOf(line.disk), class: "text" },
      { head: "on", value: (line) => line.disk.device || "" },
      { head: "", value: (line) => line.row.operation },
      { head: "I/Os", kind: "count", value: (line) => line.row.count, path: (line) => `${line.path}count` },
      { head: "bytes", kind: "bytes", value: (line) => line.row.bytes, path: (line) => `${line.path}bytes` },
      { head: "ended", kind: "count", value: (line) => line.row.ended, path: (line) => `${line.path}ended` },
      { head: "p50", kind: "duration", value: (line) => line.row.p50_ns, path: (line) => `${line.path}p50_ns` },
      { head: "p99", kind: "duration", value: (line) => line.row.p99_ns, path: (line) => `${line.path}p99_ns` },
      { head: "longest", kind: "duration", value: (line) => line.row.max_ns, path: (line) => `${line.path}max_ns` },
      { head: "known of", kind: "count", value: (line) => line.row.known, path: (line) => `${line.path}known` },
      { head: "inactivity", kind: "plain", value: (line) => (line.row.known > 0 ? line.row.most_ns : null), show: (line) => (line.row.known > 0 ? range(line.row.least_ns, line.row.most_ns) : "unknown") },
      { head: "its p99", kind: "plain", value: (line) => line.row.most_p99_ns, show: (line) => (line.row.most_p99_ns === null ? "unknown" : range(line.row.least_p99_ns, line.row.most_p99_ns)) },
    ], lines), notes.length > 0 && el("ul", { class: "lines muted small" }, notes.map((note) => el("li", null, note))), hostWorst());
}

function hostWorst() {
  const rows = summary.host_io.worst || [];
  if (rows.length === 0) return null;
  const path = (key) => (row) => `host_io.worst.${rows.indexOf(row)}.${key}`;
  return [el("h3", null, "I/Os that waited longest for a vCPU"), table(null, [
    { head: "at", kind: "duration", value: (row) => row.submitted_ns },
    { head: "VM", value: (row) => (row.vcpu === null ? row.vm : vcpuName(row)) },
    { head: "disk", value: (row) => row.disk || "no known disk", class: "text" },
    { head: "I/O", value: (row) => row.operation },
    { head: "bytes", kind: "bytes", value: (row) => row.bytes, path: path("bytes") },
    { head: "on the host", kind: "duration", value: (row) => row.latency_ns, path: path("latency_ns") },
    { head: "inactivity", kind: "plain", value: (row) => row.most_ns, show: (row) => range(row.least_ns, row.most_ns) },
    { head: "who had its pCPU", value: (row) => row.who || "" },
  ], rows)];
}

function serviceSection() {
  const rows = summary.service || [];
  if (rows.length === 0) return null;
  const path = (key) => (row) => `service.${rows.indexOf(row)}.${key}`;
  return section("service", "Threads of the VMM beside the vCPUs", "Who was woken by vCPUs, by a doorbell or a lock that was let go, and who woke them.", table(null, [
    { head: "thread", value: (row) => `${row.vm} ${row.role}` },
    { head: "tid", kind: "plain", value: (row) => row.tid, path: path("tid") },
    { head: "stays", kind: "count", value: (row) => row.arrivals, path: path("arrivals") },
    { head: "woken by vCPUs", kind: "count", value: (row) => row.woken_by_vcpus, path: path("woken_by_vcpus") },
    { head: "a request", kind: "ratio", optional: true, value: (row) => (summary.requests.count > 0 ? row.woken_by_vcpus / summary.requests.count : null) },
    { head: "woke vCPUs", kind: "count", value: (row) => row.woke_vcpus, path: path("woke_vcpus") },
  ], rows));
}

function exitSection() {
  const rows = summary.exits || [];
  if (rows.length === 0) return null;
  const path = (key) => (row) => `exits.${rows.indexOf(row)}.${key}`;
  return section("exits", "Exits", "Why vCPUs left their guest, and how long it took to enter it again.", table(null, [
    { head: "vCPU", value: vcpuName }, { head: "reason", value: (row) => row.reason }, { head: "to", value: (row) => (row.kind === "hardware" ? "KVM" : "the VMM") },
    { head: "times", kind: "count", value: (row) => row.count, path: path("count") },
    { head: "total", kind: "duration", value: (row) => row.total_ns, path: path("total_ns") },
    { head: "longest", kind: "duration", value: (row) => row.max_ns, path: path("max_ns") },
    { head: "in KVM", kind: "duration", value: (row) => row.kvm_ns, path: path("kvm_ns") },
    { head: "in the VMM", kind: "duration", value: (row) => row.vmm_ns, path: path("vmm_ns") },
    { head: "off the pCPU", kind: "duration", value: (row) => row.off_ns, path: path("off_ns") },
  ], rows));
}
