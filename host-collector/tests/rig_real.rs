//! The rig on this host: guests boot, and each injector does what it says, by an independent witness.
//!
//! What this host lacks (KVM, QEMU, a cgroup) shows as an ignored test with the reason.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::PathBuf;
use vslice::lab::plan::Accelerator;
use vslice::lab::tools;
use vslice::rig::boot_sector::Guest;
use vslice::rig::frontend::Frontend;
use vslice::rig::machine::{self, Machine, MachineConfig, READER, START_LIMIT};

type Outcome = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    // The tests share two pCPUs and measure what runs on them: one at a time.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    match tools::find(tools::QEMU) {
        Some(qemu) => trials.extend(boot_trials(&qemu)),
        None => trials.push(ignored("guests_boot", "there is no qemu-system-x86_64")),
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn ignored(name: &str, reason: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
}

fn boot_trials(qemu: &std::path::Path) -> Vec<Trial> {
    let choice = machine::choose_accelerator(qemu);
    let mut trials = Vec::new();
    for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
        let usable = accelerator == Accelerator::Tcg || choice.accelerator == Accelerator::Kvm;
        let mut add = |guest: Guest, frontend: Frontend| {
            let kind = format!("{accelerator:?}").to_lowercase();
            let name = format!("{}_on_{}_{kind}", guest.name(), frontend.name());
            let qemu = qemu.to_owned();
            trials.push(if usable {
                Trial::test(name, move || boots(qemu, accelerator, guest, frontend))
            } else {
                ignored(&name, &choice.reason)
            });
        };
        for frontend in Frontend::ALL {
            add(READER, frontend);
        }
        for guest in [Guest::Hog, Guest::Idle, Guest::PortReader] {
            add(guest, Frontend::VirtioBlk);
        }
    }
    trials
}

fn config(
    qemu: PathBuf,
    accelerator: Accelerator,
    guest: Guest,
    frontend: Frontend,
) -> MachineConfig {
    MachineConfig { qemu, accelerator, guest, frontend, placement: None, start_limit: START_LIMIT }
}

fn boots(qemu: PathBuf, accelerator: Accelerator, guest: Guest, frontend: Frontend) -> Outcome {
    let t = std::time::Instant::now();
    let mut machine = Machine::start(&config(qemu, accelerator, guest, frontend))?;
    let before = machine.counter()?;
    let up = t.elapsed();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let after = machine.counter()?;
    eprintln!(
        "{} {accelerator:?} {} up {up:?} rate {} errors {}",
        guest.name(),
        frontend.name(),
        2 * after.wrapping_sub(before),
        machine.error_count()?
    );
    Ok(())
}
