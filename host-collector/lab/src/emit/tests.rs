use super::*;
use crate::plan::Overrides;
use crate::qemu::disk_args;
use proptest::prelude::*;
use vslice_core::units::PcpuId;

fn files() -> EmitFiles {
    EmitFiles {
        kernel: None,
        initramfs: None,
        disk: "/images/vm1.img".into(),
        sockets: "/run".into(),
    }
}

fn plan(change: impl FnOnce(&mut DiskPlan)) -> Plan {
    let mut plan = Plan::load("demo").expect("built in");
    change(plan.vms[0].disk.as_mut().expect("vm1 has a disk"));
    plan.check().expect("possible");
    plan
}

fn version(text: &str) -> QemuVersion {
    text.parse().expect("a version")
}

fn line(plan: &Plan, qemu: &str) -> Result<String, EmitError> {
    let files = files();
    let emission = Emission { plan, vm_index: 0, version: version(qemu), files: &files };
    let args = qemu::command_line(&emission)?;
    Ok(args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" "))
}

fn xml(plan: &Plan, qemu: &str) -> Result<String, EmitError> {
    let files = files();
    libvirt::domain(&Emission { plan, vm_index: 0, version: version(qemu), files: &files })
}

/// The part from the disk on.
fn disk_line(plan: &Plan, qemu: &str) -> String {
    let line = line(plan, qemu).expect("this QEMU has it");
    let at = ["-object iothread", "-drive", "-blockdev"];
    let start = at.iter().filter_map(|word| line.find(word)).min().expect("it has a disk");
    line[start..].to_owned()
}

fn refusal(plan: &Plan, qemu: &str) -> String {
    line(plan, qemu).expect_err("this QEMU has it not").to_string()
}

const DRIVE: &str = "-drive if=none,id=disk0,file=/images/vm1.img,format=raw,cache=none,aio=native";
const BLOCKDEV: &str = "-blockdev driver=raw,node-name=disk0,file.driver=file,\
    file.filename=/images/vm1.img,file.aio=native,cache.direct=on,cache.no-flush=off";

#[test]
fn each_band_has_its_dataplane() {
    let on = plan(|disk| disk.iothread = true);
    let x = format!(
        "{DRIVE} -device virtio-blk-pci,drive=disk0,scsi=off,config-wce=off,x-data-plane=on"
    );
    let scsi = format!(
        "-object iothread,id=io0 {DRIVE} -device virtio-blk-pci,drive=disk0,scsi=off,iothread=io0"
    );
    let plain =
        format!("-object iothread,id=io0 {DRIVE} -device virtio-blk-pci,drive=disk0,iothread=io0");
    let modern = format!(
        "-object iothread,id=io0,poll-max-ns=0 {BLOCKDEV} \
         -device virtio-blk-pci,drive=disk0,write-cache=on,iothread=io0"
    );
    let bands = [
        ("1.4", &x),
        ("2.0", &x),
        ("2.1", &scsi),
        ("2.4", &scsi),
        ("2.5", &plain),
        ("2.8", &plain),
        ("2.9", &modern),
        ("7.2", &modern),
        ("9.0", &modern),
        ("9.1", &modern),
        ("10.0", &modern),
    ];
    for (qemu, expected) in bands {
        assert_eq!(&disk_line(&on, qemu), expected, "QEMU {qemu}");
    }
    let off = disk_line(&plan(|_| ()), "2.0");
    assert_eq!(off, format!("{DRIVE} -device virtio-blk-pci,drive=disk0"));
}

