//! Against causes that lie in how a VM is made: its disks, quotas, memory, and the VMM's own threads.

use super::asked::Asked;
use super::command;
use super::room::room;
use super::setup::Machine;
use super::{Against, Draft, Figure};
use crate::summary::causes::Kind;
use crate::summary::model::{LockWaits, Summary};
use crate::summary::observed::subject;
use crate::summary::totals::{share, sum};
use crate::summary::verdict::DOMINANT_SHARE;
use std::collections::BTreeSet;
use vslice_core::join::{Part, Phase};
use vslice_core::timeline::Reason;
use vslice_spec::quantity::{count, counted, whole_percent};
use vslice_trace::quota::GroupRecord;
use vslice_trace::vmm::{Accelerator, Vmm};

/// What is said of a run under TCG where QEMU's own work is the cause.
const OF_TCG: &str = "; under TCG, which takes the big lock where KVM does not, so this says little of the VM under KVM";

/// The disk, where it has most of the tail: nobody takes it away, but it says where to look.
pub(super) fn disk(asked: &Asked<'_>) -> Option<Draft> {
    let of_disk = asked.share_of(Kind::Device);
    if of_disk < DOMINANT_SHARE {
        return None;
    }
    Some(Draft {
        against: Against::Disk,
        action: "Look at the host's disk: what else it serves, its queue, or a faster one"
            .to_owned(),
        because: format!(
            "the host's disk or its queue had {} for {} of their time",
            asked.which(),
            whole_percent(of_disk)
        ),
        figures: asked.figures_of_kind(Kind::Device),
        command: Err(
            "what a disk needs is not in a run: its figures are those of one VM".to_owned()
        ),
    })
}

/// The guest's own queue is the guest's affair.
pub(super) fn guest_queue(asked: &Asked<'_>) -> Option<Draft> {
    let (row, guest) = subject(asked.summary)?;
    let observed = asked.summary.observed.as_ref()?;
    let place = observed.guests.iter().position(|of| of.vm == guest.vm)?;
    let disks = guest.devices.iter().enumerate().find(|(_, disk)| disk.name == row.device);
    let vcpus = asked.summary.vcpus.iter().filter(|vcpu| vcpu.vm == row.vm).count();
    let queues = disks.and_then(|(at, disk)| Some((at, disk.hardware_queues?)));
    let mut figures = asked.figures_of_kind(Kind::GuestQueue);
    let mut because = format!(
        "{} waited in the guest's own queue for {} of their time",
        asked.which(),
        whole_percent(asked.share_of(Kind::GuestQueue))
    );
    let what = match queues {
        Some((at, queues)) if usize::from(queues) < vcpus => {
            let field = format!("/observed/guests/{place}/devices/{at}/hardware_queues");
            figures.push(Figure { field, value: u64::from(queues) });
            because.push_str(&format!(
                "; {} has {} for {}",
                row.device,
                counted(u64::from(queues), "queue"),
                counted(vcpus as u64, "vCPU")
            ));
            format!(
                "Give the disk {vcpus} queues (num-queues, or queues= of its <driver>), or ask for less at once"
            )
        }
        _ => "Give the disk longer queues (queue-size), or ask for less at once in the guest"
            .to_owned(),
    };
    let command =
        Err("it is set where the VM is started, and nothing on the host's side helps".to_owned());
    Some(Draft { against: Against::GuestQueue, action: what, because, figures, command })
}

/// The quota that was used up.
pub(super) fn quota(asked: &Asked<'_>) -> Option<Draft> {
    let machine = asked.machine();
    let groups = machine.into_iter().flat_map(|machine| &machine.groups);
    let used_up = groups.filter(|group| {
        let is_own = |vcpu| asked.vcpus.iter().any(|(_, own)| own == vcpu);
        group.quota.is_some() && group.vcpus.iter().any(is_own)
    });
    let times = |group: &GroupRecord| group.throttled().map_or(0, |done| done.throttled_count);
    let group = used_up.max_by_key(|group| times(group)).filter(|group| times(group) > 0);
    let mut because = format!(
        "{} were throttled for {} of their time",
        asked.which(),
        whole_percent(asked.share_of(Kind::State(Part::Throttled)))
    );
    let command = match group {
        Some(group) => {
            because.push_str(&format!(
                "; a quota of the VM's was used up in {} of this run",
                counted(times(group), "period")
            ));
            let domain = machine.and_then(|machine| machine.domain.as_ref());
            command::without_quota(&group.path, domain)
        }
        None => Err("which control group's quota it was is not recorded".to_owned()),
    };
    Some(Draft {
        against: Against::Quota,
        action: "Raise the VM's CPU quota, or take it away".to_owned(),
        because,
        figures: asked.figures_of_kind(Kind::State(Part::Throttled)),
        command,
    })
}

