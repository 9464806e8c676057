//! The control groups of a run: each path once, whatever number it had.

use crate::task::ControlGroup;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::sync::Arc;

/// Groups that are told apart at most; the threads of more have an unknown one.
const GROUPS_MAX: usize = 1 << 16;

/// What is known of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupName {
    /// Its path below the root of its hierarchy, which is `/`.
    Path(Arc<str>),
    /// Only its number: it was gone before it was named.
    Gone(u64),
    /// Only its number: the run does not say what became of it.
    Unnamed(u64),
}

/// All control groups that are known so far.
#[derive(Debug, Clone, Default)]
pub struct ControlGroups {
    names: Vec<GroupName>,
    by_path: HashMap<Arc<str>, ControlGroup>,
    by_number: FxHashMap<u64, ControlGroup>,
}

impl ControlGroups {
    /// The group of this path; `None` if there are too many.
    pub fn at(&mut self, path: &str) -> Option<ControlGroup> {
        if let Some(group) = self.by_path.get(path) {
            return Some(*group);
        }
        let path: Arc<str> = path.into();
        let group = self.push(GroupName::Path(Arc::clone(&path)))?;
        self.by_path.insert(path, group);
        Some(group)
    }

    /// Says that the group of this number has this path. A group that is made anew under its old path has
    /// another number and is the same one.
    pub fn is_at(&mut self, number: u64, path: &str) {
        if let Some(group) = self.at(path) {
            self.by_number.insert(number, group);
        }
    }

    /// Says that the group of this number was gone before it was named.
    pub fn is_gone(&mut self, number: u64) {
        if let Some(group) = self.push(GroupName::Gone(number)) {
            self.by_number.insert(number, group);
        }
    }

    /// The group of this number; `None` if there are too many.
    pub fn numbered(&mut self, number: u64) -> Option<ControlGroup> {
        if let Some(group) = self.by_number.get(&number) {
            return Some(*group);
        }
        let group = self.push(GroupName::Unnamed(number))?;
        self.by_number.insert(number, group);
        Some(group)
    }

    /// What is known of a group; `None` of one that is none of these.
    #[must_use]
    pub fn name(&self, group: ControlGroup) -> Option<&GroupName> {
        self.names.get(usize::try_from(group.0).ok()?)
    }

    fn push(&mut self, name: GroupName) -> Option<ControlGroup> {
        let number = u32::try_from(self.names.len()).ok().filter(|_| self.names.len() < GROUPS_MAX);
        self.names.push(number.map(|_| name)?);
        number.map(ControlGroup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_made_anew_under_its_path_is_the_same() {
        let mut groups = ControlGroups::default();
        groups.is_at(7, "/system.slice/a.service");
        groups.is_at(9, "/system.slice/a.service");
        groups.is_at(8, "/system.slice/b.service");
        assert_eq!(groups.numbered(7), groups.numbered(9));
        assert_ne!(groups.numbered(7), groups.numbered(8));
        let path = groups.numbered(9).and_then(|group| groups.name(group).cloned());
        assert_eq!(path, Some(GroupName::Path("/system.slice/a.service".into())));
    }

    #[test]
    fn a_group_without_a_path_is_called_by_its_number() {
        let mut groups = ControlGroups::default();
        let group = groups.numbered(77).unwrap();
        assert_eq!(groups.name(group), Some(&GroupName::Unnamed(77)));
        assert_eq!(groups.numbered(77), Some(group));
        groups.is_gone(78);
        let gone = groups.numbered(78).and_then(|group| groups.name(group).cloned());
        assert_eq!(gone, Some(GroupName::Gone(78)));
        assert_eq!(groups.name(ControlGroup(5)), None);
    }

    #[test]
    fn groups_are_bounded() {
        let mut groups = ControlGroups::default();
        let told = (0..GROUPS_MAX as u64 + 9).filter_map(|number| groups.numbered(number)).count();
        assert_eq!((told, groups.names.len()), (GROUPS_MAX, GROUPS_MAX));
    }
}
