// What the figures rest on: clock, losses, cost, environment, and the text.

function clockSection() {
  const clock = summary.clock;
  const facts = [];
  if (summary.evidence.level !== "recorded") facts.push(["Evidence", `${summary.evidence.level}, because ${summary.evidence.reason}`]);
  for (const missing of summary.evidence.missing || []) facts.push(["Not here", `${missing.name}: ${missing.costs}`]);
  if (clock && clock.bound_ns !== null) {
    facts.push(["Clock", [clock.method === "tsc_offset" ? "KVM's TSC offset" : "Round trips with the guest", ": request times are accurate to within ", number("duration", clock.bound_ns, "clock.bound_ns"), ". ", clockMaps(clock.vcpus), clockCheck(clock.check)]]);
  } else {
    facts.push(["Clock", "No request was to be placed on the host's clock."]);
  }
  if (summary.evidence.level === "recorded") {
    facts.push(["Losses", losses()]);
  }
  if (summary.requests.dropped > 0) facts.push(["Dropped", [number("count", summary.requests.dropped, "requests.dropped"), " requests were made and not recorded."]]);
  facts.push(["Own cost", [number("duration", summary.cost.collector_cpu_ns, "cost.collector_cpu_ns"), " of CPU time for the collector, which waited ", number("duration", summary.cost.collector_run_delay_ns, "cost.collector_run_delay_ns"), " for a pCPU; ", number("count", summary.cost.events, "cost.events"), " host events, ", number("bytes", summary.cost.bytes, "cost.bytes"), " written."]]);
  if (summary.sampled && summary.sampled.own_share !== null) facts.push(["Sampling", [number("percent", summary.sampled.own_share, "sampled.own_share"), " of one pCPU."]]);
  for (const disk of summary.io.disks || []) {
    if (disk.reason) facts.push([`I/O of ${disk.vm}`, `unknown, because ${disk.reason}`]);
    else if (disk.unmapped_reason) facts.push([`I/O of ${disk.vm}`, `known only of requests that were alone in flight, because ${disk.unmapped_reason}`]);
  }
  if (summary.control_groups && summary.control_groups.reason) facts.push(["Control groups", `${summary.control_groups.source === "nothing" ? "unknown" : "partly unknown"}, because ${summary.control_groups.reason}`]);
  for (const guest of (summary.observed && summary.observed.guests) || []) facts.push([`Observed in ${guest.vm}`, observedGuest(guest)]);
  return section("honest", "How far this can be trusted", null,
    el("div", { class: "honest" }, el("dl", null, facts.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]))), clockTable(), underWay());
}

/** What the maps of the guests' clocks rest on. */
function clockMaps(rows) {
  const of = (number, thing) => `${count(number)} ${thing}${number === 1 ? "" : "s"}`;
  const stays = sum(rows.map((row) => row.stays));
  return rows.length === 0 ? "" : `${of(rows.length, "clock map")} from ${of(sum(rows.map((row) => row.exchanges)), "round trip")}${stays > 0 ? ` and ${of(stays, "hog timeslice")}` : ""}. `;
}

/** What the host's own times of the requests' I/O say of the clock. */
function clockCheck(check) {
  const unseen = check.unseen > 0 ? ` Of ${count(check.unseen)} more none was seen, though there must have been.` : "";
  if (check.requests === 0) return `This was not checked: no host I/O was seen of requests that must have had it.${unseen}`;
  const held = ["The host's I/O of ", number("count", check.requests, "clock.check.requests"), " requests was held against them, and "];
  if (check.violations === 0) return [held, "all of it lies within.", unseen];
  return [held, el("strong", null, `that of ${count(check.violations)} lies outside`), `, by ${duration(check.worst_ns)} at worst.`, unseen];
}

/** Losses of the host's events. Completions that the host's kernel hid are losses as well. */
function losses() {
  const lost = summary.lost;
  if (summary.measured_ns === 0) return "Nothing was measured.";
  const isNone = lost.records === 0 && lost.intervals === 0 && lost.total_ns === 0;
  const unfinished = summary.io.classes.all.unphased_by.unfinished;
  const hidden = (summary.io.hidden || []).map((row) => `${row.name} on pCPU${row.pcpu} (${count(row.count)} times)`);
  const more = [unfinished > 0 ? ` The I/O completion of ${count(unfinished)} requests was not seen.` : "", hidden.length > 0 ? ` The host's kernel hides from tracing: ${hidden.join(", ")}.` : "",
    (page.lost || []).length > 0 ? " Their intervals are shaded in latency over time." : "", page.lost_beyond > 0 ? ` ${count(page.lost_beyond)} further intervals are not.` : ""];
  if (!isNone) return [number("count", lost.records, "lost.records"), " scheduler events in ", number("count", lost.intervals, "lost.intervals"), " intervals, ", number("duration", lost.total_ns, "lost.total_ns"), ` of ${duration(summary.measured_ns)} in all. Requests that overlap them are not attributed.`, more];
  if (summary.status.state === "partial") return ["None was reported before the recording ended.", more];
  return [unfinished > 0 || hidden.length > 0 ? "No scheduler event that was told." : "None: every scheduler event was recorded.", more];
}

/** By how much the kernel's stamps lie within the reader's own. */
function stamps(check) {
  if (check.matched === 0) return "";
  const at = (latency) => `${duration(latency.p50)} (p99 ${duration(latency.p99)})`;
  return `: queued ${at(check.before_ns)} after the reader's submission, completed ${at(check.after_ns)} before its completion`;
}

