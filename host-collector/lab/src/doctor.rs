//! What this host offers to a run, what is missing, and how to get it.

use super::diagnosis::Diagnosis;
use super::finding::{Finding, Status};
use super::image::MicroImage;
use super::plan::{BUILT_IN, LabAccelerator, Plan, VsockSetting};
use super::vsock::{TransportKind, VsockOffer};
use super::{accelerator, doctor_evidence, tools};
use std::path::Path;
use vslice_host::vm::{self, Vm};
use vslice_host::{bql, host, scratch};
use vslice_trace::host::HostPcpus;

/// What `make image` needs.
const MICRO_TOOLS: [&str; 6] = ["apt-get", "dpkg", "cpio", "gzip", "modprobe", "depmod"];
/// What `make debian-image` needs beside that.
const DEBIAN_TOOLS: [&str; 5] = ["mmdebstrap", "mke2fs", "debugfs", "dumpe2fs", "sfdisk"];

/// Checks everything that a run needs. Boots a guest for a moment if QEMU, an image and KVM are
/// available; changes nothing.
#[must_use]
pub fn examine(image_directory: &Path) -> Diagnosis {
    let image = MicroImage::in_directory(image_directory);
    let qemu = tools::find(tools::QEMU);
    let mut findings = vec![
        qemu_finding(qemu.as_deref()),
        big_lock_finding(qemu.as_deref()),
        kvm_finding(qemu.as_deref(), image.as_ref().ok()),
        vsock_finding(VsockOffer::of_host()),
        match &image {
            Ok(image) => Finding::ok("guest image", describe_image(image)),
            Err(error) => {
                Finding::missing("guest image", error.to_string(), "`make demo` builds it")
            }
        },
        build_tools_finding(),
        disk_finding(&scratch::parent_dir()),
    ];
    let vms = vm::find_all();
    findings.push(vms_finding(&vms));
    findings.extend(libvirt_finding(&vms));
    findings.extend(doctor_evidence::findings());
    match vslice_host::host::online_pcpus() {
        Ok(pcpus) => findings.extend(plan_findings(&pcpus)),
        Err(error) => {
            findings.push(Finding::missing("pCPUs", error.to_string(), "mount sysfs on /sys"));
        }
    }
    Diagnosis::of_host(findings)
}

fn qemu_finding(qemu: Option<&Path>) -> Finding {
    let advice = "apt-get install qemu-system-x86";
    let Some(qemu) = qemu else {
        return Finding::missing("QEMU", format!("{} is not on the PATH", tools::QEMU), advice);
    };
    match host::qemu_version(qemu) {
        Ok(version) => Finding::ok("QEMU", format!("{} ({})", version, qemu.display())),
        Err(reason) => Finding::missing("QEMU", reason, advice),
    }
}

/// Looked for in the file: where a running QEMU has it, its run says.
fn big_lock_finding(qemu: Option<&Path>) -> Finding {
    let name = "QEMU's big lock";
    let advice = "waits for it can only be inferred; a QEMU built with modules, as distributions build \
        it, exports the symbol that proves them";
    let Some(qemu) = qemu else {
        return Finding::degraded(name, "not searched: there is no QEMU", advice);
    };
    match bql::find_in_file(qemu) {
        Ok(found) => {
            let [lock, unlock] = found.functions.map(|function| function.symbol);
            Finding::ok(name, format!("{lock} and {unlock} name it, at {:#x}", found.address))
        }
        Err(error) => Finding::degraded(name, error.to_string(), advice),
    }
}

fn kvm_finding(qemu: Option<&Path>, image: Option<&MicroImage>) -> Finding {
    let name = "accelerator";
    let advice = "guests run under TCG: reasons and shares are valid, absolute times are not";
    if let Err(error) = accelerator::open_kvm() {
        return Finding::degraded(name, format!("{}: {error}", accelerator::KVM), advice);
    }
    let (Some(qemu), Some(image)) = (qemu, image) else {
        let seen = format!(
            "{} exists; not tried, because QEMU or the guest image is missing",
            accelerator::KVM
        );
        return Finding::degraded(name, seen, "build the image, then run `vslice doctor` again");
    };
    match accelerator::probe(qemu, image, &scratch::parent_dir()) {
        Ok(choice) if choice.accelerator == LabAccelerator::Kvm => Finding::ok(name, choice.reason),
        Ok(choice) => Finding::degraded(name, choice.reason, advice),
        Err(error) => Finding::degraded(name, error.to_string(), advice),
    }
}

