//! Seconds of a recording that goes on as metrics: counters that only grow, in the text exposition format of Prometheus
//! (version 0.0.4).
//!
//! What each metric is called, and what it is, is in [`METRICS`]; docs/top.md lists them, and a test holds the two
//! together. A VM, a vCPU or a group that is gone stays at what it had come to.

use std::collections::BTreeMap;
use std::fmt::Write;
use vslice_report::live::second::{LatencySecond, Second, VcpuSecond, VmSecond, unknown_name};
use vslice_report::live::{LATENCY_BOUNDS_NS, LossKind};

/// Groups of antagonists that each VM's metrics tell apart; the time of more is added to `others`.
pub const GROUPS_MAX: usize = 64;

/// What kind of metric one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// A sum that only grows, of seconds.
    Seconds,
    /// A number that only grows.
    Count,
    /// The latest value, in seconds.
    Gauge,
    /// Latencies in seconds, by buckets.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub metric_type: MetricType,
    /// What it is, in one line.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

const fn metric(
    name: &'static str,
    metric_type: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, metric_type, help, labels }
}

const VCPU: &[&str] = &["vm", "vcpu"];

/// All metrics, in the order in which they are written.
pub const METRICS: [Metric; 23] = [
    metric(
        "vslice_vcpu_running_seconds_total",
        MetricType::Seconds,
        VCPU,
        "Time that the vCPU's thread was on a pCPU.",
    ),
    metric(
        "vslice_vcpu_ready_seconds_total",
        MetricType::Seconds,
        VCPU,
        "CPU ready time: the vCPU's thread was runnable and had no pCPU.",
    ),
    metric(
        "vslice_vcpu_waiting_seconds_total",
        MetricType::Seconds,
        &["vm", "vcpu", "reason"],
        "CPU ready time by why the thread had lost its pCPU, or that it had been woken.",
    ),
    metric(
        "vslice_vcpu_asleep_seconds_total",
        MetricType::Seconds,
        &["vm", "vcpu", "reason"],
        "Time that the vCPU's thread slept, by what for.",
    ),
    metric(
        "vslice_vcpu_throttled_seconds_total",
        MetricType::Seconds,
        VCPU,
        "Time that the vCPU's thread was kept off as a CPU quota was used up.",
    ),
    metric(
        "vslice_vcpu_unknown_seconds_total",
        MetricType::Seconds,
        &["vm", "vcpu", "cause"],
        "Time of which nothing is known, by why.",
    ),
    metric(
        "vslice_vcpu_halt_poll_seconds_total",
        MetricType::Seconds,
        VCPU,
        "Time on a pCPU in which KVM polled for the halted vCPU; only with --exits.",
    ),
    metric(
        "vslice_vcpu_steal_seconds_total",
        MetricType::Seconds,
        VCPU,
        "Run delay of the vCPU's thread by the kernel's own count, which KVM adds to the guest's steal time.",
    ),
    metric(
        "vslice_vcpu_worst_wait_seconds",
        MetricType::Gauge,
        VCPU,
        "The longest wait for a pCPU that ended in the latest second or goes on; 0 if there was none.",
    ),
    metric(
        "vslice_vcpu_lock_waits_total",
        MetricType::Count,
        VCPU,
        "Sleeps on locks of the VMM that have ended.",
    ),
    metric(
        "vslice_vcpu_lock_wait_seconds_total",
        MetricType::Seconds,
        VCPU,
        "How long these were.",
    ),
    metric(
        "vslice_vm_antagonist_seconds_total",
        MetricType::Seconds,
        &["vm", "kind", "group"],
        "Time that a group ran while vCPUs of the VM waited for a pCPU.",
    ),
    metric(
        "vslice_vm_halt_poll_seconds_total",
        MetricType::Seconds,
        &["vm"],
        "Time in which KVM polled for the VM's halted vCPUs, by KVM's own count.",
    ),
    metric(
        "vslice_vm_host_io_latency_seconds",
        MetricType::Histogram,
        &["vm", "device", "operation"],
        "The host's I/O for the VM's disks, from handed to the host to done.",
    ),
    metric(
        "vslice_vm_host_io_without_end_total",
        MetricType::Count,
        &["vm", "device", "operation"],
        "The host's I/O for the VM's disks of which no end is known.",
    ),
    metric(
        "vslice_vm_observed_latency_seconds",
        MetricType::Histogram,
        &["vm", "operation"],
        "Block requests of the guest, from queued to completed by its clock; only with --observe.",
    ),
    metric(
        "vslice_observed_seconds_total",
        MetricType::Seconds,
        &[],
        "For how long vslice has looked on: what each vCPU's times add up to.",
    ),
    metric(
        "vslice_events_total",
        MetricType::Count,
        &[],
        "Events of the host's kernel that were taken.",
    ),
    metric(
        "vslice_lost_events_total",
        MetricType::Count,
        &["kind"],
        "Events that are missing (lost: by the kernel, left_out: by vslice) or came late.",
    ),
    metric(
        "vslice_dropped_seconds_total",
        MetricType::Count,
        &[],
        "Seconds that are in none of these, as they could not be handed on in time.",
    ),
    metric(
        "vslice_collector_cpu_seconds_total",
        MetricType::Seconds,
        &[],
        "CPU time of this vslice.",
    ),
    metric(
        "vslice_host_stolen_seconds_total",
        MetricType::Seconds,
        &[],
        "What a hypervisor below this host kept of its pCPUs' time.",
    ),
    metric(
        "vslice_last_second_timestamp_seconds",
        MetricType::Gauge,
        &[],
        "When the latest second was told, since 1970-01-01 UTC.",
    ),
];

