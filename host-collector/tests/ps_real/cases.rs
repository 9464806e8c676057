//! The table: command lines as users of these VMMs write them, with invented names, and the right answers.

use super::Case;

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
        name: "another_program_is_no_vm",
        line: "kvm_stat --once",
        threads: "",
        vm: None,
        ..Case::OF_KVM
    },
];