/// An iothread takes a disk's requests out of the big lock; a disk whose registers are QEMU's cannot have one.
pub(super) fn big_lock(asked: &Asked<'_>) -> Option<Draft> {
    let kind = Kind::State(Part::BqlWait);
    let machine = asked.machine()?;
    let mut figures = asked.figures_of_kind(kind);
    let mut because = format!(
        "{} waited for QEMU's big lock for {} of their time",
        asked.which(),
        whole_percent(asked.share_of(kind))
    );
    let (released, released_figures) = released(asked.summary, &machine.name);
    because.push_str(&released);
    figures.extend(released_figures);
    if asked.accelerator() == Some(Accelerator::Tcg) {
        because.push_str(OF_TCG);
    }
    let against = Against::BigLock;
    if !machine.is_virtio() {
        let buses: BTreeSet<&str> =
            machine.disks.iter().flatten().map(|disk| disk.bus.as_str()).collect();
        let buses = buses.into_iter().collect::<Vec<_>>().join(", ");
        return (!buses.is_empty()).then(|| Draft {
            against,
            action: "Give the VM a virtio disk: QEMU serves the registers of others under the lock"
                .to_owned(),
            because: format!("{because}; its disks are {buses}"),
            figures,
            command: Err("the guest has to have the driver, and its disk another name".to_owned()),
        });
    }
    match machine.has_iothreads() {
        Some(false) => {
            let command = match &machine.domain {
                Some(domain) => command::add_iothread(domain),
                None => Err("QEMU takes it when it starts: -object iothread,id=io0 and iothread=io0 at the disk's \
                             -device"
                    .to_owned()),
            };
            let what = match &machine.domain {
                Some(_) => {
                    "Give the disk an iothread: add one, and iothread='1' in the disk's <driver>"
                }
                None => "Give the disk an iothread",
            };
            let what = what.to_owned();
            because.push_str("; the disk has none");
            Some(Draft { against, action: what, because, figures, command })
        }
        // What an iothread does not take out of the lock is what the guest does with other devices.
        Some(true) | None => None,
    }
}

/// Who let go of the lock, as far as that was seen of the VM's waits.
fn released(summary: &Summary, vm: &str) -> (String, Vec<Figure>) {
    let is_bql = |row: &LockWaits| {
        row.vm == vm && matches!(row.reason, Reason::Bql | Reason::BqlFoundByBehaviour)
    };
    let rows = summary.lock_waits.iter().enumerate().filter(|(_, row)| is_bql(row));
    let rows: Vec<_> = rows.collect();
    let all_ns = sum(rows.iter().map(|(_, row)| row.total_ns));
    let of_loop: Vec<_> =
        rows.iter().filter(|(_, row)| row.released_by.name.ends_with("main loop")).collect();
    let loop_ns = sum(of_loop.iter().map(|(_, row)| row.total_ns));
    if all_ns == 0 {
        return (String::new(), Vec::new());
    }
    let figures = rows.iter().map(|(place, row)| Figure {
        field: format!("/lock_waits/{place}/total_ns"),
        value: row.total_ns,
    });
    let share = whole_percent(share(loop_ns, all_ns));
    (format!("; the main loop let go of it in {share} of its vCPUs' waits"), figures.collect())
}