#[test]
fn the_whole_line_follows_the_version() {
    let mut plan = plan(|_| ());
    let old = line(&plan, "1.4").expect("1.4 has it");
    assert_eq!(
        old,
        format!(
            "-name vm1 -nodefaults -no-user-config -display none -machine pc,accel=kvm -cpu host \
             -smp 2 -m 256M -chardev file,id=console,path=/run/vm1.console.log -serial chardev:console \
             -qmp unix:/run/vm1.qmp,server=on,wait=off \
             -chardev socket,id=agent,path=/run/vm1.agent,server=on,wait=off -device virtio-serial-pci \
             -device virtserialport,chardev=agent,name=vslice.agent \
             -chardev socket,id=qga,path=/run/vm1.qga,server=on,wait=off \
             -device virtserialport,chardev=qga,name=org.qemu.guest_agent.0 \
             {DRIVE} -device virtio-blk-pci,drive=disk0"
        )
    );
    assert!(line(&plan, "2.0").expect("2.0").starts_with("-name vm1,debug-threads=on "));
    assert!(line(&plan, "10.2").expect("10.2").starts_with("-name vm1,debug-threads=on "));
    assert!(line(&plan, "11.0").expect("11.0").starts_with("-name vm1 "));
    plan.accelerator = AcceleratorSetting::Tcg;
    let new = line(&plan, "10.0").expect("10.0 has it");
    for part in ["-machine pc -accel tcg,thread=multi -cpu max", "vhost-vsock-pci,guest-cid=3"] {
        assert!(new.contains(part), "{new}");
    }
    let shell = qemu::shell("qemu", &["-no-reboot".into(), "-append".into(), "a 'b'".into()]);
    assert_eq!(shell, "qemu \\\n  -no-reboot \\\n  -append 'a '\\''b'\\'''\n");
}

#[test]
fn a_guest_that_is_observed_under_tcg_has_a_clock_that_is_no_device() {
    let tsc = "tsc=reliable clocksource=tsc";
    let of = |is_observed: bool, accelerator, kernel: Option<&str>| {
        let mut plan = plan(|_| ());
        plan.accelerator = accelerator;
        plan.vms[0].observe = is_observed.then(Default::default);
        let files = EmitFiles { kernel: kernel.map(PathBuf::from), ..files() };
        let version = version("7.2");
        let emission = Emission { plan: &plan, vm_index: 0, version, files: &files };
        [qemu::script(&emission), libvirt::domain(&emission)].map(|text| text.expect("possible"))
    };
    let [command, domain] = of(true, AcceleratorSetting::Tcg, Some("/vmlinuz"));
    let told = format!("console=ttyS0 quiet panic=-1 {tsc}");
    assert!(
        command.contains(&format!("-append '{told}'")) && !command.contains("HPET"),
        "{command}"
    );
    assert!(domain.contains(&format!("<cmdline>{told}</cmdline>")), "{domain}");
    // It has a kernel command line of its own.
    let [command, domain] = of(true, AcceleratorSetting::Tcg, None);
    assert!(
        command.contains(&format!("\n# It is observed under TCG: start its kernel with {tsc},"))
    );
    assert!(domain.contains(&format!("start its kernel with {tsc},")), "{domain}");
    for (is_observed, accelerator) in
        [(true, AcceleratorSetting::Kvm), (false, AcceleratorSetting::Tcg)]
    {
        for kernel in [Some("/vmlinuz"), None] {
            let texts = of(is_observed, accelerator, kernel);
            assert!(!texts.iter().any(|text| text.contains("clocksource")), "{texts:?}");
        }
    }
}

#[test]
fn queues_and_mapping_wait_for_their_versions() {
    let one = plan(|disk| (disk.iothread, disk.queues) = (true, Some(1)));
    assert!(!disk_line(&one, "2.6").contains("num-queues"), "one is all there was");
    assert!(disk_line(&one, "2.7").ends_with(",num-queues=1"));
    let four = plan(|disk| disk.queues = Some(4));
    assert_eq!(
        refusal(&four, "2.6"),
        "vm 'vm1': queues above 1 on virtio-blk needs QEMU 2.7 or newer, this is for QEMU 2.6"
    );
    let mapped = plan(|disk| (disk.iothread, disk.iothreads) = (true, 2));
    assert!(disk_line(&mapped, "9.0").contains("iothread-vq-mapping"));
    let message = refusal(&mapped, "8.2");
    assert!(message.contains("(iothread-vq-mapping) needs QEMU 9.0 or newer"), "{message}");
    let mapped = plan(|disk| {
        (disk.bus, disk.iothread, disk.iothreads) = (DiskBus::VirtioScsi, true, 2);
    });
    assert!(disk_line(&mapped, "10.0").contains("iothread-vq-mapping"));
    let message = refusal(&mapped, "9.2");
    assert!(message.contains("on virtio-scsi (iothread-vq-mapping) needs QEMU 10.0"), "{message}");
    let scsi = plan(|disk| (disk.bus, disk.iothread) = (DiskBus::VirtioScsi, true));
    assert!(refusal(&scsi, "2.1").contains("needs QEMU 2.2"));
    assert!(
        disk_line(&scsi, "2.2")
            .contains("virtio-scsi-pci,iothread=io0 -device scsi-hd,drive=disk0")
    );
    assert!(xml(&scsi, "2.3").expect_err("libvirt").to_string().contains("needs QEMU 2.4"));
}

