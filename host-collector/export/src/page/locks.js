// Who waited for whom: a matrix of waiters and those who let go, and its rows.

function lockSection() {
  const rows = summary.lock_waits || [];
  const bigLocks = summary.big_locks || [];
  if (rows.length === 0 && bigLocks.length === 0) return null;
  return section("locks", "Who waited for whose lock", "From going to sleep on a lock until the thread that released it woke the vCPU.",
    rows.length > 0 ? lockMatrix(rows) : el("p", null, summary.evidence.level === "recorded" ? "No vCPU was seen to wait for a lock." : "Lock waits were not recorded."), lockTable(rows),
    bigLocks.length > 0 && [el("h3", null, "How QEMU's big lock is known"), el("ul", { class: "lines" }, bigLocks.map((lock) => el("li", null, `${lock.vm}${lock.address ? ` at ${hex(lock.address)}` : ""}: ${lock.evidence.replaceAll("_", " ")}. ${lock.because}`)))]);
}

function lockMatrix(rows) {
  const waiters = [...new Set(rows.map(vcpuName))];
  const releasers = [...new Set(rows.map((row) => row.released_by.name))];
  if (rows.length < 3 || releasers.length > 12) return null;
  const total = (waiter, releaser) => sum(rows.filter((row) => vcpuName(row) === waiter && row.released_by.name === releaser).map((row) => row.total_ns));
  const most = Math.max(...waiters.flatMap((waiter) => releasers.map((releaser) => total(waiter, releaser)))) || 1;
  const columns = [{ head: "waited", value: (waiter) => waiter }, ...releasers.map((releaser) => ({
    head: `for ${releaser}`, kind: "duration", value: (waiter) => total(waiter, releaser) || null, heat: (waiter) => total(waiter, releaser) / most,
    show: (waiter) => (total(waiter, releaser) > 0 ? number("duration", total(waiter, releaser)) : ""),
  }))];
  return table("Who waited, and for whom: total", columns, waiters);
}

function lockTable(rows) {
  if (rows.length === 0) return null;
  const path = (key) => (row) => `lock_waits.${rows.indexOf(row)}.${key}`;
  return table(null, [
    { head: "waited", value: vcpuName },
    { head: "for", value: (row) => row.released_by.name },
    { head: "lock", value: (row) => reasonLabel(row.reason), show: (row) => [swatch("part", reasonPart(row.reason)), reasonLabel(row.reason)] },
    { head: "to reach", optional: true, value: (row) => row.device || "" },
    { head: "times", kind: "count", value: (row) => row.count, path: path("count") },
    { head: "total", kind: "duration", value: (row) => row.total_ns, path: path("total_ns") },
    { head: "mean", kind: "duration", value: (row) => Math.floor(row.total_ns / row.count) },
    { head: "longest", kind: "duration", value: (row) => row.max_ns, path: path("max_ns") },
    { head: "held before", kind: "duration", value: (row) => (row.held_count > 0 ? row.held_ns / row.held_count : null) },
    { head: "known of", kind: "count", value: (row) => row.held_count, path: path("held_count") },
  ], rows);
}