/// While the vCPU was idle and the disk did not have the I/O, a thread of the VMM had it.
pub(super) fn vmm_thread(asked: &Asked<'_>) -> Option<Draft> {
    let kind = Kind::State(Part::Halt);
    let phases = [Phase::Queued, Phase::Completed];
    let [before_ns, after_ns] = phases.map(|phase| asked.total_in(kind, &[phase]));
    // Where the phases are not known, the disk may have had it.
    let halts_ns = asked.total_of(kind);
    if share(before_ns.saturating_add(after_ns), halts_ns) < DOMINANT_SHARE {
        return None;
    }
    let machine = asked.machine()?;
    let has_iothreads = machine.has_iothreads()?;
    let thread = if has_iothreads { "the disk's iothread" } else { "QEMU's main loop" };
    let mut because = format!(
        "the vCPU was idle for {} of the time of {} before {thread} had handed the I/O to the host, and for {} until it \
         had told the guest of its end",
        whole_percent(asked.share(before_ns)),
        asked.which(),
        whole_percent(asked.share(after_ns))
    );
    let mut figures = asked.figures_in(kind, &phases);
    if asked.accelerator() == Some(Accelerator::Tcg) {
        because.push_str(OF_TCG);
    }
    // A thread that is woken for little work finds its pCPU idle only where that mostly is.
    let waited: BTreeSet<_> = asked.class.antagonist_groups.iter().map(|row| row.pcpu).collect();
    let needed_ns = asked.summary.facts.measured_ns / 2;
    let needed_ns = needed_ns.max(ran_instead(asked, machine));
    let command = room(asked, needed_ns, &waited).and_then(|room| {
        because.push_str(&format!("; {}", room.words));
        figures.extend(room.figures);
        if has_iothreads {
            return Err("which iothread it was is not known".to_owned());
        }
        command::pin_emulator(machine, &room.pcpus)
    });
    let what = if has_iothreads || machine.vmm != Some(Vmm::Qemu) || !machine.is_virtio() {
        format!("Give {thread} a pCPU of its own")
    } else {
        format!("Give {thread} a pCPU of its own, or the disk an iothread")
    };
    Some(Draft { against: Against::VmmThread, action: what, because, figures, command })
}

/// How long the VMM's own threads ran while its vCPUs waited: as much as is known of what they need.
fn ran_instead(asked: &Asked<'_>, machine: &Machine) -> u64 {
    let vcpus = asked.summary.vcpus.iter().filter(|vcpu| vcpu.vm == machine.name);
    let groups = vcpus.flat_map(|vcpu| &vcpu.antagonist_groups);
    sum(groups.filter(|group| group.name == machine.name).map(|group| group.ran_ns))
}

/// Memory that the host had taken from the VM.
pub(super) fn host_fault(asked: &Asked<'_>) -> Option<Draft> {
    let kind = Kind::State(Part::HostFault);
    Some(Draft {
        against: Against::HostFault,
        action:
            "Keep the VM's memory on the host: locked, in huge pages, or with more memory for all"
                .to_owned(),
        because: format!(
            "{} waited for {} of their time until the host had a page that the vCPU touched",
            asked.which(),
            whole_percent(asked.share_of(kind))
        ),
        figures: asked.figures_of_kind(kind),
        command: Err("how much memory the host can spare is not in a run".to_owned()),
    })
}

/// A vCPU's thread that does the disk's I/O itself.
pub(super) fn io_submit(asked: &Asked<'_>) -> Option<Draft> {
    let kind = Kind::State(Part::IoSubmit);
    let disks = asked.machine().and_then(|machine| machine.disks.as_ref());
    let without = disks.into_iter().flatten().filter(|disk| disk.has_iothread == Some(false));
    let labels: Vec<&str> = without.map(|disk| disk.label.as_str()).take(1).collect();
    let what = match labels.as_slice() {
        [_] => {
            "Take the disk's I/O out of the vCPU's thread: an iothread, and aio=native or io_uring"
        }
        _ => "Take the disk's I/O out of the vCPU's thread: aio=native or io_uring",
    };
    Some(Draft {
        against: Against::IoSubmit,
        action: what.to_owned(),
        because: format!(
            "the vCPU's thread waited for disk I/O of its own for {} of the time of {} ({} of them)",
            whole_percent(asked.share_of(kind)),
            asked.which(),
            count(asked.class.count)
        ),
        figures: asked.figures_of_kind(kind),
        command: Err("it is set where the VM is started".to_owned()),
    })
}