/// Names and values of labels, as they are written.
type Labels = String;

/// What latencies have come to.
#[derive(Debug, Clone, Default)]
struct Histogram {
    within: [u64; LATENCY_BOUNDS_NS.len()],
    count: u64,
    total_ns: u64,
}

/// All metrics as they are now.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// In nanoseconds where they are seconds.
    values: BTreeMap<(&'static str, Labels), u64>,
    histograms: BTreeMap<(&'static str, Labels), Histogram>,
    groups_of: BTreeMap<String, usize>,
}

impl Metrics {
    /// Takes the next second.
    pub fn add(&mut self, second: &Second) {
        for vm in &second.vms {
            for vcpu in &vm.vcpus {
                self.add_vcpu(&vm.name, vcpu);
            }
            self.add_antagonists(vm);
            if let Some(ns) = vm.halt_poll_ns {
                self.grow("vslice_vm_halt_poll_seconds_total", &[("vm", &vm.name)], ns);
            }
            self.add_io(vm);
        }
        self.grow("vslice_observed_seconds_total", &[], second.length_ns);
        self.grow("vslice_events_total", &[], second.cost.events);
        for (kind, count) in second.losses.kinds() {
            let kind = match kind {
                LossKind::Lost => "lost",
                LossKind::LeftOut => "left_out",
                LossKind::Late => "late",
            };
            self.grow("vslice_lost_events_total", &[("kind", kind)], count);
        }
        self.grow("vslice_dropped_seconds_total", &[], second.losses.dropped_seconds);
        for (name, ns) in [
            ("vslice_collector_cpu_seconds_total", second.cost.cpu_ns),
            ("vslice_host_stolen_seconds_total", second.stolen_ns),
        ] {
            ns.into_iter().for_each(|ns| self.grow(name, &[], ns));
        }
        if let Some(ns) = second.realtime_ns {
            self.set("vslice_last_second_timestamp_seconds", &[], ns);
        }
    }

    fn add_vcpu(&mut self, vm: &str, second: &VcpuSecond) {
        let vcpu = second.vcpu.0.to_string();
        let labels = [("vm", vm), ("vcpu", &vcpu)];
        self.grow("vslice_vcpu_running_seconds_total", &labels, second.running_ns);
        self.grow("vslice_vcpu_ready_seconds_total", &labels, second.waiting_ns);
        self.grow("vslice_vcpu_throttled_seconds_total", &labels, second.throttled_ns);
        self.grow("vslice_vcpu_lock_waits_total", &labels, second.lock_waits.count);
        self.grow("vslice_vcpu_lock_wait_seconds_total", &labels, second.lock_waits.total_ns);
        if let Some(modes) = second.modes {
            self.grow("vslice_vcpu_halt_poll_seconds_total", &labels, modes.halt_poll_ns);
        }
        if let Some(ns) = second.steal_ns {
            self.grow("vslice_vcpu_steal_seconds_total", &labels, ns);
        }
        let worst_ns = second.worst_wait.as_ref().map_or(0, |wait| wait.length_ns);
        self.set("vslice_vcpu_worst_wait_seconds", &labels, worst_ns);
        for (name, rows) in [
            ("vslice_vcpu_waiting_seconds_total", &second.waiting_by),
            ("vslice_vcpu_asleep_seconds_total", &second.asleep_by),
        ] {
            for row in rows {
                self.grow(name, &[labels[0], labels[1], ("reason", row.reason.name())], row.ns);
            }
        }
        for row in &second.unknown_by {
            let labels = [labels[0], labels[1], ("cause", unknown_name(row.cause))];
            self.grow("vslice_vcpu_unknown_seconds_total", &labels, row.ns);
        }
    }

    fn add_antagonists(&mut self, vm: &VmSecond) {
        const NAME: &str = "vslice_vm_antagonist_seconds_total";
        let mut others_ns = vm.others_ns;
        for group in &vm.antagonists {
            let kind = group.kind.name();
            let written = [("vm", &*vm.name), ("kind", kind), ("group", &*group.name)];
            let key = (NAME, labels(&written));
            let count = self.groups_of.entry(vm.name.clone()).or_default();
            if !self.values.contains_key(&key) {
                if *count >= GROUPS_MAX {
                    others_ns += group.ran_ns;
                    continue;
                }
                *count += 1;
            }
            *self.values.entry(key).or_default() += group.ran_ns;
        }
        for (kind, ns) in [("others", others_ns), ("idle", vm.idle_ns), ("unseen", vm.unseen_ns)] {
            if ns > 0 {
                self.grow(NAME, &[("vm", &vm.name), ("kind", kind), ("group", "")], ns);
            }
        }
    }

    fn add_io(&mut self, vm: &VmSecond) {
        for io in &vm.host_io {
            let device = io.device.as_deref().unwrap_or("");
            let labels = [("vm", &*vm.name), ("device", device), ("operation", io.operation)];
            self.observe("vslice_vm_host_io_latency_seconds", &labels, &io.latency);
            self.grow("vslice_vm_host_io_without_end_total", &labels, io.no_end);
        }
        for observed in vm.observed.iter().flat_map(|observed| &observed.operations) {
            let labels = [("vm", &*vm.name), ("operation", observed.operation)];
            self.observe("vslice_vm_observed_latency_seconds", &labels, &observed.latency);
        }
    }

    fn grow(&mut self, name: &'static str, written: &[(&str, &str)], by: u64) {
        let value = self.values.entry((name, labels(written))).or_default();
        *value = value.saturating_add(by);
    }

    fn set(&mut self, name: &'static str, written: &[(&str, &str)], to: u64) {
        self.values.insert((name, labels(written)), to);
    }

    fn observe(&mut self, name: &'static str, written: &[(&str, &str)], seen: &LatencySecond) {
        let histogram = self.histograms.entry((name, labels(written))).or_default();
        for (within, new) in histogram.within.iter_mut().zip(seen.within) {
            *within += new;
        }
        histogram.count += seen.count;
        histogram.total_ns = histogram.total_ns.saturating_add(seen.total_ns);
    }

    /// All of them, in the text exposition format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for metric in METRICS {
            let _a_string_takes_it = self.write(&mut text, &metric);
        }
        text
    }

    fn write(&self, text: &mut String, metric: &Metric) -> std::fmt::Result {
        let Metric { name, metric_type, help, .. } = metric;
        let said = match metric_type {
            MetricType::Seconds | MetricType::Count => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
        };
        writeln!(text, "# HELP {name} {help}")?;
        writeln!(text, "# TYPE {name} {said}")?;
        let of_it = |key: &&'static str| *key == *name;
        for ((_, labels), value) in self.values.iter().filter(|((key, _), _)| of_it(key)) {
            let value = match metric_type {
                MetricType::Count => value.to_string(),
                _ => seconds(*value),
            };
            writeln!(text, "{name}{} {value}", braced(labels))?;
        }
        for ((_, labels), histogram) in self.histograms.iter().filter(|((key, _), _)| of_it(key)) {
            for (bound_ns, count) in LATENCY_BOUNDS_NS.into_iter().zip(histogram.within) {
                let le = format!("{labels},le=\"{}\"", seconds(bound_ns));
                writeln!(text, "{name}_bucket{} {count}", braced(&le))?;
            }
            let le = format!("{labels},le=\"+Inf\"");
            writeln!(text, "{name}_bucket{} {}", braced(&le), histogram.count)?;
            writeln!(text, "{name}_sum{} {}", braced(labels), seconds(histogram.total_ns))?;
            writeln!(text, "{name}_count{} {}", braced(labels), histogram.count)?;
        }
        Ok(())
    }
}

fn labels(written: &[(&str, &str)]) -> Labels {
    let one = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
    written.iter().map(one).collect::<Vec<_>>().join(",")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// A label's value is anybody's text.
fn escaped(value: &str) -> String {
    let value = vslice_core::text::harmless(value);
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Exactly, without the zeroes at the end.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
