use super::*;

/// What a run notes of these VMs, which nobody can look at any more.
fn noted(vms: &[FoundVm]) -> Manifest {
    let scratch = tempfile::tempdir().unwrap();
    let interrupted = AtomicBool::new(false);
    let options = AttachOptions {
        vms,
        output: scratch.path(),
        duration: None,
        evidence: EvidenceSetting::Totals,
        exits: false,
        load: None,
        pin: None,
        interrupted: &interrupted,
    };
    let attachment = Attachment {
        options,
        evidence: EvidencePlan::of_host(EvidenceSetting::Totals).unwrap(),
        names: names_of(vms),
        starts: Vec::new(),
        pcpus: BTreeSet::new(),
        home: None,
        dir: RunDir::create(scratch.path()).unwrap(),
    };
    attachment.manifest()
}

fn gone(name: &str, accelerator: Option<&str>) -> FoundVm {
    let accelerator = accelerator.map(str::to_owned);
    FoundVm { pid: Tid(u32::MAX), accelerator, ..FoundVm::called(name) }
}

#[test]
fn an_accelerator_that_is_not_known_is_no_default_and_has_its_reason() {
    let known = noted(&[gone("web", Some("kvm")), gone("db", Some("kvm"))]);
    assert_eq!(known.accelerator, "kvm");
    assert_eq!(known.accelerator_reason, "the VMs were found running");
    let one = noted(&[gone("web", Some("kvm")), gone("db", None)]);
    assert_eq!(one.accelerator, "an unknown accelerator and kvm");
    assert_eq!(one.accelerator_reason, format!("the VMs were found running; {NO_ACCELERATOR}"));
}

#[test]
fn what_cannot_be_seen_of_a_vm_is_a_reason_and_nothing_of_the_hosts() {
    let said = noted(&[gone("web", Some("kvm"))]).environment_lines.join("\n");
    for reason in [
        "version of QEMU not known, because which program runs it cannot be seen",
        "host disk is not known, because which files web has open cannot be seen",
    ] {
        assert!(said.contains(reason), "{said}");
    }
}
