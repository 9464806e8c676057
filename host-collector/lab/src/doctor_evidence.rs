//! The level of evidence that runs can get on this host.

use super::diagnosis::EVIDENCE;
use super::finding::Finding;
use std::io;
use std::process::{Command, Stdio};
use vslice_core::units::Tid;
use vslice_host::tsc::KvmDebugfs;
use vslice_host::vm::Vm;
use vslice_record::perf::offer::offers;
use vslice_record::perf::{self, Tracefs};
use vslice_record::sampling::{NOTHING_VISIBLE, ThreadVisibility, visibility_of};

/// The level that a run gets now, and each thing that recording can use.
pub(super) fn findings() -> Vec<Finding> {
    // Tried rather than derived from capabilities and sysctls: the kernel has more ways to say no.
    let recordable = perf::check_rights().map_err(|error| error.to_string());
    let of_own = "of VMs that run as this user";
    let mut findings = vec![evidence_finding(recordable, of_own, visibility_of_child)];
    findings.extend(tracefs_findings(Tracefs::find()));
    findings.push(tsc_finding(KvmDebugfs::find().map(drop)));
    findings
}

/// The level of evidence that this user can get about one VM's threads.
pub(super) fn finding_of_vm(vm: &Vm) -> Finding {
    let recordable = perf::check_rights().map_err(|error| error.to_string());
    let tids: Vec<Tid> = vm.threads.iter().map(|thread| thread.tid).collect();
    evidence_finding(recordable, "of its vCPUs", || Ok(visibility_of(&tids)))
}

/// Whether KVM's word of its guests' TSCs can be read. Without it clocks rest on round trips, which is
/// no worse where guests run under TCG.
fn tsc_finding(debugfs: io::Result<()>) -> Finding {
    let name = "TSC offsets";
    match debugfs {
        Ok(()) => Finding::ok(name, "KVM's debugfs directory is readable"),
        Err(error) => Finding::degraded(
            name,
            format!("cannot read KVM's debugfs directory: {error}"),
            "run as root and load kvm; without it, the guests' clocks are mapped by round trips alone",
        ),
    }
}

/// `whose` names the threads that the level is about: if events cannot be recorded, it depends on their
/// owner.
fn evidence_finding(
    recordable: Result<(), String>,
    whose: &str,
    shown: impl FnOnce() -> io::Result<ThreadVisibility>,
) -> Finding {
    let name = EVIDENCE;
    let reason = match recordable {
        Ok(()) => {
            return Finding::ok(
                name,
                "recorded: sched_switch and sched_waking can be recorded here",
            );
        }
        Err(reason) => reason,
    };
    let as_root = "run as root to get counts, durations and the causes of single requests";
    match shown() {
        Ok(ThreadVisibility::Both) => {
            let seen =
                format!("sampled: shares of the off-CPU reasons {whose}, no counts; {reason}");
            Finding::degraded(name, seen, as_root)
        }
        Ok(ThreadVisibility::CallsOnly) => {
            let seen = format!(
                "sampled, without /proc/PID/wchan: shares of the off-CPU reasons {whose}, unknown in \
                KVM; {reason}"
            );
            Finding::degraded(name, seen, as_root)
        }
        Ok(ThreadVisibility::FunctionsOnly) => {
            let seen = format!(
                "sampled, without /proc/PID/syscall: shares of the off-CPU reasons {whose}, locks not \
                distinguished; {reason}"
            );
            Finding::degraded(name, seen, as_root)
        }
        Ok(ThreadVisibility::Nothing) => Finding::degraded(
            name,
            format!(
                "totals: on-pCPU times and run delays {whose}, no reasons; {reason}; and {NOTHING_VISIBLE}"
            ),
            "run as root; shares only need the user who runs the VM, and kernel.yama.ptrace_scope 0 or \
            1",
        ),
        Err(error) => Finding::degraded(
            name,
            format!(
                "sampled or totals, not tried, because no child process can be started: {error}; \
                {reason}"
            ),
            as_root,
        ),
    }
}

/// What the kernel shows of a child that sleeps: for an own thread it would show everything.
fn visibility_of_child() -> io::Result<ThreadVisibility> {
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?;
    let shown = visibility_of(&[Tid(child.id())]);
    child.kill()?;
    child.wait()?;
    Ok(shown)
}

