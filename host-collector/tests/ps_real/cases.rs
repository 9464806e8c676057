//! The table: command lines as users of these VMMs write them, with invented names, and the right answers.

use super::{Case, Kvm};

/// All cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_qemu_with_an_iothread_and_its_disk",
        line: "qemu-system-x86_64 -name a,debug-threads=on -accel kvm -object iothread,id=io0 \
               -drive if=none,id=d,file=/d,format=raw -device virtio-blk-pci,drive=d,iothread=io0",
        threads: "CPU 0/KVM;IO io0",
        vm: Some(
            r#"{"vmm": "qemu", "name": "a", "accelerator": "kvm",
                "disks": [{"bus": "virtio-blk", "path": "/d", "format": "raw", "iothreads": ["io0"]}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "qemu_by_another_distributions_name",
        line: "/usr/bin/qemu-vanilla-system-x86_64 -name a,debug-threads=on -machine pc,accel=kvm",
        vm: Some(r#"{"vmm": "qemu", "name": "a", "accelerator": "kvm"}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "qemu_as_kvm_spice",
        line: "/usr/bin/kvm-spice -name a -machine pc,accel=kvm",
        vm: Some(r#"{"vmm": "qemu", "accelerator": "kvm"}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "qemu_as_qemu_kvm_ev_without_named_threads",
        line: "/usr/libexec/qemu-kvm-ev -name guest=a -machine pc,accel=tcg",
        threads: "",
        vm: Some(r#"{"vmm": "qemu", "name": "a", "accelerator": "tcg"}"#),
        warnings: &["cannot tell which threads of a run its vCPUs"],
        ..Case::OF_KVM
    },
    Case {
        name: "qemu_that_calls_itself_otherwise",
        line: "vm-for-customer-7 -name a",
        exe: Some("qemu-system-x86_64"),
        vm: Some(r#"{"vmm": "qemu", "name": "a"}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "what_prefers_kvm_is_not_called_tcg",
        line: "/usr/bin/kvm -id 100 -name a -smp 2 -m 512",
        threads: "",
        vm: Some(r#"{"vmm": "qemu", "accelerator": null}"#),
        warnings: &["cannot tell which threads of a run its vCPUs"],
        ..Case::OF_KVM
    },
    Case {
        name: "iothreads_whose_names_are_cut_off_are_told_apart",
        line: "qemu-system-x86_64 -name a,debug-threads=on -accel kvm \
               -object iothread,id=iothread-virtioscsi0 -object iothread,id=iothread-virtioscsi1 \
               -device virtio-scsi-pci,id=s0,iothread=iothread-virtioscsi0 \
               -drive if=none,id=d,file=/d,format=raw -device scsi-hd,bus=s0.0,drive=d",
        threads: "IO iothread-virtioscsi0;IO iothread-virtioscsi1;CPU 0/KVM",
        vm: Some(
            r#"{"disks": [{"bus": "virtio-scsi", "iothreads": ["iothread-virtioscsi0"]}],
                "idle_iothreads": ["iothread-virtioscsi1"],
                "threads": [
                    {"vcpu": 0},
                    {"role": "main loop"},
                    {"iothread": "iothread-virtioscsi0", "iothread_from": "order"},
                    {"iothread": "iothread-virtioscsi1", "iothread_from": "order"}
                ]}"#,
        ),
        warnings: &["iothread iothread-virtioscsi1 of a seems to serve nothing"],
        ..Case::OF_KVM
    },
    Case {
        name: "iothreads_whose_names_were_refused_are_told_apart",
        line: "qemu-system-x86_64 -name a,debug-threads=on -accel kvm \
               -object iothread,id=iothread-virtioscsi0 -object iothread,id=iothread-virtioscsi1 \
               -device virtio-scsi-pci,id=s0,iothread=iothread-virtioscsi0 \
               -device virtio-scsi-pci,id=s1,iothread=iothread-virtioscsi1",
        exe: Some("qemu-system-x86_64"),
        threads: "call_rcu;qemu-system-x86;qemu-system-x86;CPU 0/KVM",
        vm: Some(
            r#"{"threads": [
                {"vcpu": 0},
                {"role": "main loop"},
                {"comm": "call_rcu"},
                {"iothread": "iothread-virtioscsi0", "iothread_from": "order"},
                {"iothread": "iothread-virtioscsi1", "iothread_from": "order"}
            ]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "a_vhost_thread_where_a_vcpu_is_pinned",
        line: "qemu-system-x86_64 -name a,debug-threads=on -accel kvm",
        threads: "CPU 0/KVM@1;vhost-77@1",
        warnings: &["vhost-77, which works for a, can only run on pCPU1, where"],
        ..Case::OF_KVM
    },
    Case {
        name: "a_vhost_thread_that_may_run_elsewhere",
        line: "qemu-system-x86_64 -name a,debug-threads=on -accel kvm",
        threads: "CPU 0/KVM@1;vhost-77@0",
        ..Case::OF_KVM
    },
    Case {
        name: "a_cloud_hypervisor_of_another_name",
        line: "./cloud-hypervisor-static --kernel k --disk path=d.raw,direct=on --cpus boot=1",
        threads: "vcpu0;_disk0_q0",
        vm: Some(
            r#"{"vmm": "cloud-hypervisor", "accelerator": null,
                "disks": [{"path": "d.raw", "is_direct": true, "iothreads": ["_disk0_q0"], "aio": null}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "the_disks_of_a_cloud_hypervisor",
        line: "cloud-hypervisor --kernel k --disk path=d.raw,direct=on --cpus boot=1",
        threads: "vcpu0;_disk0_q0",
        vm: Some(
            r#"{"vmm": "cloud-hypervisor",
                "disks": [{"bus": "virtio-blk", "path": "d.raw", "is_direct": true, "iothreads": ["_disk0_q0"]}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "a_firecracker_of_another_name",
        line: "firecracker-v1.5.0-x86_64 --id vm7 --api-sock /run/fc.sock",
        threads: "fc_vcpu 0",
        vm: Some(r#"{"vmm": "firecracker", "name": "vm7"}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "a_kvmtool",
        line: "lkvm run --name a -d d.raw",
        threads: "kvm-vcpu-0;virtio-blk-io",
        vm: Some(r#"{"vmm": "kvmtool", "name": "a"}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "a_vmm_that_nobody_knows",
        line: "novelvisor --guest a",
        threads: "cpu-0",
        kvm: Kvm::Opened,
        vm: Some(r#"{"vmm": "other", "accelerator": "kvm", "name": null, "disks": null}"#),
        warnings: &["cannot tell which threads of process"],
        ..Case::OF_KVM
    },
    Case {
        name: "a_kvm_that_is_seen_is_told",
        line: "/usr/bin/kvm -id 100 -name a -smp 1 -m 512",
        threads: "",
        kvm: Kvm::Opened,
        vm: Some(r#"{"vmm": "qemu", "accelerator": "kvm"}"#),
        warnings: &["cannot tell which threads of a run its vCPUs"],
        ..Case::OF_KVM
    },
    Case {
        name: "a_qemu_that_is_asked_what_it_can_do_is_no_vm",
        line: "/usr/bin/qemu-system-x86_64 -S -no-user-config -machine none,accel=kvm:tcg",
        threads: "",
        vm: None,
        ..Case::OF_KVM
    },
    Case {
        name: "another_program_is_no_vm",
        line: "kvm_stat --once",
        threads: "",
        vm: None,
        ..Case::OF_KVM
    },
];
