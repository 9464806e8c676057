//! Quotas of control groups: how long the threads of a group may run in each period, and how often
//! that was used up.
//!
//! Version 1 has the `cpu` controller in a hierarchy of its own (`Documentation/scheduler/sched-bwc.rst`),
//! version 2 has one hierarchy for all (`Documentation/admin-guide/cgroup-v2.rst`). A controller is in
//! one of the two; where it is mounted in version 1, that is the one. A quota holds for a group and for
//! all groups below it, so a thread is limited by its own group and by all above that.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use vslice_core::units::{Tid, VcpuId};
use vslice_trace::quota::{Quota, Throttling};

/// The version of the hierarchy that has the `cpu` controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// cgroup v1: a hierarchy of its own.
    V1,
    /// cgroup v2: one hierarchy for all controllers.
    V2,
}

/// The hierarchy of control groups with the `cpu` controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    version: Version,
    /// The directory that it is mounted on.
    mount: PathBuf,
    /// The group that is seen there, `/` unless only a part is mounted.
    root: PathBuf,
}

/// A control group with a CPU quota, and the vCPUs of a VM that it limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VcpuQuota {
    /// The group's directory.
    pub group: PathBuf,
    /// The quota, which limits the threads in the group and below it.
    pub quota: Quota,
    /// The number of periods since the group was created in which the quota was used up; `None` if the
    /// kernel does not count them.
    pub throttled_count: Option<u64>,
    /// The vCPUs in the group and below it.
    pub vcpus: Vec<VcpuId>,
}

impl Hierarchy {
    /// The hierarchy of this host.
    ///
    /// # Errors
    /// The reason why there is none, as a sentence without its full stop.
    pub fn of_host() -> Result<Hierarchy, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("/proc/self/mountinfo cannot be read: {error}"))?;
        Hierarchy::parse(&mounts)
            .ok_or_else(|| String::from("no cgroup hierarchy with the cpu controller is mounted"))
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The directory that it is mounted on.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// From `/proc/PID/mountinfo`, see proc_pid_mountinfo(5).
    fn parse(mounts: &str) -> Option<Hierarchy> {
        let mounted = mounts.lines().filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut place = place.split(' ').skip(3);
            let (root, mount) = (place.next()?, place.next()?);
            let mut kind = kind.split(' ');
            let version = match (kind.next()?, kind.nth(1)?) {
                ("cgroup", options) if options.split(',').any(|word| word == "cpu") => Version::V1,
                ("cgroup2", _) => Version::V2,
                _ => return None,
            };
            Some(Hierarchy { version, mount: mount.into(), root: root.into() })
        });
        mounted.min_by_key(|found| found.version == Version::V2)
    }

    /// The directories of a thread's group and of all groups above it, its own first.
    ///
    /// # Errors
    /// Why they are not known, as a sentence without its end.
    pub fn groups_of(&self, tid: Tid) -> Result<Vec<PathBuf>, String> {
        let path = format!("/proc/{tid}/cgroup");
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        self.groups_in(&text).ok_or_else(|| {
            let mount = self.mount.display();
            format!("{path} names no cgroup below {mount} with the cpu controller")
        })
    }

    /// From `/proc/PID/cgroup`, see cgroups(7): lines `ID:CONTROLLERS:PATH`.
    fn groups_in(&self, text: &str) -> Option<Vec<PathBuf>> {
        let path = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match self.version {
                Version::V1 => controllers.split(',').any(|name| name == "cpu"),
                Version::V2 => id == "0",
            };
            is_it.then_some(path)
        })?;
        // From within a cgroup namespace a group outside it is `/../other`, which is not mounted.
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        if below.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        let own =
            if below.as_os_str().is_empty() { self.mount.clone() } else { self.mount.join(below) };
        Some(
            own.ancestors()
                .take_while(|group| group.starts_with(&self.mount))
                .map(Into::into)
                .collect(),
        )
    }

    /// The groups that limit these threads, each once.
    ///
    /// # Errors
    /// Why they are not known, as a sentence without its end.
    pub fn quotas_of(
        &self,
        vcpus: impl Iterator<Item = (VcpuId, Tid)>,
    ) -> Result<Vec<VcpuQuota>, String> {
        let mut quotas = Vec::new();
        for (vcpu, tid) in vcpus {
            self.note_quotas(&mut quotas, vcpu, self.groups_of(tid)?);
        }
        Ok(quotas)
    }

    fn note_quotas(&self, quotas: &mut Vec<VcpuQuota>, vcpu: VcpuId, groups: Vec<PathBuf>) {
        for group in groups {
            if let Some(known) = quotas.iter_mut().find(|known| known.group == group) {
                known.vcpus.push(vcpu);
            } else if let Some(quota) = self.quota(&group) {
                let throttled_count = self.throttling(&group).map(|done| done.throttled_count);
                quotas.push(VcpuQuota { group, quota, throttled_count, vcpus: vec![vcpu] });
            }
        }
    }

    /// A group's quota; `None` if it has none.
    #[must_use]
    pub fn quota(&self, group: &Path) -> Option<Quota> {
        let read = |name| fs::read_to_string(group.join(name)).ok();
        match self.version {
            Version::V1 => parse_quota(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
            Version::V2 => {
                let text = read("cpu.max")?;
                let (quota, period) = text.split_once(' ')?;
                parse_quota(quota, period)
            }
        }
    }

    /// How often and how long a group was throttled so far; `None` if the kernel does not count it, as in
    /// the root group of cgroup v2 and in groups without the controller.
    #[must_use]
    pub fn throttling(&self, group: &Path) -> Option<Throttling> {
        parse_throttling(&fs::read_to_string(group.join("cpu.stat")).ok()?)
    }
}

