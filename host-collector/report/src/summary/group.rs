//! Who ran while somebody else waited, by groups: whom people would name.

use super::model::{Members, Relation};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use vslice_core::units::{PcpuId, VcpuId};

/// Names that a group lists at most, the longest first.
pub const MEMBERS_MAX: usize = 4;

/// Names of the root control group that a sentence tells.
const NAMED_MAX: usize = 2;

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

impl GroupKind {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            GroupKind::OwnVm => "own_vm",
            GroupKind::OtherVm => "other_vm",
            GroupKind::ControlGroup => "control_group",
            GroupKind::Collector => "collector",
            GroupKind::OtherVslice => "other_vslice",
            GroupKind::KernelThread => "kernel_thread",
            GroupKind::Unknown => "unknown",
        }
    }
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
    pub fn subject(&self) -> Cow<'_, str> {
        let only = self.only().map(|only| Cow::from(&only.name));
        match self.kind {
            GroupKind::OwnVm => only.unwrap_or_else(|| format!("the rest of {}", self.name).into()),
            GroupKind::OtherVm => only.unwrap_or(Cow::from(&self.name)),
            GroupKind::ControlGroup if self.path.as_deref() == Some("/") => {
                only.unwrap_or_else(|| format!("the root control group{}", self.longest()).into())
            }
            GroupKind::ControlGroup
            | GroupKind::Collector
            | GroupKind::OtherVslice
            | GroupKind::KernelThread
            | GroupKind::Unknown => Cow::from(&self.name),
        }
    }

    /// The names of those that ran longest, in parentheses: the root control group says nothing of who is in it.
    fn longest(&self) -> String {
        let members = || self.members.iter().take(NAMED_MAX);
        let names: Vec<&str> = members().map(|member| member.name.as_str()).collect();
        let ran_ns = members().map(|member| member.ran_ns).fold(0, u64::saturating_add);
        let others = if ran_ns < self.ran_ns { " and others" } else { "" };
        if names.is_empty() { String::new() } else { format!(" ({}{others})", names.join(", ")) }
    }

    /// The one name that it has, if nobody else of it ran: who has no row of their own may have any name.
    pub(super) fn only(&self) -> Option<&GroupMember> {
        self.members.first().filter(|only| self.names == 1 && only.ran_ns == self.ran_ns)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_called_by_a_thread_only_if_nobody_else_of_it_ran() {
        let exact = Members { count: 1, is_exact: true };
        let member =
            GroupMember { name: "vm2 vCPU1".to_owned(), kind: Relation::OtherVmVcpu, ran_ns: 700 };
        let mut group = AntagonistGroup {
            kind: GroupKind::OtherVm,
            name: "vm2".to_owned(),
            path: None,
            members: vec![member],
            names: 1,
            threads: exact,
            processes: exact,
            ran_ns: 700,
            error_ns: 0,
            share: 0.7,
        };
        assert_eq!(group.subject(), "vm2 vCPU1");
        // What many of its threads ran in one wait, with no room for their names.
        group.ran_ns = 900;
        assert_eq!(group.subject(), "vm2");
        group.kind = GroupKind::OwnVm;
        assert_eq!(group.subject(), "the rest of vm2");
    }
}
