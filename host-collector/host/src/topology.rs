//! Which pCPUs share a core and a node of memory, and on which nodes a process's memory lies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};
use vslice_core::units::{PcpuId, Tid};
use vslice_trace::host::HostPcpus;

/// The host's pCPUs by what they share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// The pCPUs of each NUMA node, by the node's number.
    pub nodes: BTreeMap<u32, HostPcpus>,
    /// Of each pCPU the others that are threads of its core (SMT).
    pub siblings: BTreeMap<PcpuId, BTreeSet<PcpuId>>,
}

impl Topology {
    /// That of this host; what it does not tell is left out.
    #[must_use]
    pub fn of_host() -> Topology {
        Topology::below(Path::new("/sys/devices/system"))
    }

    fn below(system: &Path) -> Topology {
        let list = |path: &Path| HostPcpus::parse(fs::read_to_string(path).ok()?.trim()).ok();
        let nodes = numbered(&system.join("node"), "node")
            .into_iter()
            .filter_map(|(node, path)| Some((node, list(&path.join("cpulist"))?)));
        let siblings =
            numbered(&system.join("cpu"), "cpu").into_iter().filter_map(|(pcpu, path)| {
                let core = list(&path.join("topology/thread_siblings_list"))?;
                Some((PcpuId(pcpu), core.iter().filter(|other| other.0 != pcpu).collect()))
            });
        Topology { nodes: nodes.collect(), siblings: siblings.collect() }
    }

    /// The node on which all of these pCPUs are; `None` if there is none, or no other.
    #[must_use]
    pub fn only_node_of(&self, pcpus: &[PcpuId]) -> Option<u32> {
        let has_all = |node: &HostPcpus| pcpus.iter().all(|pcpu| node.contains(*pcpu));
        let found = self.nodes.iter().find(|(_, node)| has_all(node));
        found.map(|(number, _)| *number).filter(|_| self.nodes.len() > 1 && !pcpus.is_empty())
    }
}

/// The entries `node0`, `node1`, ... of a directory.
fn numbered(directory: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((number, entry.path()))
    });
    numbered.collect()
}

/// For how long KVM polls at most when a vCPU halts; `None` if KVM is not there (linux:
/// Documentation/virt/kvm/halt-polling.rst).
#[must_use]
pub fn halt_poll_ns() -> Option<u64> {
    fs::read_to_string("/sys/module/kvm/parameters/halt_poll_ns").ok()?.trim().parse().ok()
}

/// How many bytes of a process lie on each NUMA node, of what may be a guest's memory.
///
/// The kernel counts the pages for it while it holds the lock of the process's address space for reading, as a page
/// fault does.
///
/// # Errors
/// Those of reading `/proc/PID/numa_maps`: another user's process does not show it.
pub fn guest_memory_by_node(pid: Tid) -> io::Result<BTreeMap<u32, u64>> {
    Ok(parse_numa_maps(&fs::read_to_string(format!("/proc/{pid}/numa_maps"))?))
}

/// A line is `ADDRESS POLICY anon=5 N0=3 N1=2 kernelpagesize_kB=4` (numa(7)). Files that are not memory, such as
/// libraries, are no guest's.
fn parse_numa_maps(text: &str) -> BTreeMap<u32, u64> {
    let mut bytes = BTreeMap::new();
    for line in text.lines() {
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
        let is_huge = line.split(' ').any(|word| word == "huge");
        let is_memory = |file: &str| {
            ["/memfd:", "/dev/shm/", "/dev/zero"].iter().any(|at| file.starts_with(at))
        };
        if !is_huge && value("file=").is_some_and(|file| !is_memory(file)) {
            continue;
        }
        let page_kib: u64 =
            value("kernelpagesize_kB=").and_then(|size| size.parse().ok()).unwrap_or(0);
        for word in line.split(' ') {
            let node = word.strip_prefix('N').and_then(|word| word.split_once('='));
            if let Some((node, pages)) = node
                && let (Ok(node), Ok(pages)) = (node.parse::<u32>(), pages.parse::<u64>())
            {
                *bytes.entry(node).or_default() += pages.saturating_mul(page_kib << 10);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_nodes_are_the_kernels_lists() {
        let scratch = tempfile::tempdir().expect("scratch");
        for (path, text) in [
            ("node/node0/cpulist", "0-1,4-5\n"),
            ("node/node1/cpulist", "2-3,6-7\n"),
            // A node that has memory alone.
            ("node/node2/cpulist", "\n"),
            ("cpu/cpu1/topology/thread_siblings_list", "1,5\n"),
            ("cpu/cpu5/topology/thread_siblings_list", "1,5\n"),
            ("cpu/cpufreq/topology/thread_siblings_list", "1,5\n"),
        ] {
            let path = scratch.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("room");
            fs::write(path, text).expect("room");
        }
        let topology = Topology::below(scratch.path());
        let pcpus = |ids: &[u32]| ids.iter().copied().map(PcpuId).collect::<Vec<_>>();
        assert_eq!(topology.siblings[&PcpuId(1)], BTreeSet::from([PcpuId(5)]));
        assert_eq!(topology.siblings.len(), 2);
        assert_eq!(topology.only_node_of(&pcpus(&[2, 7])), Some(1));
        assert_eq!(topology.only_node_of(&pcpus(&[1, 2])), None, "they are on two");
        assert_eq!(topology.only_node_of(&[]), None);
        let mut one = topology;
        one.nodes.retain(|node, _| *node == 1);
        assert_eq!(one.only_node_of(&pcpus(&[2])), None, "there is no other node");
        assert!(!Topology::of_host().siblings.contains_key(&PcpuId(u32::MAX)));
    }

    #[test]
    fn a_guests_memory_is_counted_by_its_pages() {
        let text = "55d0 default file=/usr/lib/x.so mapped=9 N0=9 kernelpagesize_kB=4
7f00 bind:1 anon=1000 dirty=1000 N0=250 N1=750 kernelpagesize_kB=4
7f10 default file=/dev/hugepages/a\\040(deleted) huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048
7f20 default file=/memfd:mem\\040(deleted) dirty=10 N0=10 kernelpagesize_kB=4
7f30 default
";
        let expected = BTreeMap::from([(0, 260 << 12), (1, (750 << 12) + (4 << 20))]);
        assert_eq!(parse_numa_maps(text), expected);
        assert_eq!(parse_numa_maps("nonsense N=1 Nx=2"), BTreeMap::new());
        let own = guest_memory_by_node(Tid(std::process::id()));
        // A kernel without NUMA has no such file.
        assert!(
            own.is_ok_and(|nodes| nodes.values().sum::<u64>() > 0)
                || !Path::new("/proc/self/numa_maps").exists()
        );
    }
}
