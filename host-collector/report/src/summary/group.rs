//! Who ran while somebody else waited, by groups: whom people would name.

use super::model::{Members, Relation};
use serde::{Deserialize, Serialize};
use vslice_core::units::{PcpuId, VcpuId};

/// Names that a group lists at most, the longest first.
pub const MEMBERS_MAX: usize = 4;

/// What the members of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// They work for the VM of the vCPU that waited.
    OwnVm,
    /// They work for another VM, recorded or not.
    OtherVm,
    /// They are in one control group, and work for no VM alone.
    ControlGroup,
    /// They are threads of this vslice.
    Collector,
    /// They are threads of one other vslice.
    OtherVslice,
    /// They are threads of the host's kernel with one name.
    KernelThread,
    /// Their control group is unknown, and they have one name.
    Unknown,
}

/// A group, and what its members ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AntagonistGroup {
    /// What its members have in common.
    pub kind: GroupKind,
    /// What it is called: the VM's name, the last parts of the control group's path, or the name that all its
    /// threads have.
    pub name: String,
    /// The path of the control group below the root of its hierarchy, where it is known.
    pub path: Option<String>,
    /// The names in it that ran longest, the longest first, at most [`MEMBERS_MAX`].
    pub members: Vec<GroupMember>,
    /// How many names it has, as far as they have a row of their own.
    pub names: u64,
    /// How many threads they are; in the lists of the classes, over all requests.
    pub threads: Members,
    /// Of how many processes.
    pub processes: Members,
    /// How long they ran in nanoseconds, at least.
    pub ran_ns: u64,
    /// How much longer they may have run, because there was no room for the group at first: time that is
    /// counted among the others. 0 unless one wait had more than 32 groups, one request more than 64, or the
    /// run more than vslice keeps.
    pub error_ns: u64,
    /// `ran_ns` as a share of the wait, in [0, 1].
    pub share: f64,
}

impl AntagonistGroup {
    /// What it is called in a sentence: a VM of which one thread ran is called by that, and so is whoever is in
    /// no control group of its own.
    #[must_use]
    pub fn subject(&self) -> &str {
        let only = self.members.first().filter(|_| self.names == 1).map(|only| only.name.as_str());
        match self.kind {
            GroupKind::OwnVm | GroupKind::OtherVm => only.unwrap_or(&self.name),
            GroupKind::ControlGroup if self.path.as_deref() == Some("/") => {
                only.unwrap_or("the root control group")
            }
            GroupKind::ControlGroup
            | GroupKind::Collector
            | GroupKind::OtherVslice
            | GroupKind::KernelThread
            | GroupKind::Unknown => &self.name,
        }
    }
}

/// All threads of one name in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// `vm2 vCPU1`, `cc1`, `make`.
    pub name: String,
    /// How they relate to the vCPU that it is listed with.
    pub kind: Relation,
    /// How long they ran in nanoseconds, at least.
    pub ran_ns: u64,
}

/// A group that ran on a pCPU while requests of a class waited for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassAntagonistGroup {
    /// The VM that waited.
    pub victim_vm: String,
    /// The vCPU of that VM that waited.
    pub victim_vcpu: VcpuId,
    /// The pCPU that it waited for.
    pub pcpu: PcpuId,
    /// Who ran there, for how long, and the share of the class's `wait_ns`.
    #[serde(flatten)]
    pub group: AntagonistGroup,
}
