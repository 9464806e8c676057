//! The result of `vslice doctor`: all findings, and one sentence about what can be done here.

use super::finding::{Finding, Status};
use serde::Serialize;
use std::fmt::Write as _;
use vslice_host::plug::ByHand;

/// The schema of the JSON; `doctor_schema.md` has its keys.
pub const SCHEMA: &str = "vslice.doctor/1";

/// Findings without which vslice cannot attach to any VM.
const TO_ATTACH: [&str; 2] = ["pCPUs", VCPU_THREADS];
/// The name of the finding about a VM's vCPU threads.
pub(super) const VCPU_THREADS: &str = "vCPU threads";
/// The name of the finding about the level of evidence.
pub(super) const EVIDENCE: &str = "evidence";
/// The name of the finding about the transport from a guest.
pub(super) const TRANSPORT: &str = "transport to this host";
/// The name of the finding about a guest's qemu-ga.
pub(super) const QEMU_GA: &str = "qemu-ga";

/// The name of the finding about a guest's own vslice-agent.
pub(super) const AGENT: &str = "vslice-agent";

/// The diagnosis of a host or of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The VM that was examined; `None` for a host.
    pub vm: Option<String>,
    /// What can be done, and why not more, in one sentence.
    pub verdict: String,
    /// Whether VMs, or this VM, can be recorded.
    pub can_attach: bool,
    /// Whether plans can be run; `None` for a VM.
    pub can_run: Option<bool>,
    /// Whether an agent can be started in this VM's guest and reached; `None` for a host.
    pub can_load: Option<bool>,
    /// All findings.
    pub findings: Vec<Finding>,
    /// How to plug in a transport to this VM's guest; `None` if it has one.
    pub plug: Option<ByHand>,
}

impl Diagnosis {
    /// Makes the diagnosis of a host.
    #[must_use]
    pub fn of_host(findings: Vec<Finding>) -> Diagnosis {
        let (to_attach, to_run): (Vec<&Finding>, Vec<&Finding>) =
            missing(&findings).partition(|finding| TO_ATTACH.contains(&finding.name.as_str()));
        let (can_attach, can_run) =
            (to_attach.is_empty(), to_attach.is_empty() && to_run.is_empty());
        let verdict = match (can_attach, can_run) {
            (true, true) => "can attach to VMs and can run plans".to_owned(),
            (true, false) => {
                format!("can attach to VMs but cannot run plans: {}", reasons(&to_run))
            }
            (false, _) => format!(
                "can neither attach to VMs nor run plans: {}",
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

    /// Makes the diagnosis of the VM with this label; `can_start` says whether an agent can be started in
    /// its guest.
    #[must_use]
    pub fn of_vm(
        label: String,
        findings: Vec<Finding>,
        can_start: bool,
        plug: Option<ByHand>,
    ) -> Diagnosis {
        let to_attach: Vec<&Finding> = missing(&findings).collect();
        let hinders = |finding: &&Finding| match finding.name.as_str() {
            TRANSPORT => finding.status != Status::Ok,
            QEMU_GA => !can_start,
            _ => false,
        };
        let to_load: Vec<&Finding> = findings.iter().filter(hinders).collect();
        let (can_attach, can_load) =
            (to_attach.is_empty(), to_attach.is_empty() && to_load.is_empty());
        // Only the transport to the agent is missing.
        let plugs = plug.as_ref().is_some_and(|plug| plug.by_attach)
            && to_load.iter().all(|finding| finding.name == TRANSPORT);
        let level = poor_level(&findings).map(|level| format!(" ({level})")).unwrap_or_default();
        let attaches = format!("vslice can attach to {label}{level}");
        let has_agent = |finding: &&Finding| finding.name == AGENT && finding.status == Status::Ok;
        let uploads = can_start && !findings.iter().any(|finding| has_agent(&finding));
        let verdict = match (can_attach, can_load) {
            (true, true) if uploads => format!("{attaches}, also with --load and --agent FILE"),
            (true, true) => format!("{attaches}, also with --load"),
            (true, false) if plugs => format!(
                "{attaches}; --load also needs --plug{}: {}",
                if uploads { " and --agent FILE" } else { "" },
                reasons(&to_load)
            ),
            (true, false) => format!("{attaches}, but not with --load: {}", reasons(&to_load)),
            (false, _) => format!("vslice cannot attach to {label}: {}", reasons(&to_attach)),
        };
        Diagnosis {
            schema: SCHEMA,
            verdict,
            vm: Some(label),
            can_attach,
            can_run: None,
            can_load: Some(can_load),
            findings,
            plug,
        }
    }

    /// The diagnosis for a terminal: the findings, how to plug in a transport, and the verdict last.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = render(&self.findings);
        if let Some(plug) = &self.plug {
            let what = if plug.plug.is_empty() {
                "No transport can be plugged in"
            } else {
                "To plug in a \
                    transport"
            };
            let _ = writeln!(text, "\n{what}: {}", plug.sentence());
            if !plug.unplug.is_empty() {
                let _ = writeln!(text, "To unplug it again:\n  {}", plug.unplug.join("\n  "));
            }
        }
        let _ = writeln!(text, "\n{}", self.verdict);
        text
    }
}

fn missing(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.status == Status::Missing)
}

/// The level of evidence, as the finding states it, unless everything can be recorded.
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
