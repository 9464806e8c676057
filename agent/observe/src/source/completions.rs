//! On which vCPU this machine's kernel completes the requests of a disk, from sysfs.
//!
//! `blk_mq_complete_request` may send one from the vCPU that took the interrupt to the one that asked for it. Since 4.18
//! the rule is the same (linux: block/blk-mq.c, `blk_mq_complete_need_ipi`, before 5.9 `__blk_mq_complete_request`):
//! never with rq_affinity 0, always with 2, and with 1 if the two share no last-level cache.

use super::sysfs::{directories, text};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use vslice_perf::online::cpu_list;
use vslice_wire::CompletionVcpu;

/// What all disks have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Vcpus {
    /// Those that are online; none if that cannot be read.
    online: BTreeSet<u32>,
    /// Whether all of them are known to share their last-level cache.
    is_one_cache: bool,
}

impl Vcpus {
    /// By `/sys/devices/system/cpu`.
    pub(super) fn at(root: &Path) -> Vcpus {
        let online = list(&root.join("online")).unwrap_or_default();
        let is_one_cache = is_one_cache(root, &online);
        Vcpus { online, is_one_cache }
    }

    /// Where requests of the disk at this place of sysfs are completed; `function` is the PCI function behind it.
    pub(super) fn completing(&self, disk: &Path, function: Option<&Path>) -> CompletionVcpu {
        let rq_affinity = text(&disk.join("queue/rq_affinity"));
        match (self.online.len(), rq_affinity.as_deref()) {
            (1, _) | (2.., Some("0")) => CompletionVcpu::Interrupted,
            (2.., Some("1")) if self.is_one_cache => CompletionVcpu::Interrupted,
            (2.., Some("1" | "2")) if self.has_own_queues(disk, function) => {
                CompletionVcpu::Interrupted
            }
            (2.., Some("1")) => CompletionVcpu::InterruptedOrQueued,
            (2.., Some("2")) => CompletionVcpu::Queued,
            _ => CompletionVcpu::Unknown,
        }
    }

    /// Whether each vCPU has a queue of its own and takes its interrupts: then it is the one that asked.
    ///
    /// The kernel gives such a queue's vector to the vCPU that it maps the queue to (linux: kernel/irq/affinity.c, and
    /// `blk_mq_virtio_map_queues`, `blk_mq_pci_map_queues`), if the device has as many. Where not, virtio has two, of
    /// which the queues share one (drivers/virtio/virtio_pci_common.c, `vp_find_vqs`). With one for each queue there is
    /// at least one more, for the configuration or NVMe's admin queue.
    fn has_own_queues(&self, disk: &Path, function: Option<&Path>) -> bool {
        let mut queues_count = 0;
        let is_own = directories(&disk.join("mq")).all(|(_, queue)| {
            queues_count += 1;
            let vcpus = list(&queue.join("cpu_list"));
            vcpus.is_some_and(|vcpus| vcpus.intersection(&self.online).count() <= 1)
        });
        let vectors = function.and_then(|place| fs::read_dir(place.join("msi_irqs")).ok());
        is_own && queues_count > 0 && vectors.is_some_and(|vectors| vectors.count() > queues_count)
    }
}

/// Whether the kernel's scheduler says of any two of them that they share a cache (linux: kernel/sched/topology.c,
/// `update_top_cache_domain`; x86's `cpu_coregroup_mask`): it takes the last level beyond the first. One that is
/// isolated shares none. Since 6.9 they must be equally fast too (`cpus_equal_capacity`).
fn is_one_cache(root: &Path, online: &BTreeSet<u32>) -> bool {
    let Some(first) = online.first() else { return false };
    let caches = directories(&root.join(format!("cpu{first}/cache")));
    let level = |place: &Path| text(&place.join("level"))?.parse::<u32>().ok();
    let levels = caches.filter_map(|(_, place)| Some((level(&place)?, place)));
    let last = levels.filter(|(level, _)| *level > 1).max_by_key(|(level, _)| *level);
    let shared = last.and_then(|(_, place)| list(&place.join("shared_cpu_list")));
    let capacity = |vcpu: &u32| text(&root.join(format!("cpu{vcpu}/cpu_capacity")));
    shared.is_some_and(|shared| shared.is_superset(online))
        && text(&root.join("isolated")).is_none()
        && online.iter().all(|vcpu| capacity(vcpu) == capacity(first))
}

/// `0-3,8`, also with blanks.
fn list(path: &Path) -> Option<BTreeSet<u32>> {
    cpu_list(&text(path)?.replace(' ', ""))
}

#[cfg(test)]
#[path = "completions_tests.rs"]
mod tests;