#[test]
fn what_a_qemu_has_not_is_refused_with_a_sentence() {
    let image = plan(|disk| (disk.iothread, disk.aio) = (true, Aio::Threads));
    assert_eq!(
        refusal(&image, "2.0"),
        "vm 'vm1': in QEMU 2.0 a dataplane is x-data-plane, which takes a raw image with cache = \
         \"none\" and aio = \"native\" only, not cache = \"none\" and aio = \"threads\""
    );
    assert!(line(&image, "2.1").is_ok());
    let ring = plan(|disk| disk.aio = Aio::IoUring);
    assert!(refusal(&ring, "4.2").contains("needs QEMU 5.0"));
    let nvme = plan(|disk| disk.bus = DiskBus::Nvme);
    assert!(refusal(&nvme, "1.5").contains("needs QEMU 1.6"));
    let message = xml(&nvme, "10.0").expect_err("its libvirt has none").to_string();
    assert!(message.contains("libvirt has NVMe disks since 11.5"), "{message}");
    let domain = xml(&nvme, "10.1").expect("its libvirt has them");
    assert!(
        domain.contains("<target dev='nvme0n1' bus='nvme'/>\n      <serial>vslice</serial>"),
        "{domain}"
    );
    assert!(refusal(&nvme, "1.3").contains("QEMU 1.3 is older than 1.4"));
    let mut vsock = plan(|_| ());
    vsock.vsock = VsockSetting::Vhost;
    assert!(refusal(&vsock, "2.7").contains("needs QEMU 2.8"));
    vsock.vsock = VsockSetting::VhostUser;
    assert!(refusal(&vsock, "10.0").contains("for its own runs only"));
}

#[test]
fn scsi_is_never_said_where_it_is_no_property() {
    for bus in [DiskBus::VirtioBlk, DiskBus::VirtioScsi, DiskBus::Ide, DiskBus::Ahci] {
        let iothread = bus.is_virtio();
        let plan = plan(|disk| (disk.bus, disk.iothread) = (bus, iothread));
        for qemu in ["9.1", "10.0"] {
            assert!(!line(&plan, qemu).expect("it has it").contains("scsi="), "{bus:?}");
        }
    }
}

