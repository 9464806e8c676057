use super::*;

/// What a run notes of these VMs, which nobody can look at any more.
fn noted(vms: &[Vm]) -> Manifest {
    with_attachment(vms, None, |attachment| attachment.manifest())
}

/// What `what` makes of an attachment to these VMs that was not found out about the host.
fn with_attachment<T>(
    vms: &[Vm],
    load: Option<&Load>,
    what: impl FnOnce(&Attachment<'_>) -> T,
) -> T {
    let scratch = tempfile::tempdir().unwrap();
    let interrupted = AtomicBool::new(false);
    let options = AttachOptions {
        vms,
        output: scratch.path(),
        duration: None,
        evidence: EvidenceSetting::Totals,
        exits: false,
        load,
        pin: None,
        interrupted: &interrupted,
    };
    what(&Attachment {
        options,
        evidence: EvidencePlan::of_host(EvidenceSetting::Totals).unwrap(),
        names: names_of(vms),
        starts: Vec::new(),
        pcpus: BTreeSet::new(),
        home: None,
        dir: RunDir::create(scratch.path()).unwrap(),
    })
}

fn gone(name: &str, accelerator: Option<&str>) -> Vm {
    let accelerator = accelerator.map(str::to_owned);
    Vm { pid: Tid(u32::MAX), accelerator, ..Vm::named(name) }
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

#[test]
fn nothing_is_plugged_into_a_vm_whose_agent_cannot_be_started() {
    let scratch = tempfile::tempdir().unwrap();
    let monitor = scratch.path().join("qmp");
    let listener = std::os::unix::net::UnixListener::bind(&monitor).unwrap();
    listener.set_nonblocking(true).unwrap();
    let vms = [Vm { qmp_sockets: vec![monitor], ..Vm::named("web") }];
    let plan = crate::lab::plan::Plan::load("demo").unwrap();
    let casting = Casting::new(plan, &vms, &[None]).unwrap();
    let load = Load { casting, agent: None, target: None, plug: true };
    let error = with_attachment(&vms, Some(&load), |attachment| {
        let mut watcher =
            crate::run::watch::LineWatcher::new(Vec::new(), vslice_core::text::Letters::Unicode);
        attachment.make_with_load(&load, &mut attachment.manifest(), &mut watcher).unwrap_err()
    });
    let said = error.to_string();
    assert!(said.starts_with("web: there is no port for qemu-ga"), "{said}");
    assert!(said.contains("-device virtio-serial-pci"), "{said}");
    let asked = listener.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "nobody has come to the monitor");
}

#[test]
fn a_vm_that_is_stopped_is_said_at_once() {
    let vcpu = vslice_host::vm::VmThread {
        tid: Tid(std::process::id()),
        comm: "CPU 0/TCG".to_owned(),
        role: "vCPU0".to_owned(),
        vcpu: Some(vslice_core::units::VcpuId(0)),
        iothread: None,
        affinity: vec![PcpuId(0)],
    };
    let stopper = Some(procfs::Stopper::Signal);
    let vms = [Vm { threads: vec![vcpu], stopper, ..Vm::named("web") }];
    let scratch = tempfile::tempdir().unwrap();
    let interrupted = AtomicBool::new(false);
    let options = AttachOptions {
        vms: &vms,
        output: &scratch.path().join("run"),
        duration: None,
        evidence: EvidenceSetting::Totals,
        exits: false,
        load: None,
        pin: None,
        interrupted: &interrupted,
    };
    let mut said = Vec::new();
    let mut watcher =
        crate::run::watch::LineWatcher::new(&mut said, vslice_core::text::Letters::Unicode);
    drop(Attachment::prepare(options, &mut watcher).unwrap());
    let said = String::from_utf8(said).unwrap();
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with("vslice: web: its process ") && first.contains("SIGSTOP"), "{said}");
}