fn vsock_finding(offer: VsockOffer) -> Finding {
    let name = "vsock";
    match offer.choose(VsockSetting::Auto) {
        Ok(choice) => match choice.kind {
            TransportKind::Vhost => Finding::ok(name, choice.reason),
            TransportKind::VhostUser { .. } => Finding::degraded(
                name,
                choice.reason,
                "guests connect through a separate process; modprobe vhost_vsock to use the kernel's \
                vhost-vsock",
            ),
            TransportKind::VirtioSerial => Finding::degraded(
                name,
                choice.reason,
                "modprobe vhost_vsock, or cargo install vhost-device-vsock --locked",
            ),
        },
        Err(error) => Finding::missing(name, error.to_string(), "modprobe vhost_vsock"),
    }
}

fn describe_image(image: &MicroImage) -> String {
    let kernel = &image.manifest["kernel"];
    match (kernel["package"].as_str(), kernel["version"].as_str()) {
        (Some(package), Some(version)) => format!("{package} {version}"),
        _ => "its manifest does not name its kernel".to_owned(),
    }
}

fn build_tools_finding() -> Finding {
    let name = "image tools";
    let lacks = |tools: &[&'static str]| -> Vec<&'static str> {
        tools.iter().copied().filter(|tool| tools::find(tool).is_none()).collect()
    };
    let (micro, debian) = (lacks(&MICRO_TOOLS), lacks(&DEBIAN_TOOLS));
    let seen = |missing: &[&str]| format!("{} not found", missing.join(", "));
    if !micro.is_empty() {
        let advice = "images cannot be built here: apt-get install cpio gzip kmod";
        return Finding::degraded(name, seen(&micro), advice);
    }
    if !debian.is_empty() {
        let advice = "`make debian-image` needs them and installs them: apt-get install mmdebstrap e2fsprogs \
            fdisk";
        return Finding::degraded(name, seen(&debian), advice);
    }
    Finding::ok(name, [&MICRO_TOOLS[..], &DEBIAN_TOOLS].concat().join(", "))
}

/// The VMs that are there, and how many of them could be attached to.
fn vms_finding(vms: &[Vm]) -> Finding {
    let name = "VMs";
    if vms.is_empty() {
        return Finding::ok(name, "none visible to this user; `vslice run` starts its own");
    }
    let is_seen = |vm: &&Vm| vm.vcpus().next().is_some();
    let (seen, unseen): (Vec<&Vm>, Vec<&Vm>) = vms.iter().partition(is_seen);
    let labels = |vms: &[&Vm]| vms.iter().map(|vm| vm.label()).collect::<Vec<_>>().join(", ");
    let Some(first) = unseen.first() else {
        let advice = "`vslice doctor --vm VM` checks one";
        return Finding::ok(name, format!("vslice can attach to {}; {advice}", labels(&seen)));
    };
    let text = format!("cannot tell which threads of {} run vCPUs", labels(&unseen));
    Finding::degraded(name, text, first.unseen_vcpus_advice())
}

/// Only domains of libvirt need it, for their qemu-ga.
fn libvirt_finding(vms: &[Vm]) -> Option<Finding> {
    let name = "libvirt";
    if !vms.iter().any(|vm| vm.manager.is_some()) {
        return None;
    }
    Some(match tools::find("virsh") {
        Some(virsh) => Finding::ok(
            name,
            format!("the domains' qemu-ga is reached through {}", virsh.display()),
        ),
        None => {
            let advice = "apt-get install libvirt-clients";
            Finding::degraded(name, "there are libvirt domains, but no virsh", advice)
        }
    })
}

fn disk_finding(directory: &Path) -> Finding {
    let name = "host disk";
    let Some(disk) = host::disk_facts(directory) else {
        return Finding::degraded(
            name,
            format!("{} is not on a single block device", directory.display()),
            "set VSLICE_TMP to a directory on a disk",
        );
    };
    let seen = format!(
        "{} is on {}, {} of {}",
        directory.display(),
        disk.device,
        disk.scheduler_text(),
        disk.schedulers.join(" ")
    );
    Finding::ok(name, seen)
}

fn plan_findings(pcpus: &HostPcpus) -> Vec<Finding> {
    let finding = |(name, text): &(&str, &str)| {
        let title = format!("plan {name}");
        match Plan::parse(name, text).and_then(|plan| plan.check_host(pcpus).map(|()| plan)) {
            Ok(plan) => Finding::ok(&title, format!("fits {pcpus}: {}", plan.description)),
            Err(error) => {
                Finding::degraded(&title, error.to_string(), "use another plan on this host")
            }
        }
    };
    let mut findings: Vec<Finding> = BUILT_IN.iter().map(finding).collect();
    if findings.iter().all(|finding| finding.status != Status::Ok) {
        let seen = format!("none of the {} built-in plans fits", findings.len());
        let advice = "use a host with more pCPUs online, or write a plan of your own";
        findings.push(Finding::missing("plans", seen, advice));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn each_way_to_the_guests_has_its_status() {
        let none = || Err(io::ErrorKind::NotFound.into());
        let table = [
            (VsockOffer { vhost: Ok(()), vhost_user: None }, Status::Ok),
            (VsockOffer { vhost: none(), vhost_user: Some("/d".into()) }, Status::Degraded),
            (VsockOffer { vhost: none(), vhost_user: None }, Status::Degraded),
        ];
        for (offer, status) in table {
            assert_eq!(vsock_finding(offer).status, status);
        }
    }

    #[test]
    fn a_qemu_without_the_symbol_is_poorer_and_not_useless() {
        let directory = tempfile::tempdir().expect("scratch");
        let script = directory.path().join("qemu");
        std::fs::write(&script, "#!/bin/sh\n").expect("scratch is writable");
        let finding = big_lock_finding(Some(&script));
        assert_eq!(finding.status, Status::Degraded);
        assert!(finding.seen.starts_with("the program is not a 64-bit ELF"), "{}", finding.seen);
        assert!(big_lock_finding(None).seen.starts_with("not searched"));
    }

    #[test]
    fn plans_that_do_not_fit_say_what_they_miss() {
        let findings = plan_findings(&HostPcpus::parse("0-1").expect("a list"));
        let seed = findings.iter().find(|finding| finding.name == "plan seed").expect("built in");
        assert_eq!(seed.status, Status::Degraded);
        assert!(seed.seen.contains("needs pCPU2, pCPU3, pCPU4 and pCPU5"), "{}", seed.seen);
        let demo = findings.iter().find(|finding| finding.name == "plan demo").expect("built in");
        assert_eq!((demo.status, &demo.advice), (Status::Ok, &None));
        assert_eq!(Diagnosis::of_host(findings).can_run, Some(true));
    }

    #[test]
    fn a_host_that_no_plan_fits_runs_none() {
        let findings = plan_findings(&HostPcpus::parse("0").expect("a list"));
        let diagnosis = Diagnosis::of_host(findings);
        assert_eq!((diagnosis.can_attach, diagnosis.can_run), (true, Some(false)));
        let why = format!("run plans: plans: none of the {} built-in plans fits", BUILT_IN.len());
        assert!(diagnosis.verdict.ends_with(&why), "{}", diagnosis.verdict);
    }

    #[test]
    fn a_host_without_an_image_is_told_so() {
        let diagnosis = examine(Path::new("/nonexistent"));
        assert_eq!((diagnosis.can_attach, diagnosis.can_run), (true, Some(false)));
        let findings = diagnosis.findings;
        let image = findings.iter().find(|finding| finding.name == "guest image").expect("always");
        assert_eq!(image.status, Status::Missing);
        assert!(findings.iter().all(|f| (f.status == Status::Ok) == f.advice.is_none()));
    }
}
