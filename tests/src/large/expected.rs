//! What the summary of an acted-out run has to be, and whether it is.

use serde_json::Value;
use std::collections::BTreeMap;

/// A percentile is at most so much above the true one (`Precision::Fine`).
const QUANTILE_ERROR: f64 = 0.001;

/// What is known of a run.
#[derive(Debug, Default)]
pub struct Expected {
    /// Host events.
    pub events: u64,
    /// How long requests took.
    pub latencies: Latencies,
    /// What requests waited for, by phase and part.
    pub phases_ns: BTreeMap<(&'static str, &'static str), u64>,
    /// Each vCPU, by VM and number.
    pub vcpus: BTreeMap<(u32, u32), VcpuExpected>,
    /// Waits for the big lock of each VM's reading vCPU: how many, and for how long.
    pub lock_waits: BTreeMap<u32, (u64, u64)>,
}

/// How many requests took how long, exactly, in memory that does not grow with their number.
#[derive(Debug, Default)]
pub struct Latencies {
    /// How many took so many nanoseconds, by these: none takes longer than a turn.
    counts: Vec<u64>,
}

impl Latencies {
    pub(super) fn push(&mut self, length_ns: u64) {
        let place = usize::try_from(length_ns).unwrap_or(usize::MAX);
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
    }

    /// How many requests there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn sum_ns(&self) -> u64 {
        (0..).zip(&self.counts).map(|(length_ns, count): (u64, &u64)| length_ns * count).sum()
    }

    /// The length of the request of this rank, from 1 for the shortest; 0 without requests.
    fn at_rank(&self, rank: u64) -> u64 {
        let mut left = rank;
        for (length_ns, count) in (0..).zip(&self.counts) {
            left = left.saturating_sub(*count);
            if left == 0 {
                return length_ns;
            }
        }
        0
    }
}

/// What is known of a vCPU.
#[derive(Debug, Default)]
pub struct VcpuExpected {
    /// How long its thread was on its pCPU.
    pub on_pcpu_ns: u64,
    /// For how long it waited for it.
    pub wait_ns: u64,
    /// How long it was idle meanwhile.
    pub idle_ns: u64,
    /// How long strangers of each name ran meanwhile.
    pub antagonists_ns: BTreeMap<String, u64>,
}

impl Expected {
    /// All in which a summary, as JSON, is otherwise; nothing if it is right.
    #[must_use]
    pub fn differences(&self, summary: &Value) -> Vec<String> {
        let mut differences = Differences(Vec::new());
        self.check_requests(summary, &mut differences);
        self.check_vcpus(summary, &mut differences);
        self.check_lock_waits(summary, &mut differences);
        differences.0
    }

    fn check_requests(&self, summary: &Value, differences: &mut Differences) {
        let (count, latency_ns) = (self.latencies.count(), self.latencies.sum_ns());
        differences.check("requests", &summary["requests"]["count"], count);
        differences.check("unattributable", &summary["requests"]["unattributable"], 0);
        differences.check("bytes", &summary["requests"]["bytes"], count * super::BLOCK_BYTES);
        let all = &summary["classes"]["all"];
        differences.check("their latency", &all["latency_ns"], latency_ns);
        let io = &summary["io"]["classes"]["all"];
        differences.check("requests of known phases", &io["known"], count);
        let mut parts_ns = BTreeMap::<&str, u64>::new();
        for ((phase, part), length_ns) in &self.phases_ns {
            *parts_ns.entry(part).or_default() += length_ns;
            let told = &io["parts_ns"][phase][part];
            differences.check(&format!("{part} in phase {phase}"), told, *length_ns);
        }
        for (part, length_ns) in &parts_ns {
            differences.check(part, &summary["parts"]["all"][part], *length_ns);
        }
        for (name, millionths) in [("p50", 500_000), ("p99", 990_000), ("p999", 999_000)] {
            let rank = (count * millionths).div_ceil(1_000_000);
            let true_ns = self.latencies.at_rank(rank);
            let told_ns = summary["latency_ns"][name].as_u64().unwrap_or(0);
            let most_ns = true_ns as f64 * (1.0 + QUANTILE_ERROR) + 1.0;
            if told_ns < true_ns || told_ns as f64 > most_ns {
                differences.0.push(format!("{name}: {told_ns} instead of {true_ns}"));
            }
        }
        let longest_ns = self.latencies.at_rank(count);
        differences.check("the longest", &summary["latency_ns"]["max"], longest_ns);
    }

    fn check_vcpus(&self, summary: &Value, differences: &mut Differences) {
        let rows = summary["vcpus"].as_array().map_or(&[][..], Vec::as_slice);
        differences.check("vCPUs", &Value::from(rows.len()), self.vcpus.len() as u64);
        for ((vm, vcpu), expected) in &self.vcpus {
            let name = super::vm_name(*vm);
            let is_it = |row: &&Value| row["vm"] == name && row["vcpu"] == *vcpu;
            let row = rows.iter().find(is_it).unwrap_or(&Value::Null);
            let mut check = |what: &str, told: &Value, length_ns| {
                differences.check(&format!("{what} of {name} vCPU{vcpu}"), told, length_ns);
            };
            check("time on its pCPU", &row["on_pcpu_ns"], expected.on_pcpu_ns);
            check("waits", &row["wait_ns"], expected.wait_ns);
            check("idle time in waits", &row["idle_ns"], expected.idle_ns);
            for (antagonist, ran_ns) in &expected.antagonists_ns {
                let rows = row["antagonists"].as_array().map_or(&[][..], Vec::as_slice);
                let row = rows.iter().find(|row| row["name"] == *antagonist);
                check(antagonist, row.map_or(&Value::Null, |row| &row["ran_ns"]), *ran_ns);
            }
        }
    }

    fn check_lock_waits(&self, summary: &Value, differences: &mut Differences) {
        let rows = summary["lock_waits"].as_array().map_or(&[][..], Vec::as_slice);
        for (vm, (count, total_ns)) in &self.lock_waits {
            let name = super::vm_name(*vm);
            let row = rows.iter().find(|row| row["vm"] == name && row["reason"] == "bql");
            let row = row.unwrap_or(&Value::Null);
            differences.check(&format!("waits for the big lock of {name}"), &row["count"], *count);
            differences.check(&format!("their time in {name}"), &row["total_ns"], *total_ns);
        }
    }
}

struct Differences(Vec<String>);

impl Differences {
    fn check(&mut self, what: &str, told: &Value, expected: u64) {
        if told.as_u64() != Some(expected) {
            self.0.push(format!("{what}: {told} instead of {expected}"));
        }
    }
}