#[test]
fn libvirt_is_told_of_iothreads_and_pins() {
    let mut on = plan(|disk| (disk.iothread, disk.queues) = (true, Some(2)));
    on.vms[0].iothread_pcpu = Some(PcpuId(3));
    let text = xml(&on, "7.2").expect("7.2 has it");
    for part in [
        "<domain type='kvm'>",
        "<iothreads>1</iothreads>",
        "<vcpupin vcpu='1' cpuset='1'/>",
        "<emulatorpin cpuset='0'/>",
        "<iothreadpin iothread='1' cpuset='3'/>",
        "<driver name='qemu' type='raw' cache='none' io='native' iothread='1' queues='2'/>",
        "<target dev='vda' bus='virtio'/>",
        "<target type='virtio' name='org.qemu.guest_agent.0'/>",
        "<vsock model='virtio'>",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let mapped = plan(|disk| (disk.iothread, disk.iothreads) = (true, 2));
    let text = xml(&mapped, "9.0").expect("9.0 has it");
    for part in ["<iothreads>2</iothreads>", "<poll max='0'/>", "<iothread id='2'/>"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!text.contains("iothread='1' queues"), "iothread and iothreads exclude each other");
}

#[test]
fn old_libvirt_is_told_in_the_seeds_own_form() {
    let on = plan(|disk| disk.iothread = true);
    for qemu in ["1.4", "2.0"] {
        let text = xml(&on, qemu).expect("it has x-data-plane");
        for part in [
            "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'",
            "<qemu:arg value='-set'/>",
            "<qemu:arg value='device.virtio-disk0.scsi=off'/>",
            "<qemu:arg value='device.virtio-disk0.config-wce=off'/>",
            "<qemu:arg value='device.virtio-disk0.x-data-plane=on'/>",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("iothread"), "{text}");
        assert!(!text.contains("<!--"), "there is nothing to say: {text}");
    }
    assert!(!xml(&on, "2.1").expect("2.1 has iothreads").contains("qemu:"));
    let mut apart = on.clone();
    (apart.vms[0].worker_pcpu, apart.vms[0].iothread_pcpu) = (Some(PcpuId(7)), Some(PcpuId(8)));
    let text = xml(&apart, "2.0").expect("it has x-data-plane");
    for pcpu in ["on pCPU7", "on pCPU8"] {
        assert!(text.contains(pcpu), "what cannot be pinned is said: {text}");
    }
    let intx = plan(|disk| disk.msix = false);
    let old = xml(&intx, "2.5").expect("it has vectors");
    assert!(old.contains("<qemu:arg value='device.virtio-disk0.vectors=0'/>"), "{old}");
    let new = xml(&intx, "7.2").expect("it has vectors");
    assert!(new.contains("<qemu:property name='vectors' type='unsigned' value='0'/>"), "{new}");
}

#[test]
fn the_seeds_domain_is_read() {
    let seed = include_str!("fixtures/seed.xml");
    let read = from_xml::read("seed.xml", seed, None, None).expect("it is a domain");
    read.plan.check().expect("it can be run");
    let vm = &read.plan.vms[0];
    assert_eq!((vm.name.as_str(), vm.vcpus, vm.memory_mib), ("kvm1", 5, 4096));
    let pins: Vec<u32> = vm.vcpu_pcpus.iter().map(|pcpu| pcpu.0).collect();
    assert_eq!((pins, read.plan.collector_pcpu), (vec![0, 1, 2, 3, 4], PcpuId(5)));
    let disk = vm.disk.as_ref().expect("it has one");
    assert_eq!((disk.bus, disk.cache, disk.aio), (DiskBus::VirtioBlk, Cache::None, Aio::Native));
    assert!(disk.iothread, "that is what x-data-plane became");
    assert!(
        read.toml.contains("# It was x-data-plane=on, which became iothread="),
        "{}",
        read.toml
    );
    assert_eq!(vm.hogs.len(), 5);
    assert_eq!(vm.reader.as_ref().expect("assumed").vcpu.0, 4);
}

#[test]
fn what_is_no_domain_is_refused_with_a_sentence() {
    let table = [
        ("nothing", "x.xml is not XML: "),
        ("<network/>", "x.xml is no libvirt domain: its root is <network>"),
        ("<domain/>", "x.xml has no <name>"),
        (
            "<domain><name>a</name>\n<vcpu>many</vcpu></domain>",
            "x.xml, line 2: \"many\" is no number",
        ),
        ("<domain><name>a</name><vcpu>99999</vcpu></domain>", "has 99999 vCPUs"),
        ("<domain><name>a</name><vcpu>0</vcpu></domain>", "1 to 255"),
        (
            "<domain><name>a</name><vcpu>1</vcpu><memory unit='el'>1</memory></domain>",
            "\"el\" is no unit of memory",
        ),
    ];
    for (text, part) in table {
        let message = from_xml::read("x.xml", text, None, None).expect_err("no domain").to_string();
        assert!(message.contains(part), "'{message}' does not have '{part}'");
    }
}

#[test]
fn the_collector_has_a_pcpu_that_is_free() {
    let xml = "<domain><name>a</name><vcpu>1</vcpu><memory>262144</memory>\
               <cputune><vcpupin vcpu='0' cpuset='1'/></cputune></domain>";
    let collector = |host: Option<&str>| {
        let host = host.map(|text| vslice_trace::host::HostPcpus::parse(text).expect("a list"));
        from_xml::read("x", xml, host.as_ref(), None).expect("a domain").plan.collector_pcpu.0
    };
    assert_eq!(collector(None), 2);
    assert_eq!(collector(Some("0-3")), 3);
    assert_eq!(collector(Some("0-1")), 0);
    assert_eq!(collector(Some("1")), 1);
    assert_eq!(collector(Some("0")), 2, "the domain is from elsewhere");
}

fn disks() -> impl Strategy<Value = DiskPlan> {
    let bus = prop_oneof![
        Just(DiskBus::VirtioBlk),
        Just(DiskBus::VirtioScsi),
        Just(DiskBus::Ide),
        Just(DiskBus::Ahci),
        Just(DiskBus::Nvme)
    ];
    let cache = prop_oneof![
        Just(Cache::None),
        Just(Cache::Writeback),
        Just(Cache::Writethrough),
        Just(Cache::Directsync),
        Just(Cache::Unsafe)
    ];
    let aio = prop_oneof![Just(Aio::Native), Just(Aio::Threads), Just(Aio::IoUring)];
    let queues = proptest::option::of(1_u16..=8);
    let flags = (any::<bool>(), 1_u16..=3, any::<bool>(), any::<bool>());
    (bus, cache, aio, queues, flags).prop_map(
        |(bus, cache, aio, queues, (iothread, iothreads, ioeventfd, msix))| DiskPlan {
            bus,
            cache,
            aio,
            queues: queues.filter(|_| bus.is_virtio()),
            iothread: iothread && bus.is_virtio(),
            iothreads: if iothread && bus == DiskBus::VirtioBlk { iothreads } else { 1 },
            ioeventfd: ioeventfd || iothread || !bus.is_virtio(),
            msix: msix || !bus.is_virtio(),
            ..DiskPlan::of_size(1 << 30)
        },
    )
}

proptest! {
    #[test]
    fn an_emitted_domain_is_read_back(
        disk in disks(),
        pins in proptest::collection::vec(0_u32..64, 1..8),
        io_pcpus in (0_u32..64, 0_u32..64),
        qemu in prop_oneof![Just("2.0"), Just("2.5"), Just("7.2"), Just("10.0"), Just("11.1")],
    ) {
        let mut plan = Plan::load("demo").expect("built in");
        let vm = &mut plan.vms[0];
        (vm.hogs, vm.reader, vm.worker_pcpu) = (Vec::new(), None, None);
        vm.vcpus = u16::try_from(pins.len()).expect("few");
        vm.vcpu_pcpus = pins.into_iter().map(PcpuId).collect();
        (vm.main_loop_pcpu, vm.iothread_pcpu) = (Some(PcpuId(io_pcpus.0)), Some(PcpuId(io_pcpus.1)));
        vm.disk = Some(disk.clone());
        prop_assume!(plan.check_parts().is_ok());
        let Ok(text) = xml(&plan, qemu) else { return Ok(()) };
        let read = from_xml::read("emitted", &text, None, None).expect("it is a domain").plan;
        // What was read says the same of the guest, but of the thread of x-data-plane, which libvirt cannot pin.
        if !(disk.iothread && qemu == "2.0") {
            prop_assert_eq!(xml(&read, qemu), Ok(text));
        }
        let (vm, back) = (&plan.vms[0], &read.vms[0]);
        prop_assert_eq!(&back.vcpu_pcpus, &vm.vcpu_pcpus);
        prop_assert_eq!(back.main_loop_pcpu, vm.main_loop_pcpu);
        prop_assert_eq!((&back.name, back.memory_mib), (&vm.name, vm.memory_mib));
        // libvirt cannot pin the thread of x-data-plane, nor say that there is one queue before 2.7.
        if disk.iothread && qemu != "2.0" {
            prop_assert_eq!(back.iothread_pcpu, vm.iothread_pcpu);
        }
        let mut disk = disk;
        if disk.bus == DiskBus::VirtioBlk && !version(qemu).has(Feature::BlkQueues) {
            disk.queues = None;
        }
        prop_assert_eq!(back.disk.as_ref(), Some(&disk));
    }

    #[test]
    fn a_modern_disk_has_the_arguments_of_a_run(disk in disks()) {
        let plan = Plan::load("demo").expect("built in");
        let files = files();
        let emission =
            Emission { plan: &plan, vm_index: 0, version: version("10.0"), files: &files };
        let emitted = qemu::disk_arguments(&emission, &disk).expect("10.0 has it");
        prop_assert_eq!(emitted, disk_args(&disk.disk(&files.disk)));
    }
}

#[test]
fn overrides_reach_what_is_emitted() {
    let mut plan = Plan::load("seed").expect("built in");
    let overrides = Overrides { iothread: Some(true), ..Overrides::default() };
    overrides.apply(&mut plan).expect("possible");
    assert!(disk_line(&plan, "2.0").ends_with("x-data-plane=on"));
}