/// Two numbers; no quota is `-1` in version 1, `max` in version 2.
fn parse_quota(quota: &str, period: &str) -> Option<Quota> {
    Some(Quota { quota_us: quota.trim().parse().ok()?, period_us: period.trim().parse().ok()? })
}

fn parse_throttling(text: &str) -> Option<Throttling> {
    let value = |wanted: &str| -> Option<u64> {
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.into_iter().find(|(key, _)| *key == wanted)?.1.trim().parse().ok()
    };
    let throttled_ns =
        value("throttled_time").or_else(|| Some(value("throttled_usec")?.saturating_mul(1000)))?;
    Some(Throttling { throttled_count: value("nr_throttled")?, throttled_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
        33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct\n";
    const V2: &str =
        "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const OF_THREAD: &str = "4:memory:/other\n3:cpuset,cpu:/vms/vm1/vcpu0\n2:cpuacct:/\n\
        0::/machine.slice/vm1.scope/libvirt/vcpu0\n";

    fn groups(mounts: &str, thread: &str) -> Option<Vec<String>> {
        let groups = Hierarchy::parse(mounts)?.groups_in(thread)?;
        Some(groups.iter().map(|group| group.display().to_string()).collect())
    }

    #[test]
    fn a_thread_is_limited_by_its_group_and_all_above() {
        let own = ["/vms/vm1/vcpu0", "/vms/vm1", "/vms", ""];
        let expected: Vec<_> = own.map(|path| format!("/sys/fs/cgroup/cpu,cpuacct{path}")).into();
        assert_eq!(groups(V1, OF_THREAD), Some(expected));
        let unified = groups(V2, OF_THREAD).unwrap();
        assert_eq!(unified[0], "/sys/fs/cgroup/machine.slice/vm1.scope/libvirt/vcpu0");
        assert_eq!((unified.len(), unified[4].as_str()), (5, "/sys/fs/cgroup"));
        assert_eq!(groups(V1, "3:cpu:/\n"), Some(vec!["/sys/fs/cgroup/cpu,cpuacct".to_owned()]));
    }

    #[test]
    fn a_group_that_cannot_be_seen_is_none() {
        let part = "32 31 0:29 /docker/a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let seen = groups(part, "3:cpu:/docker/a/b\n").unwrap();
        assert_eq!(seen, ["/sys/fs/cgroup/cpu/b", "/sys/fs/cgroup/cpu"]);
        assert_eq!(groups(part, "3:cpu:/docker/ab\n"), None);
        assert_eq!(groups(V2, "0::/../other\n"), None);
        assert_eq!(groups(V1, "0::/only/version/two\n"), None);
        assert_eq!(Hierarchy::parse("1 2 0:3 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn quotas_of_both_versions() {
        let quota = |quota_us, period_us| Some(Quota { quota_us, period_us });
        assert_eq!(parse_quota("20000\n", "50000\n"), quota(20_000, 50_000));
        assert_eq!(parse_quota("-1\n", "100000\n"), None);
        let scratch = tempfile::tempdir().unwrap();
        let group = scratch.path();
        let write = |name: &str, text: &str| std::fs::write(group.join(name), text).unwrap();
        let (v1, v2) = (Hierarchy::parse(V1).unwrap(), Hierarchy::parse(V2).unwrap());
        write("cpu.max", "max 100000\n");
        assert_eq!((v1.quota(group), v2.quota(group)), (None, None));
        write("cpu.max", "150000 100000\n");
        write("cpu.cfs_quota_us", "2000\n");
        write("cpu.cfs_period_us", "10000\n");
        assert_eq!(v2.quota(group), quota(150_000, 100_000));
        assert_eq!(v1.quota(group), quota(2_000, 10_000));
        assert_eq!(v1.throttling(group), None);
    }

    #[test]
    fn each_group_that_limits_vcpus_is_told_once() {
        for version in [Version::V1, Version::V2] {
            let scratch = tempfile::tempdir().unwrap();
            let mount = scratch.path().to_owned();
            let hierarchy = Hierarchy { version, mount: mount.clone(), root: "/".into() };
            let own = |name: &str| [mount.join("vm").join(name), mount.join("vm"), mount.clone()];
            for name in ["vcpu0", "vcpu1"] {
                std::fs::create_dir_all(mount.join("vm").join(name)).unwrap();
            }
            let write = |group: &str, name: &str, text: &str| {
                std::fs::write(mount.join(group).join(name), text).unwrap();
            };
            match version {
                Version::V1 => {
                    write("vm", "cpu.cfs_quota_us", "50000\n");
                    write("vm", "cpu.cfs_period_us", "100000\n");
                    write("vm/vcpu0", "cpu.cfs_quota_us", "-1\n");
                    write("vm/vcpu0", "cpu.cfs_period_us", "100000\n");
                    write("vm", "cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 7\n");
                }
                Version::V2 => {
                    write("vm", "cpu.max", "50000 100000\n");
                    write("vm/vcpu0", "cpu.max", "max 100000\n");
                    write("vm", "cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_usec 7\n");
                }
            }
            let mut quotas = Vec::new();
            hierarchy.note_quotas(&mut quotas, VcpuId(0), own("vcpu0").into());
            hierarchy.note_quotas(&mut quotas, VcpuId(1), own("vcpu1").into());
            let quota = Quota { quota_us: 50_000, period_us: 100_000 };
            let (group, vcpus) = (mount.join("vm"), vec![VcpuId(0), VcpuId(1)]);
            let one = VcpuQuota { group, quota, throttled_count: Some(4), vcpus };
            assert_eq!(quotas, [one], "{version:?}");
        }
    }

    #[test]
    fn throttling_of_both_versions() {
        let throttling =
            |throttled_count, throttled_ns| Some(Throttling { throttled_count, throttled_ns });
        let v1 = "nr_periods 90\nnr_throttled 37\nthrottled_time 1200345678\nnr_bursts 0\n";
        assert_eq!(parse_throttling(v1), throttling(37, 1_200_345_678));
        let v2 = "usage_usec 7\nuser_usec 5\nnr_periods 2\nnr_throttled 1\nthrottled_usec 1250\n";
        assert_eq!(parse_throttling(v2), throttling(1, 1_250_000));
        // The topmost group of version 2.
        assert_eq!(parse_throttling("usage_usec 7\nuser_usec 5\nsystem_usec 2\n"), None);
    }
}
