//! What `vslice doctor` comes to: everything that was found, and in one sentence what can be done here.

use super::finding::{Finding, Status};
use serde::Serialize;
use std::fmt::Write as _;
use vslice_host::plug::ByHand;

/// The schema of the JSON; `doctor_schema.md` has its keys.
pub const SCHEMA: &str = "vslice.doctor/1";

/// Findings without which no VM can be attached to.
const TO_ATTACH: [&str; 2] = ["pCPUs", VCPU_THREADS];
/// What the finding of a VM's vCPU threads is called.
pub(super) const VCPU_THREADS: &str = "vCPU threads";
/// What the finding of how well threads can be seen is called.
pub(super) const EVIDENCE: &str = "evidence";
/// What the finding of the way from a guest is called.
pub(super) const WAY: &str = "way to this host";
/// What the finding of a guest's qemu-ga is called.
pub(super) const QEMU_GA: &str = "qemu-ga";

/// What the finding of a guest's own vslice-agent is called.
pub(super) const AGENT: &str = "vslice-agent";

/// What was found of a host or of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The VM that was looked at; `None` if it was the host.
    pub vm: Option<String>,
    /// What can be done, and why not more, in one sentence.
    pub verdict: String,
    /// Whether VMs, or this VM, can be recorded.
    pub can_attach: bool,
    /// Whether plans can be run; `None` of a VM.
    pub can_run: Option<bool>,
    /// Whether an agent in this VM's guest can be started and reached; `None` of a host.
    pub can_load: Option<bool>,
    /// One by one.
    pub findings: Vec<Finding>,
    /// How a way to this VM's guest can be plugged in; `None` if it has one.
    pub plug: Option<ByHand>,
}

impl Diagnosis {
    /// Of a host.
    #[must_use]
    pub fn of_host(findings: Vec<Finding>) -> Diagnosis {
        let (to_attach, to_run): (Vec<&Finding>, Vec<&Finding>) =
            missing(&findings).partition(|finding| TO_ATTACH.contains(&finding.name.as_str()));
        let (can_attach, can_run) =
            (to_attach.is_empty(), to_attach.is_empty() && to_run.is_empty());
        let verdict = match (can_attach, can_run) {
            (true, true) => "can attach to VMs and can run plans".to_owned(),
            (true, false) => {
                format!("can attach to VMs; cannot run plans, because {}", reasons(&to_run))
            }
            (false, _) => format!(
                "cannot attach to VMs and cannot run plans, because {}",
                reasons(&[to_attach, to_run].concat())
            ),
        };
        Diagnosis {
            schema: SCHEMA,
            vm: None,
            verdict: format!("this host {verdict}"),
            can_attach,
            can_run: Some(can_run),
            can_load: None,
            findings,
            plug: None,
        }
    }

    /// Of the VM with this label, in whose guest an agent can be started or not.
    #[must_use]
    pub fn of_vm(
        label: String,
        findings: Vec<Finding>,
        can_start: bool,
        plug: Option<ByHand>,
    ) -> Diagnosis {
        let to_attach: Vec<&Finding> = missing(&findings).collect();
        let hinders = |finding: &&Finding| match finding.name.as_str() {
            WAY => finding.status != Status::Ok,
            QEMU_GA => !can_start,
            _ => false,
        };
        let to_load: Vec<&Finding> = findings.iter().filter(hinders).collect();
        let (can_attach, can_load) =
            (to_attach.is_empty(), to_attach.is_empty() && to_load.is_empty());
        // The agent is there, and the way to it is all that lacks.
        let plugs = plug.as_ref().is_some_and(|plug| plug.by_attach)
            && to_load.iter().all(|finding| finding.name == WAY);
        let level = poor_level(&findings).map(|level| format!(" ({level})")).unwrap_or_default();
        let attaches = format!("can be attached to{level}");
        let has_agent = |finding: &&Finding| finding.name == AGENT && finding.status == Status::Ok;
        let uploads = can_start && !findings.iter().any(|finding| has_agent(&finding));
        let verdict = match (can_attach, can_load) {
            (true, true) if uploads => format!("{attaches}, also with --load and --agent FILE"),
            (true, true) => format!("{attaches}, also with --load"),
            (true, false) if plugs => format!(
                "{attaches}; with --load only together with --plug{}, because {}",
                if uploads { " and --agent FILE" } else { "" },
                reasons(&to_load)
            ),
            (true, false) => format!("{attaches}; not with --load, because {}", reasons(&to_load)),
            (false, _) => format!("cannot be attached to, because {}", reasons(&to_attach)),
        };
        Diagnosis {
            schema: SCHEMA,
            verdict: format!("{label} {verdict}"),
            vm: Some(label),
            can_attach,
            can_run: None,
            can_load: Some(can_load),
            findings,
            plug,
        }
    }

    /// For a terminal: the findings as lines, how to plug a way in, and the verdict last.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = render(&self.findings);
        if let Some(plug) = &self.plug {
            let what =
                if plug.plug.is_empty() { "No way can be plugged in" } else { "To plug a way in" };
            let _ = writeln!(text, "\n{what}: {}", plug.sentence());
            if !plug.unplug.is_empty() {
                let _ = writeln!(text, "and out again:\n  {}", plug.unplug.join("\n  "));
            }
        }
        let _ = writeln!(text, "\n{}", self.verdict);
        text
    }
}

fn missing(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.status == Status::Missing)
}

/// How well a VM's threads are seen, as the finding has it, where not everything is recorded.
fn poor_level(findings: &[Finding]) -> Option<&str> {
    let evidence = findings.iter().find(|finding| finding.name == EVIDENCE)?;
    let level = evidence.seen.split_once(';').map_or(&evidence.seen[..], |(level, _)| level);
    (evidence.status != Status::Ok).then_some(level)
}

fn reasons(findings: &[&Finding]) -> String {
    let reason = |finding: &&Finding| format!("{}: {}", finding.name, finding.seen);
    findings.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// The findings as lines for a terminal.
fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.status {
            Status::Ok => "ok      ",
            Status::Degraded => "degraded",
            Status::Missing => "MISSING ",
        };
        let _ = writeln!(text, "{mark}  {:width$}  {}", finding.name, finding.seen);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "{:8}  {:width$}  -> {advice}", "", "");
        }
    }
    text
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