function observedGuest(guest) {
  const said = [guest.unobserved || `${count(guest.count)} requests recorded`];
  if (guest.lost_events > 0) said.push(`${count(guest.lost_events)} events of its kernel were lost in ${count(guest.lost_intervals)} intervals`);
  if (guest.faster > 0) said.push(`${count(guest.faster)} faster than ${count(guest.slower_than_us)} \u00b5s were not sent`);
  if (guest.beyond > 0) said.push(`${count(guest.beyond)} are in no table, as it has too many disks`);
  if (guest.end && guest.end.passthrough > 0) said.push(`${count(guest.end.passthrough)} passthrough commands, which are no block I/O`);
  if (guest.cost) said.push(`${duration(guest.cost.cpu_ns)} of CPU time for its agent${guest.cost.cpu_ns_per_request !== null ? `, ${duration(guest.cost.cpu_ns_per_request)} a request` : ""}, ${count(guest.cost.events)} events; reading its clock takes ${duration(guest.cost.clock_read_ns)}; what its kernel took is not in it`);
  for (const disk of guest.devices || []) said.push(`${disk.name} is ${disk.host_disk ? `on the host's ${disk.host_disk}` : `on an unknown disk of the host, because ${disk.host_disk_unknown}`}${disk.io_scheduler ? `, I/O scheduler ${disk.io_scheduler}` : ""}${disk.hardware_queues ? `, ${count(disk.hardware_queues)} hardware queues` : ""}`);
  if (guest.reader) said.push(guest.reader.unchecked ? `its requests could not be held against the reader's, because ${guest.reader.unchecked}` : `${count(guest.reader.matched)} of the reader's requests were found among them, ${count(guest.reader.violations)} outside${guest.reader.violations > 0 ? ` by ${duration(guest.reader.worst_ns)} at worst` : ""}${stamps(guest.reader)}`);
  return el("ul", { class: "lines" }, said.map((line) => el("li", null, line)));
}

/** Requests that were still under way when the run ended: a stall is seen here and nowhere else. */
function underWay() {
  const rows = ((summary.observed && summary.observed.guests) || []).flatMap((guest, at) => ((guest.end && guest.end.under_way) || []).map((row, place) => ({ guest, row, path: `observed.guests.${at}.end.under_way.${place}.` })));
  if (rows.length === 0) return null;
  return [el("h3", null, "Under way when observing ended"), table(null, [
    { head: "guest", value: (line) => line.guest.vm }, { head: "disk", value: (line) => line.row.device }, { head: "", value: (line) => operationName(line.row) },
    { head: "requests", kind: "count", value: (line) => line.row.count, path: (line) => `${line.path}count` },
    { head: "oldest", kind: "duration", value: (line) => line.row.age_ns, path: (line) => `${line.path}age_ns` },
    { head: "asked for by", value: (line) => line.row.process }, { head: "state", value: (line) => line.row.state.replaceAll("_", " ") },
    { head: "stalled", value: (line) => (line.row.is_stalled ? "yes" : "no") },
  ], rows)];
}

function clockTable() {
  const rows = (summary.clock && summary.clock.vcpus) || [];
  if (rows.length === 0) return null;
  const path = (key) => (row) => `clock.vcpus.${rows.indexOf(row)}.${key}`;
  const check = (key) => (row) => (row[key].violations > 0 ? `${count(row[key].violations)} of ${count(row[key].readings ?? row[key].absences)} contradict, by ${duration(row[key].worst_ns)} at worst` : (row[key].readings ?? row[key].absences) > 0 ? `${count(row[key].readings ?? row[key].absences)} agree` : "");
  return el("details", null, el("summary", null, `The clock of each vCPU`), table(null, [
    { head: "vCPU", value: vcpuName },
    { head: "accurate to", kind: "duration", value: (row) => row.bound_ns, path: path("bound_ns") },
    { head: "round trips", kind: "count", value: (row) => row.exchanges, path: path("exchanges") },
    { head: "hog stays", kind: "count", value: (row) => row.stays, path: path("stays") },
    { head: "requests", kind: "count", value: (row) => row.requests, path: path("requests") },
    { head: "observed", kind: "count", value: (row) => row.observed, path: path("observed") },
    { head: "steps", kind: "count", value: (row) => row.cut_count, path: path("cut_count") },
    { head: "which", optional: true, value: (row) => row.cuts.map((cut) => `${duration(cut.step_ns)} between ${seconds(cut.after_ns)} and ${seconds(cut.before_ns)}`).join("; "), class: "text" },
    { head: "KVM's offset", optional: true, value: check("kvm_check") }, { head: "PTP", optional: true, value: check("ptp_check") }, { head: "hog", optional: true, value: check("hog_check") },
  ], rows), (summary.clock.apart || []).map((row) => el("p", null, `vCPU${row.vcpu} and vCPU${row.other_vcpu} of ${row.vm} have clocks that are at least ${duration(row.apart_ns)} apart.`)));
}

function environmentSection() {
  const lines = summary.environment.lines || [];
  return section("environment", "Environment", null,
    el("ul", { class: "lines" }, el("li", null, `${summary.accelerator.name}: ${summary.accelerator.reason}`), lines.map((line) => el("li", null, line))),
    lazyText("In full", () => JSON.stringify(summary.environment.details, null, 2)));
}

function textSection() {
  return section("text", "The same as text", null, lazyText("vslice report --full", () => page.full_text));
}