fn tracefs_findings(tracefs: io::Result<Tracefs>) -> Vec<Finding> {
    let name = "tracefs";
    let tracefs = match tracefs {
        Ok(tracefs) => tracefs,
        Err(error) => {
            return vec![Finding::degraded(
                name,
                format!("not mounted, and mounting it failed: {error}"),
                "runs are sampled; run as root, or mount -t tracefs tracefs /sys/kernel/tracing",
            )];
        }
    };
    // Then every tracepoint would be, and it would not be known which of them there are.
    if let Err(error) = tracefs.format("sched/sched_switch")
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return vec![Finding::degraded(
            name,
            format!("mounted, but not readable for this user: {error}"),
            "runs are sampled, and the available tracepoints are unknown; run as root",
        )];
    }
    let seen = if tracefs.is_private() {
        "not mounted; vslice mounts its own while it records"
    } else {
        "mounted"
    };
    let offers = offers(&tracefs).into_iter().map(|offer| match offer.missing {
        None => Finding::ok(offer.name, "available"),
        Some(why) => Finding::degraded(offer.name, why, offer.costs),
    });
    [Finding::ok(name, seen)].into_iter().chain(offers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn the_level_is_said_with_what_it_costs() {
        let denied = || Err("not allowed".to_owned());
        let recorded = evidence_finding(Ok(()), "of all", || unreachable!("it is not asked for"));
        assert!(recorded.status == Status::Ok && recorded.seen.starts_with("recorded"));
        for (shown, start) in [
            (Ok(ThreadVisibility::Both), "sampled: "),
            (Ok(ThreadVisibility::CallsOnly), "sampled, without /proc/PID/wchan"),
            (Ok(ThreadVisibility::FunctionsOnly), "sampled, without /proc/PID/syscall"),
            (Ok(ThreadVisibility::Nothing), "totals: "),
            (Err(io::ErrorKind::NotFound.into()), "sampled or totals, not tried"),
        ] {
            let finding = evidence_finding(denied(), "of its vCPUs", || shown);
            assert_eq!(finding.status, Status::Degraded);
            assert!(finding.seen.starts_with(start), "{}", finding.seen);
            assert!(finding.seen.contains("; not allowed"), "{}", finding.seen);
        }
    }

    #[test]
    fn the_level_of_a_vm_is_what_its_own_threads_show() {
        // Root may see and record everything, so the rights of another user are played.
        let shown = |tids: &[Tid]| {
            evidence_finding(Err("denied".to_owned()), "of its vCPUs", || Ok(visibility_of(tids)))
        };
        let own = nix::unistd::gettid().as_raw().cast_unsigned();
        assert!(shown(&[Tid(own)]).seen.starts_with("sampled"));
        let hidden = shown(&[Tid(u32::MAX)]);
        assert!(
            hidden.seen.starts_with("totals: on-pCPU times and run delays of its vCPUs"),
            "{}",
            hidden.seen
        );
        assert!(hidden.seen.contains("ptrace(2)"), "{}", hidden.seen);
        let vm = Vm::named("web1");
        assert_eq!(finding_of_vm(&vm).name, EVIDENCE);
    }

    #[test]
    fn without_tracefs_a_run_is_still_possible() {
        let findings = tracefs_findings(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!((findings.len(), findings[0].status), (1, Status::Degraded));
    }

    #[test]
    fn without_kvms_word_clocks_are_still_known() {
        assert_eq!(tsc_finding(Ok(())).status, Status::Ok);
        let finding = tsc_finding(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(finding.status, Status::Degraded);
        assert!(finding.advice.is_some_and(|advice| advice.contains("round trips")));
    }

    #[test]
    fn every_tracepoint_has_a_line_where_there_is_tracefs() {
        let findings = tracefs_findings(Tracefs::find());
        if findings[0].status == Status::Ok {
            for name in
                ["sched/sched_switch", "kvm/kvm_pio", "block/block_rq_issue", "user registers"]
            {
                assert!(findings.iter().any(|finding| finding.name == name), "{name}");
            }
        }
    }
}
